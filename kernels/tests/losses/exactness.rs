//! What must hold exactly, or whatever the numbers are.

use half::bf16;
use openclaw_kernels::ops::*;
use openclaw_kernels::{Cpu, Cuda, Float};

use crate::cases::{Inputs, rows_of, vocabs};
use crate::device::{Device, Loss};

on_every_device! {
    a_rows_gradient_sums_to_zero,
    a_constant_added_to_a_row_changes_nothing_but_rounding,
    permuting_the_vocabulary_permutes_the_gradient,
    scaling_the_advantage_scales_loss_and_gradient,
    a_row_alone_equals_the_row_in_a_batch_bit_for_bit,
    rows_in_another_order_have_the_same_bits,
    ignored_rows_and_padding_are_never_read,
    a_nan_logit_makes_its_row_nan_and_no_other,
    extreme_logits_keep_their_digits,
    no_rows_are_no_work,
    a_ratio_beyond_the_range_of_f32_stays_finite,
    a_repeated_candidate_counts_once,
    a_gap_between_equal_logits_is_zero,
}

fn run<T: Float>(
    device: &Device,
    shape: LogitsShape,
    loss: Loss<'_>,
    logits: &[T],
) -> (Vec<T>, Vec<RowStat>) {
    let mut logits = logits.to_vec();
    let mut stats = vec![RowStat::default(); shape.rows];
    device.row_loss(shape, loss, None, &mut logits, &mut stats).expect("valid arguments");
    (logits, stats)
}

/// The same device, with one thread or with its threads in another order; a GPU, whose order is its own, as it is:
/// its bits are not the emulation's.
fn another(device: &Device) -> Device {
    match device {
        Device::Cpu(_) => Device::Cpu(Cpu::new("another", 1).expect("a thread starts")),
        Device::Cuda(cuda) if crate::device::gpu().is_some() => Device::Cuda(cuda.clone()),
        Device::Cuda(cuda) => {
            let arch = cuda.properties().arch;
            Device::Cuda(Cuda::emulated_as(arch, 1234, u64::MAX).expect("the emulation starts"))
        }
    }
}

fn bits<T: Float>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

fn a_rows_gradient_sums_to_zero(device: &Device) {
    for &vocab in vocabs(device) {
        let inputs = Inputs::new(7, rows_of(vocab, 4), vocab, 1.0);
        for (name, loss) in inputs.losses() {
            let (gradient, _) = run(device, inputs.shape(), loss, &inputs.logits);
            for row in gradient.chunks(vocab) {
                let sum: f64 = row.iter().map(|g| f64::from(*g)).sum();
                let size: f64 = row.iter().map(|g| f64::from(g.abs())).sum();
                assert!(sum.abs() <= 2e-6 * (1.0 + size), "{name}, V {vocab}: {sum:e}");
            }
        }
    }
}

fn a_constant_added_to_a_row_changes_nothing_but_rounding(device: &Device) {
    let inputs = Inputs::new(8, 4, 1000, 1.0);
    // A multiple of the logits' spacing in bf16, so that the sums are exact.
    let shifted: Vec<f32> = inputs.logits.iter().map(|x| x + 512.0).collect();
    let exact: Vec<f32> = shifted.iter().map(|x| x - 512.0).collect();
    for (name, loss) in inputs.losses() {
        let (a, stats_a) = run(device, inputs.shape(), loss, &exact);
        let (b, stats_b) = run(device, inputs.shape(), loss, &shifted);
        // The CPU measures exponents from the maximum, so its rounding does not even change.
        let allowed = if matches!(device, Device::Cpu(_)) { 0.0 } else { 3e-6 };
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() <= allowed * (1e-3 + a.abs()), "{name}: {a:e} {b:e}");
        }
        for (a, b) in stats_a.iter().zip(&stats_b) {
            let values = |stat: &RowStat| [stat.loss, stat.logprob, stat.entropy, stat.kl, stat.candidates];
            let same = |(a, b): (f32, f32)| (a - b).abs() <= allowed * (1.0 + a.abs());
            assert!(values(a).into_iter().zip(values(b)).all(same), "{name}: {a:?} {b:?}");
        }
    }
}

fn permuting_the_vocabulary_permutes_the_gradient(device: &Device) {
    let inputs = Inputs::new(9, 3, 97, 1.0);
    let to = |j: usize| (j * 31) % 97;
    let mut permuted = vec![0f32; inputs.logits.len()];
    for (at, x) in inputs.logits.iter().enumerate() {
        permuted[at / 97 * 97 + to(at % 97)] = *x;
    }
    let targets: Vec<i32> = inputs.targets.iter().map(|id| to(*id as usize) as i32).collect();
    let loss = inputs.with_kl(KlKind::K3);
    let (a, _) = run(device, inputs.shape(), loss, &inputs.logits);
    let (b, _) = run(device, inputs.shape(), RowLoss { targets: &targets, ..loss }, &permuted);
    for (at, g) in a.iter().enumerate() {
        let moved = b[at / 97 * 97 + to(at % 97)];
        assert!((g - moved).abs() <= 1e-6 * (0.1 + g.abs()), "{at}: {g} {moved}");
    }
}

fn scaling_the_advantage_scales_loss_and_gradient(device: &Device) {
    let inputs = Inputs::new(10, 6, 65, 1.0);
    let scaled = Inputs {
        advantages: inputs.advantages.iter().map(|a| 4.0 * a).collect(),
        ..Inputs::new(10, 6, 65, 1.0)
    };
    let loss = |inputs: &Inputs| run(device, inputs.shape(), inputs.losses()[1].1, &inputs.logits);
    let ((a, stats_a), (b, stats_b)) = (loss(&inputs), loss(&scaled));
    assert!(a.iter().zip(&b).all(|(a, b)| 4.0 * a == *b));
    assert!(stats_a.iter().zip(&stats_b).all(|(a, b)| 4.0 * a.loss == b.loss && a.clip == b.clip));
    assert!(a.iter().any(|g| *g != 0.0));
}

fn a_row_alone_equals_the_row_in_a_batch_bit_for_bit(device: &Device) {
    for vocab in [9, 1000, 1025, 20_000] {
        let inputs = Inputs::new(11, 5, vocab, 1.0);
        let loss = inputs.with_kl(KlKind::K3);
        let (batch, stats) = run(device, inputs.shape(), loss, &inputs.logits);
        let (again, _) = run(&another(device), inputs.shape(), loss, &inputs.logits);
        assert_eq!(bits(&batch), bits(&again));
        for i in 0..5 {
            let alone = Inputs {
                rows: 1,
                weights: vec![inputs.weights[i]],
                targets: vec![inputs.targets[i]],
                advantages: vec![inputs.advantages[i]],
                old: vec![inputs.old[i]],
                reference: vec![inputs.reference[i]],
                importance: vec![inputs.importance[i]],
                logits: inputs.logits[i * vocab..][..vocab].to_vec(),
                ..Inputs::new(11, 1, vocab, 1.0)
            };
            let (row, stat) = run(device, alone.shape(), alone.with_kl(KlKind::K3), &alone.logits);
            assert_eq!(bits(&row), bits(&batch[i * vocab..][..vocab]));
            assert_eq!(stat[0], stats[i]);
        }
    }
}

fn rows_in_another_order_have_the_same_bits(device: &Device) {
    let (rows, vocab) = (7, 2049);
    let inputs = Inputs::new(17, rows, vocab, 0.9);
    let order: Vec<usize> = (0..rows).map(|i| (i * 3 + 2) % rows).collect();
    let pick = |values: &[f32]| order.iter().map(|i| values[*i]).collect::<Vec<f32>>();
    let shuffled = Inputs {
        weights: pick(&inputs.weights),
        targets: order.iter().map(|i| inputs.targets[*i]).collect(),
        advantages: pick(&inputs.advantages),
        old: pick(&inputs.old),
        reference: pick(&inputs.reference),
        importance: pick(&inputs.importance),
        logits: order.iter().flat_map(|i| inputs.logits[i * vocab..][..vocab].to_vec()).collect(),
        ..Inputs::new(17, rows, vocab, 0.9)
    };
    let (a, stats_a) = run(device, inputs.shape(), inputs.with_kl(KlKind::K3), &inputs.logits);
    let (b, stats_b) = run(device, inputs.shape(), shuffled.with_kl(KlKind::K3), &shuffled.logits);
    for (to, from) in order.iter().enumerate() {
        assert_eq!(bits(&b[to * vocab..][..vocab]), bits(&a[from * vocab..][..vocab]));
        assert_eq!(stats_b[to], stats_a[*from]);
    }
}

fn ignored_rows_and_padding_are_never_read(device: &Device) {
    check_poison::<f32>(device);
    check_poison::<bf16>(device);
}

fn check_poison<T: Float>(device: &Device) {
    let (rows, vocab, stride) = (6, 61, 64);
    let clean = Inputs::new(12, rows, vocab, 1.0);
    let mut poisoned = Inputs::new(12, rows, vocab, 1.0);
    let nan = T::from_f32(f32::NAN);
    let mut padded = vec![nan; rows * stride];
    for i in 0..rows {
        for j in 0..vocab {
            padded[i * stride + j] = T::from_f32(clean.logits[i * vocab + j]);
        }
    }
    let mut weights = clean.weights.clone();
    for i in [1, 4] {
        padded[i * stride..][..vocab].fill(nan);
        weights[i] = 0.0;
        (poisoned.advantages[i], poisoned.old[i]) = (f32::NAN, f32::INFINITY);
        (poisoned.reference[i], poisoned.importance[i], poisoned.ratios[i]) = (f32::NAN, f32::NAN, f32::NAN);
        let slots = i * clean.k..(i + 1) * clean.k;
        poisoned.teacher[slots.clone()].fill(f32::NAN);
        poisoned.slot_old[slots.clone()].fill(f32::NAN);
        poisoned.slot_advantages[slots.clone()].fill(f32::NAN);
        poisoned.slot_weights[slots.clone()].fill(f32::NAN);
        poisoned.ids[slots].fill(i32::MAX);
    }
    let shape = LogitsShape { stride, ..clean.shape() };
    for ((name, loss), (_, poisoned)) in clean.losses().into_iter().zip(poisoned.losses()) {
        let (expected, expected_stats) = run(device, clean.shape(), loss, &clean.logits_as::<T>());
        let (found, stats) = run(device, shape, RowLoss { weights: &weights, ..poisoned }, &padded);
        for i in 0..rows {
            let row = &found[i * stride..][..stride];
            assert!(row[vocab..].iter().all(|x| x.to_f32().is_nan()), "{name}: padding was written");
            if weights[i] == 0.0 {
                assert!(row[..vocab].iter().all(|x| x.to_f32() == 0.0), "{name}: row {i}");
                assert_eq!(stats[i], RowStat::default());
            } else {
                assert_eq!(bits(&row[..vocab]), bits(&expected[i * vocab..][..vocab]), "{name}: row {i}");
                assert_eq!(stats[i], expected_stats[i]);
            }
        }
    }
}

fn a_nan_logit_makes_its_row_nan_and_no_other(device: &Device) {
    let mut inputs = Inputs::new(13, 3, 40, 1.0);
    inputs.logits[40 + 17] = f32::NAN;
    let (gradient, stats) = run(device, inputs.shape(), inputs.losses()[0].1, &inputs.logits);
    assert!(stats[1].loss.is_nan() && stats[1].entropy.is_nan() && gradient[40].is_nan());
    assert!(stats[0].loss.is_finite() && stats[2].loss.is_finite());
    let bf: Vec<bf16> = inputs.logits_as();
    assert!(run(device, inputs.shape(), inputs.losses()[0].1, &bf).0[40].is_nan());
}

fn extreme_logits_keep_their_digits(device: &Device) {
    let vocab = 151;
    let peak = |x: f32| {
        let mut row = vec![-200.0f32; vocab];
        row[vocab - 1] = x;
        row
    };
    let logits = [vec![-200.0; vocab], peak(-100.0), peak(3e4), peak(f32::NEG_INFINITY)].concat();
    let targets = [0, 150, 150, 3];
    let weights = [1.0; 4];
    let loss = RowLoss { entropy_coef: 0.01, ..RowLoss::cross_entropy(&weights[..], &targets[..]) };
    let (gradient, stats) = run(device, LogitsShape::dense(4, vocab), loss, &logits);
    let uniform = |n: f32| n.ln();
    assert!(
        (stats[0].logprob + uniform(151.0)).abs() < 1e-5 && (stats[0].entropy - uniform(151.0)).abs() < 1e-5
    );
    assert!(
        (stats[3].logprob + uniform(150.0)).abs() < 1e-5 && (stats[3].entropy - uniform(150.0)).abs() < 1e-5
    );
    assert_eq!(stats[2].logprob, 0.0);
    // log(1 + 150 e^-100): far below what 1 - p can express.
    assert!((f64::from(stats[1].logprob) + 150.0 * (-100f64).exp()).abs() < 1e-40);
    assert!(gradient.iter().all(|g| g.is_finite()));
    assert_eq!(gradient[3 * vocab + 150], 0.0);
}

fn no_rows_are_no_work(device: &Device) {
    let empty = LogitsShape::dense(0, 100);
    let loss = RowLoss::cross_entropy(&[][..], &[][..]);
    let (gradient, stats) = run::<f32>(device, empty, loss, &[]);
    assert!(gradient.is_empty() && stats.is_empty());
    let shape = LinearShape { chunk_rows: 2, ..LinearShape::new(0, 3, 100) };
    let (weight, mut scratch, mut d_weight) =
        (vec![0.5; 300], vec![0.0; shape.scratch_len()], vec![1.0; 300]);
    let out = HeadGradients {
        scratch: &mut scratch[..],
        d_hidden: &mut [][..],
        d_weight: &mut d_weight[..],
        stats: &mut [][..],
    };
    let head = Head { hidden: &[][..], weight: &weight[..] };
    device.linear_loss(shape, loss, head, out).expect("valid arguments");
    assert_eq!(d_weight, vec![1.0; 300]);
}

fn a_ratio_beyond_the_range_of_f32_stays_finite(device: &Device) {
    let inputs =
        Inputs { old: vec![-500.0; 3], advantages: vec![-1.0, 1.0, 0.0], ..Inputs::new(15, 3, 50, 1.0) };
    let loss = RowLoss { token: inputs.policy(None), ..inputs.losses()[0].1 };
    let (gradient, stats) = run(device, inputs.shape(), loss, &inputs.logits);
    assert!(gradient.iter().all(|g| g.is_finite()) && stats[0].loss > 1e38 && stats[0].loss.is_finite());
    assert_eq!((stats[1].loss, stats[1].clipped(), stats[2].loss), (-1.28, Clipped::Range, 0.0));
    assert!(gradient[50..].iter().all(|g| *g == 0.0));
}

fn a_repeated_candidate_counts_once(device: &Device) {
    let inputs = Inputs::new(16, 3, 40, 1.0);
    let mut repeated = Inputs::new(16, 3, 40, 1.0);
    let mut single = Inputs::new(16, 3, 40, 1.0);
    for row in 0..3 {
        (repeated.ids[row * 4 + 3], single.ids[row * 4 + 3]) = (inputs.ids[row * 4 + 1], -1);
    }
    for loss in [Inputs::hybrid, |inputs: &Inputs| inputs.reverse_kl(0.1)] as [fn(&Inputs) -> Loss<'_>; 2] {
        let (a, stats_a) = run(device, inputs.shape(), loss(&repeated), &inputs.logits);
        let (b, stats_b) = run(device, inputs.shape(), loss(&single), &inputs.logits);
        assert_eq!((bits(&a), &stats_a[0]), (bits(&b), &stats_b[0]));
    }
}

fn a_gap_between_equal_logits_is_zero(device: &Device) {
    let inputs = Inputs::new(14, 5, 1025, 0.6);
    let (mut student, mut teacher, mut gap) = (vec![9.0; 5], vec![9.0; 5], vec![9.0; 5]);
    let out = GapOut { student: &mut student[..], teacher: &mut teacher, gap: &mut gap };
    device
        .logprob_gap(inputs.shape(), &inputs.logits, &inputs.logits, &inputs.targets, out)
        .expect("valid arguments");
    assert_eq!(gap, vec![0.0; 5]);
    assert_eq!(student, teacher);
}

#[test]
fn weights_average_over_samples_or_tokens() {
    let mask = [1.0, 1.0, 0.0, 1.0, 0.0];
    let by_sample = sample_mean_weights(&mask, &[0..3, 3..4, 4..5]).expect("samples fit the mask");
    assert_eq!(by_sample, [1.0 / 6.0, 1.0 / 6.0, 0.0, 1.0 / 3.0, 0.0]);
    assert_eq!(token_mean_weights(&mask), [1.0 / 3.0, 1.0 / 3.0, 0.0, 1.0 / 3.0, 0.0]);
    assert_eq!(token_mean_weights(&[0.0, 0.0]), [0.0, 0.0]);
    let error = sample_mean_weights(&mask, &[0..9, 3..4]).expect_err("a sample leaves the mask").to_string();
    assert!(error.contains("0..9") && error.contains('5'), "{error}");
}
