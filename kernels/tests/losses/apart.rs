//! Gradients beside the logits: the bits of gradients in their place, and the logits stay.

use half::bf16;
use openclaw_kernels::Float;
use openclaw_kernels::ops::*;

use crate::cases::Inputs;
use crate::device::{Device, Loss};

on_every_device! {
    a_row_loss_apart_has_the_bits_of_one_in_place,
    rows_that_a_row_loss_ignores_get_zeros_unread,
    logits_of_another_length_are_named,
}

/// Vocabularies of one block and of several.
const VOCABS: [usize; 6] = [1, 9, 1025, 5000, 30_001, 151_936];

fn bits<T: Float>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

/// `rows` at every `stride` elements, `around` between them, from the `shift`-th element on.
fn spread<T: Float>(rows: &[T], vocab: usize, stride: usize, shift: usize, around: f32) -> Vec<T> {
    let mut spread = vec![T::from_f32(around); shift + rows.len() / vocab * stride];
    for (row, to) in rows.chunks(vocab).zip(spread[shift..].chunks_mut(stride)) {
        to[..vocab].copy_from_slice(row);
    }
    spread
}

fn a_row_loss_apart_has_the_bits_of_one_in_place(device: &Device) {
    let emulated = matches!(device, Device::Cuda(_)) && crate::device::gpu().is_none();
    for vocab in VOCABS {
        // A compilation for each kind of row: one of few vectors, and one that clusters share or that is read twice.
        if emulated && ![9, 30_001].contains(&vocab) {
            continue;
        }
        same_bits::<f32>(device, vocab);
        same_bits::<bf16>(device, vocab);
    }
}

fn same_bits<T: Float>(device: &Device, vocab: usize) {
    const CANARY: f32 = -7.25;
    let inputs = Inputs::new(61 + vocab as u64, if vocab > 10_000 { 2 } else { 4 }, vocab, 0.9);
    let logits = inputs.logits_as::<T>();
    let mut losses = inputs.losses();
    if vocab > 10_000 {
        losses.retain(|(name, _)| ["policy", "policy with k3", "hybrid"].contains(name));
    }
    for (name, loss) in losses {
        for (stride, shift) in
            [(vocab.next_multiple_of(8), 0), (vocab.next_multiple_of(8), 3), (vocab | 1, 0)]
        {
            let shape = LogitsShape { stride, ..inputs.shape() };
            let run = |source: Option<&[T]>, mut target: Vec<T>| {
                let mut stats = vec![RowStat::default(); inputs.rows];
                device.row_loss(shape, loss, source, &mut target, &mut stats).expect("valid arguments");
                (target, stats)
            };
            let source = spread(&logits, vocab, stride, shift, f32::NAN);
            // What the memory held before must not show.
            let before = spread(&vec![T::from_f32(f32::NAN); logits.len()], vocab, stride, 0, CANARY);
            let (apart, stats) = run(Some(&source[shift..]), before);
            let (in_place, expected) = run(None, spread(&logits, vocab, stride, 0, CANARY));
            let at = format!("{name}, V {vocab}, stride {stride}, shift {shift}");
            assert!(bits(&apart) == bits(&in_place), "{at}");
            assert_eq!(stats, expected, "{at}");
            let padding = apart.chunks(stride).flat_map(|row| &row[vocab..]);
            assert!(padding.into_iter().all(|x| x.to_f32() == CANARY), "{at}");
        }
    }
}

fn rows_that_a_row_loss_ignores_get_zeros_unread(device: &Device) {
    ignored::<f32>(device);
    ignored::<bf16>(device);
}

fn ignored<T: Float>(device: &Device) {
    for vocab in [1025, 30_001] {
        let mut inputs = Inputs::new(62, 4, vocab, 1.0);
        inputs.weights[0] = 0.0;
        inputs.targets[2] = -1;
        // Without an advantage the row is read for its report and has no gradient.
        inputs.advantages[3] = 0.0;
        let mut source = inputs.logits_as::<T>();
        for i in [0, 2] {
            source[i * vocab..][..vocab].fill(T::from_f32(f32::NAN));
        }
        let loss: Loss<'_> = RowLoss {
            token: inputs.policy(None),
            ..RowLoss::cross_entropy(&inputs.weights[..], &inputs.targets[..])
        };
        let (mut target, mut stats) =
            (vec![T::from_f32(f32::NAN); source.len()], vec![RowStat::default(); 4]);
        device
            .row_loss(inputs.shape(), loss, Some(&source), &mut target, &mut stats)
            .expect("valid arguments");
        for (i, row) in target.chunks(vocab).enumerate() {
            let zero = row.iter().all(|x| x.to_f32() == 0.0);
            assert!(zero || (i == 1 && row.iter().all(|x| x.to_f32().is_finite())), "V {vocab}, row {i}");
        }
        assert_eq!((stats[0], stats[2]), (RowStat::default(), RowStat::default()));
        assert!(stats[3].logprob < 0.0);
    }
}

fn logits_of_another_length_are_named(device: &Device) {
    let inputs = Inputs::new(63, 2, 10, 1.0);
    let (mut target, mut stats) = (inputs.logits.clone(), vec![RowStat::default(); 2]);
    let loss = RowLoss::cross_entropy(&inputs.weights[..], &inputs.targets[..]);
    let source = Some(&inputs.logits[..19]);
    let error =
        device.row_loss(inputs.shape(), loss, source, &mut target, &mut stats).expect_err("too short");
    assert!(error.to_string().contains("logits has 19 elements, expected 20"), "{error}");
}
