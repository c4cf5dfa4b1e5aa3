//! Every backward: the definition by central differences, the operation by the definition.

use half::bf16;
use openclaw_kernels::Float;
use openclaw_kernels::ops::*;

use crate::cases::{Inputs, rows_of, tolerance, vocabs};
use crate::definition::{self, Row};
use crate::device::{Device, Loss};

on_every_device! {
    row_losses_agree_with_their_definition,
    logprob_and_gap_gradients_agree_with_their_definition,
}

#[test]
fn the_definitions_gradients_are_those_of_their_losses() {
    for (vocab, temperature) in [(2, 1.0), (5, 1.0), (9, 0.7), (33, 1.3)] {
        let inputs = Inputs::new(vocab as u64, 6, vocab, temperature);
        for (name, loss) in inputs.differentiable_losses() {
            for i in 0..inputs.rows {
                let mut logits = inputs.row_logits(i);
                let gradient = definition::row(&loss, i, &logits, f64::from(temperature)).gradient;
                for j in 0..vocab {
                    let (x, step) = (logits[j], 1e-6);
                    logits[j] = x + step;
                    let above = definition::row(&loss, i, &logits, f64::from(temperature)).loss;
                    logits[j] = x - step;
                    let below = definition::row(&loss, i, &logits, f64::from(temperature)).loss;
                    logits[j] = x;
                    let slope = (above - below) / (2.0 * step);
                    let error = (slope - gradient[j]).abs();
                    assert!(
                        error < 1e-7 * (1.0 + slope.abs()),
                        "{name} [{i}, {j}] of {vocab}: {slope} {}",
                        gradient[j]
                    );
                }
            }
        }
    }
}

fn row_losses_agree_with_their_definition(device: &Device) {
    for &vocab in vocabs(device) {
        let temperature = if vocab % 2 == 1 { 0.8 } else { 1.0 };
        let inputs = Inputs::new(100 + vocab as u64, rows_of(vocab, 7), vocab, temperature);
        for (name, loss) in inputs.losses() {
            let expected: Vec<Row> = (0..inputs.rows)
                .map(|i| definition::row(&loss, i, &inputs.row_logits(i), f64::from(temperature)))
                .collect();
            let stats = check::<f32>(device, &inputs, name, loss, &expected);
            let in_half_the_space = check::<bf16>(device, &inputs, name, loss, &expected);
            // The logits are exact in bf16. A thread of a GPU holds twice as many of them, and adds in another order.
            if matches!(device, Device::Cpu(_)) {
                assert_eq!(stats, in_half_the_space, "{name}, V {vocab}");
            }
        }
    }
}

fn check<T: Float>(
    device: &Device,
    inputs: &Inputs,
    name: &str,
    loss: Loss<'_>,
    expected: &[Row],
) -> Vec<RowStat> {
    let vocab = inputs.vocab;
    let mut logits = inputs.logits_as::<T>();
    let mut stats = vec![RowStat::default(); inputs.rows];
    device.row_loss(inputs.shape(), loss, None, &mut logits, &mut stats).expect("valid arguments");
    for (i, (stat, expected)) in stats.iter().zip(expected).enumerate() {
        let values = [
            ("loss", stat.loss, expected.loss),
            ("logprob", stat.logprob, expected.logprob),
            ("entropy", stat.entropy, expected.entropy),
            ("kl", stat.kl, expected.kl),
            ("candidates", stat.candidates, expected.candidates),
        ];
        for (what, found, expected) in values {
            let error = (f64::from(found) - expected).abs();
            assert!(
                error < 1e-5 * (1.0 + expected.abs()),
                "{name}, V {vocab}, row {i}: {what} {found} {expected}"
            );
        }
        let weight = f64::from(inputs.weights[i]);
        for (j, found) in logits[i * vocab..][..vocab].iter().enumerate() {
            let expected = weight * expected.gradient[j];
            let error = (f64::from(found.to_f32()) - expected).abs();
            assert!(
                error <= tolerance::<T>(expected),
                "{name}, V {vocab}, [{i}, {j}]: {found:?} {expected:e}"
            );
        }
    }
    stats
}

fn logprob_and_gap_gradients_agree_with_their_definition(device: &Device) {
    for &vocab in vocabs(device) {
        let inputs = Inputs::new(200 + vocab as u64, rows_of(vocab, 5), vocab, 0.9);
        check_logprob::<f32>(device, &inputs);
        check_logprob::<bf16>(device, &inputs);
    }
}

fn check_logprob<T: Float>(device: &Device, inputs: &Inputs) {
    let (vocab, shape) = (inputs.vocab, inputs.shape());
    let (g, h) = (&inputs.advantages, &inputs.importance);
    let logits = inputs.logits_as::<T>();
    let gradient = |d_entropy| {
        let mut out = logits.clone();
        device
            .logprob_backward(shape, Some(&logits), &inputs.targets, g, d_entropy, &mut out)
            .expect("valid arguments");
        out
    };
    let gap = |side| {
        let mut out = logits.clone();
        device
            .logprob_gap_backward(shape, side, None, &inputs.targets, g, &mut out)
            .expect("valid arguments");
        out
    };
    let variants = [
        ("log-prob and entropy", gradient(Some(&h[..])), 1.0, 1.0),
        ("log-prob", gradient(None), 1.0, 0.0),
        ("teacher's gap", gap(GapSide::Teacher), 1.0, 0.0),
        ("student's gap", gap(GapSide::Student), -1.0, 0.0),
    ];
    for (name, found, by_logprob, by_entropy) in variants {
        for i in 0..inputs.rows {
            let l = definition::logprobs(&inputs.row_logits(i), 0.9f32.into());
            let mut u = vec![0.0; vocab];
            u[inputs.targets[i] as usize] = by_logprob * f64::from(g[i]);
            let expected = definition::to_logits(&l, &u, by_entropy * f64::from(h[i]), 0.9f32.into());
            for (j, expected) in expected.iter().enumerate() {
                let found = f64::from(found[i * vocab + j].to_f32());
                let error = (found - expected).abs();
                assert!(
                    error <= tolerance::<T>(*expected),
                    "{name}, V {vocab}, [{i}, {j}]: {found} {expected:e}"
                );
            }
        }
    }
}
