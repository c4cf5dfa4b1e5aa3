//! Rows that are read again: what a thread of a GPU sees first does not tell how large the rest will be.

use half::bf16;
use openclaw_kernels::Float;
use openclaw_kernels::ops::*;

use crate::cases::Inputs;
use crate::definition;
use crate::device::Device;

on_every_device! {
    rows_that_rise_keep_their_values,
    sixty_four_tokens_are_ranked_in_any_order_of_logits,
    rows_at_any_address_give_the_same_bits,
}

/// Rows whose logits rise by 100 nats after the first ones, fall as far, rise all the way, or lie near 30000.
fn rising(vocab: usize) -> Vec<f32> {
    let noise = |j: usize| ((j * 37) % 101) as f32 / 64.0;
    let last = vocab - vocab / 50;
    let rows: [&dyn Fn(usize) -> f32; 5] = [
        &|j| if j >= last { 100.0 } else { 0.0 },
        &|j| if j < vocab / 50 { 0.0 } else { -100.0 },
        &|j| (j * 200 / vocab) as f32,
        &|j| if j >= last { 3e4 } else { -3e4 },
        &|j| if j % 3 == 0 { f32::NEG_INFINITY } else { -200.0 },
    ];
    let exact = |x: f32| bf16::from_f32(x).to_f32();
    rows.iter().flat_map(|row| (0..vocab).map(|j| exact(row(j) + noise(j))).collect::<Vec<_>>()).collect()
}

fn rows_that_rise_keep_their_values(device: &Device) {
    for vocab in [63, 5000, 30_001] {
        check::<f32>(device, vocab);
        check::<bf16>(device, vocab);
    }
}

fn check<T: Float>(device: &Device, vocab: usize) {
    let inputs = Inputs::around(51, vocab, 1.0, rising(vocab));
    let targets: Vec<i32> = vec![vocab as i32 - 2, 1, vocab as i32 - 1, vocab as i32 - 2, 1];
    let weights = [1.0; 5];
    let loss = RowLoss { entropy_coef: 0.1, ..RowLoss::cross_entropy(&weights[..], &targets[..]) };
    let logits = inputs.logits_as::<T>();
    let (mut gradient, mut stats) = (logits.clone(), vec![RowStat::default(); 5]);
    device.row_loss(inputs.shape(), loss, None, &mut gradient, &mut stats).expect("valid arguments");
    let (mut logprobs, mut lse, mut entropy) = (vec![9.0; 5], vec![9.0; 5], vec![9.0; 5]);
    let score = Score { targets: &targets[..], candidates: None };
    let out = ScoreOut {
        logprobs: &mut logprobs[..],
        lse: &mut lse,
        entropy: Some(&mut entropy),
        candidates: None,
        top: None,
    };
    device.logprob(inputs.shape(), &logits, score, out).expect("valid arguments");
    let (mut student, mut teacher, mut gap) = (vec![9.0; 5], vec![9.0; 5], vec![9.0; 5]);
    let out = GapOut { student: &mut student[..], teacher: &mut teacher, gap: &mut gap };
    device.logprob_gap(inputs.shape(), &logits, &logits, &targets, out).expect("valid arguments");
    for i in 0..5 {
        let expected = definition::row(&loss, i, &inputs.row_logits(i), 1.0);
        for (what, found) in [
            ("row loss", stats[i].logprob),
            ("score", logprobs[i]),
            ("student", student[i]),
            ("teacher", teacher[i]),
        ] {
            let error = (f64::from(found) - expected.logprob).abs();
            let allowed = 2e-6 * (1.0 + expected.logprob.abs());
            assert!(error <= allowed, "V {vocab}, row {i}, {what}: {found} {}", expected.logprob);
        }
        for found in [stats[i].entropy, entropy[i]] {
            assert!((f64::from(found) - expected.entropy).abs() < 2e-5, "V {vocab}, row {i}: {found}");
        }
        for (j, found) in gradient[i * vocab..][..vocab].iter().enumerate() {
            let expected = expected.gradient[j];
            let error = (f64::from(found.to_f32()) - expected).abs();
            assert!(
                error <= crate::cases::tolerance::<T>(expected),
                "V {vocab}, [{i}, {j}]: {found:?} {expected:e}"
            );
        }
    }
}

fn sixty_four_tokens_are_ranked_in_any_order_of_logits(device: &Device) {
    let (vocab, k) = (30_001, 64);
    // Rising, falling, random with many ties, -0 and 0, and fewer numbers than places.
    let rows: [&dyn Fn(usize) -> f32; 5] = [
        &|j| j as f32 / 1000.0,
        &|j| -(j as f32) / 1000.0,
        &|j| ((j * 7919) % 211) as f32 / 16.0,
        &|j| if j % 2 == 0 { -0.0 } else { 0.0 },
        &|j| if j % 1000 == 7 { j as f32 } else { f32::NEG_INFINITY },
    ];
    let logits: Vec<f32> = rows.iter().flat_map(|row| (0..vocab).map(row).collect::<Vec<_>>()).collect();
    let (mut logprobs, mut lse) = (vec![9.0; 5], vec![9.0; 5]);
    let (mut ids, mut top) = (vec![9; 5 * k], vec![9.0; 5 * k]);
    let score = Score { targets: &[-1; 5][..], candidates: None };
    let out = ScoreOut {
        logprobs: &mut logprobs[..],
        lse: &mut lse,
        entropy: None,
        candidates: None,
        top: Some(TopK { k, ids: &mut ids[..], logprobs: &mut top }),
    };
    device.logprob(LogitsShape::dense(5, vocab), &logits, score, out).expect("valid arguments");
    for i in 0..5 {
        let row = &logits[i * vocab..][..vocab];
        let mut order: Vec<usize> = (0..vocab).filter(|j| row[*j] > f32::NEG_INFINITY).collect();
        // By value, so that -0 and 0 are equal.
        order.sort_by(|a, b| row[*b].partial_cmp(&row[*a]).expect("no NaN").then(a.cmp(b)));
        for slot in 0..k {
            let expected = order.get(slot).map_or(-1, |id| *id as i32);
            assert_eq!(ids[i * k + slot], expected, "row {i}, place {slot}");
            let logprob = order.get(slot).map_or(f32::NEG_INFINITY, |id| row[*id] - lse[i]);
            let found = top[i * k + slot];
            assert!(
                found == logprob || (found - logprob).abs() < 4e-6 * (1.0 + logprob.abs()),
                "row {i}: {found}"
            );
        }
    }
}

fn rows_at_any_address_give_the_same_bits(device: &Device) {
    at_any_address::<f32>(device);
    at_any_address::<bf16>(device);
}

/// Odd strides put rows at every distance from a multiple of 16 bytes.
fn at_any_address<T: Float>(device: &Device) {
    let (rows, vocab) = (4, 2045);
    let inputs = Inputs::new(52, rows, vocab, 0.9);
    let run = |stride: usize| {
        let mut logits = vec![T::from_f32(f32::NAN); rows * stride];
        for (i, row) in inputs.logits_as::<T>().chunks(vocab).enumerate() {
            logits[i * stride..][..vocab].copy_from_slice(row);
        }
        let shape = LogitsShape { stride, ..inputs.shape() };
        let mut stats = vec![RowStat::default(); rows];
        let (mut logprobs, mut lse) = (vec![9.0; rows], vec![9.0; rows]);
        let score = Score { targets: &inputs.targets[..], candidates: None };
        let out = ScoreOut {
            logprobs: &mut logprobs[..],
            lse: &mut lse,
            entropy: None,
            candidates: None,
            top: None,
        };
        device.logprob(shape, &logits, score, out).expect("valid arguments");
        device.row_loss(shape, inputs.hybrid(), None, &mut logits, &mut stats).expect("valid arguments");
        let dense: Vec<T> = logits.chunks(stride).flat_map(|row| row[..vocab].to_vec()).collect();
        (bytemuck::cast_slice::<T, u8>(&dense).to_vec(), stats, logprobs, lse)
    };
    let aligned = run(2048);
    for stride in [2045, 2047, 2050] {
        assert_eq!(run(stride), aligned, "stride {stride}");
    }
}
