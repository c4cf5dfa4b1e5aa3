//! Numbers of rows, offsets beyond 32 bits, and memory around the results.

use half::bf16;
use openclaw_kernels::ops::*;
use openclaw_kernels::{Backend, Cpu, Float};

use crate::cases::{Inputs, rows_of, vocabs};
use crate::definition;
use crate::device::Device;

on_every_device! {
    any_number_of_rows_gives_the_rows_results,
    more_rows_than_16_bits_count_are_all_done,
    nothing_around_the_results_is_written,
    rows_near_overflow_keep_their_values,
    a_peak_anywhere_counts_once,
}

fn any_number_of_rows_gives_the_rows_results(device: &Device) {
    let vocab = 257;
    let all = Inputs::new(41, 133, vocab, 0.8);
    let (_, loss) = all.losses().remove(1);
    let expected: Vec<definition::Row> =
        (0..all.rows).map(|i| definition::row(&loss, i, &all.row_logits(i), 0.8f32.into())).collect();
    for rows in [0, 1, 2, 131, 132, 133] {
        let shape = LogitsShape { rows, ..all.shape() };
        let part = RowLoss {
            token: TokenTerm::Policy(PolicyTerm {
                surrogate: Surrogate::Ppo { old_logprobs: &all.old[..rows] },
                advantages: &all.advantages[..rows],
                importance: None,
                clip: ClipRange { low: 0.2, high: 0.28, dual: None },
            }),
            ..RowLoss::cross_entropy(&all.weights[..rows], &all.targets[..rows])
        };
        let (mut gradient, mut stats) = (all.logits[..rows * vocab].to_vec(), vec![RowStat::default(); rows]);
        device.row_loss(shape, part, None, &mut gradient, &mut stats).expect("valid arguments");
        for i in 0..rows {
            assert!((f64::from(stats[i].loss) - expected[i].loss).abs() < 1e-5, "row {i} of {rows}");
            for (g, e) in gradient[i * vocab..][..vocab].iter().zip(&expected[i].gradient) {
                let e = e * f64::from(all.weights[i]);
                assert!((f64::from(*g) - e).abs() < 2e-6 + 2e-5 * e.abs(), "row {i} of {rows}: {g} {e}");
            }
        }
    }
}

fn more_rows_than_16_bits_count_are_all_done(device: &Device) {
    let (rows, vocab) = (65_537 + 131, 9);
    let inputs = Inputs::new(42, rows, vocab, 1.0);
    let loss = RowLoss::cross_entropy(&inputs.weights[..], &inputs.targets[..]);
    let (mut gradient, mut stats) = (inputs.logits.clone(), vec![RowStat::default(); rows]);
    device.row_loss(inputs.shape(), loss, None, &mut gradient, &mut stats).expect("valid arguments");
    for i in 0..rows {
        let expected = definition::row(&loss, i, &inputs.row_logits(i), 1.0);
        assert!((f64::from(stats[i].loss) - expected.loss).abs() < 1e-5, "row {i}");
        let taken = inputs.targets[i] as usize;
        let found = f64::from(gradient[i * vocab + taken]);
        let expected = expected.gradient[taken] * f64::from(inputs.weights[i]);
        assert!((found - expected).abs() < 5e-6, "row {i}: {found} {expected}");
    }
}

#[test]
fn rows_beyond_2_to_the_31_logits_are_found() {
    // The CPU itself and not a `Device`, which copies, nor the emulation, which touches all of its memory.
    let cpu = Cpu::new("sizes", 2).expect("two threads start");
    // Only what is touched takes memory: the rows are far apart, and zeroed memory comes untouched.
    let (rows, stride) = (5usize, 1usize << 29);
    let inputs = Inputs::new(43, rows, 1025, 1.0);
    let mut memory = vec![0u16; rows * stride];
    let logits: &mut [bf16] = bytemuck::cast_slice_mut(&mut memory);
    let fill = |logits: &mut [bf16]| {
        for (i, row) in logits.chunks_mut(stride).enumerate() {
            row[..1025].copy_from_slice(&inputs.logits_as::<bf16>()[i * 1025..][..1025]);
        }
    };
    let shape = LogitsShape { stride, ..inputs.shape() };
    assert!((rows - 1) * stride >= 1 << 31);

    fill(logits);
    let (mut logprobs, mut lse) = (vec![9.0; rows], vec![9.0; rows]);
    let score = Score { targets: &inputs.targets[..], candidates: None };
    let out = ScoreOut {
        logprobs: &mut logprobs[..],
        lse: &mut lse[..],
        entropy: None,
        candidates: None,
        top: None,
    };
    cpu.logprob(shape, logits, score, out).expect("valid arguments");
    for (name, loss) in inputs.losses() {
        fill(logits);
        let (mut stats, mut dense_stats) = (vec![RowStat::default(); rows], vec![RowStat::default(); rows]);
        cpu.row_loss(shape, loss, None, logits, &mut stats).expect("valid arguments");
        let mut dense = inputs.logits_as::<bf16>();
        cpu.row_loss(inputs.shape(), loss, None, &mut dense, &mut dense_stats).expect("valid arguments");
        assert_eq!(stats, dense_stats, "{name}");
        for i in 0..rows {
            assert_eq!(logits[i * stride..][..1025], dense[i * 1025..][..1025], "{name}, row {i}");
            assert!((stats[i].logprob - logprobs[i]).abs() < 2e-6, "{name}, row {i}");
            assert!(logits[i * stride + 1025..][..64].iter().all(|x| *x == bf16::ZERO));
        }
    }
}

fn nothing_around_the_results_is_written(device: &Device) {
    for &vocab in vocabs(device) {
        canaries::<f32>(device, vocab);
        canaries::<bf16>(device, vocab);
    }
}

/// Results lie between canaries, wherever an allocation starts; in place and apart are the same bits.
fn canaries<T: Float>(device: &Device, vocab: usize) {
    const MARGIN: usize = 67;
    let canary = T::from_f32(-7.25);
    let inputs = Inputs::new(44 + vocab as u64, rows_of(vocab, 3), vocab, 0.9);
    let (rows, shape, logits) = (inputs.rows, inputs.shape(), inputs.logits_as::<T>());
    let backward = |source: Option<&[T]>, target: &mut [T]| {
        let (g, h) = (&inputs.advantages, &inputs.importance);
        device.logprob_backward(shape, source, &inputs.targets, g, Some(h), target).expect("valid arguments");
    };
    let mut aliased = logits.clone();
    backward(None, &mut aliased);
    for shift in [0, 1, 13] {
        let mut framed = vec![canary; shift + MARGIN + logits.len() + MARGIN];
        let middle = shift + MARGIN..shift + MARGIN + logits.len();
        backward(Some(&logits), &mut framed[middle.clone()]);
        let same = |a: &[T], b: &[T]| bytemuck::cast_slice::<T, u8>(a) == bytemuck::cast_slice::<T, u8>(b);
        assert!(same(&framed[middle.clone()], &aliased), "V {vocab}, shift {shift}: apart is not in place");
        framed[middle.clone()].copy_from_slice(&logits);
        let mut stats = vec![RowStat { loss: -7.25, ..RowStat::default() }; rows + 2];
        device
            .row_loss(shape, inputs.hybrid(), None, &mut framed[middle.clone()], &mut stats[1..=rows])
            .expect("valid arguments");
        let outside = framed[..middle.start].iter().chain(&framed[middle.end..]);
        assert!(outside.into_iter().all(|x| x.to_f32() == -7.25), "V {vocab}, shift {shift}");
        assert!(stats[0].loss == -7.25 && stats[rows + 1].loss == -7.25);
    }
}

fn rows_near_overflow_keep_their_values(device: &Device) {
    let vocab = 3000;
    let large = 3.0e38f32;
    // Up to the end of the range, across all of it, and equal at its end.
    let mut logits = vec![-large; 3 * vocab];
    for j in 0..vocab {
        logits[j] = large;
        logits[2 * vocab + j] = f32::MAX;
    }
    logits[vocab + 2999] = large;
    let targets = [17, 2999, 5];
    let weights = [1.0; 3];
    let loss = RowLoss { entropy_coef: 0.1, ..RowLoss::cross_entropy(&weights[..], &targets[..]) };
    let mut stats = vec![RowStat::default(); 3];
    device
        .row_loss(LogitsShape::dense(3, vocab), loss, None, &mut logits, &mut stats)
        .expect("valid arguments");
    let uniform = (vocab as f32).ln();
    for i in [0, 2] {
        assert!((stats[i].logprob + uniform).abs() < 1e-5 && (stats[i].entropy - uniform).abs() < 1e-5);
    }
    assert_eq!((stats[1].logprob, stats[1].entropy), (0.0, 0.0));
    assert!(logits.iter().all(|g| g.is_finite()));
    assert!(logits[vocab..2 * vocab].iter().all(|g| *g == 0.0));
}

fn a_peak_anywhere_counts_once(device: &Device) {
    // Vocabularies that no vector, block or chunk divides; a peak in the first, the last and an inner column.
    for vocab in [1151, 128_257, 151_936] {
        for at in [0, 1023, vocab - 1] {
            let mut logits = vec![-3.0f32; vocab];
            logits[at] = 25.0;
            let expected = -((vocab - 1) as f64 * (-28f64).exp()).ln_1p();
            for target in [at, (at + 1) % vocab] {
                let (mut gradient, mut stats) = (logits.clone(), [RowStat::default()]);
                let targets = [target as i32];
                let loss = RowLoss::cross_entropy(&[1.0][..], &targets[..]);
                device
                    .row_loss(LogitsShape::dense(1, vocab), loss, None, &mut gradient, &mut stats)
                    .expect("valid arguments");
                let expected = if target == at { expected } else { expected - 28.0 };
                let error = (f64::from(stats[0].logprob) - expected).abs();
                assert!(error < 2e-6 * (1.0 + expected.abs()), "V {vocab}, peak {at}: {stats:?} {expected}");
                let sum: f64 = gradient.iter().map(|g| f64::from(*g)).sum();
                assert!(sum.abs() < 1e-6, "V {vocab}, peak {at}: the gradient sums to {sum}");
            }
        }
    }
}
