//! The head with its loss, a chunk at a time.

use half::bf16;
use openclaw_kernels::Float;
use openclaw_kernels::ops::*;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::cases::Inputs;
use crate::definition;
use crate::device::{Device, Loss};

on_every_device! {
    gradients_through_the_head_agree_with_their_definition,
    rows_without_a_gradient_change_nothing_but_their_statistics,
    scores_through_the_head_equal_scores_of_its_logits,
    a_weight_in_bf16_gives_what_it_gives_widened,
    a_bf16_head_rounds_its_logits_and_their_gradients,
    chunks_of_any_size_give_the_same_statistics,
}

struct Case {
    inputs: Inputs,
    width: usize,
    hidden: Vec<f32>,
    weight: Vec<f32>,
}

impl Case {
    fn new(seed: u64, rows: usize, vocab: usize, width: usize) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut uniform = |n: usize| (0..n).map(|_| rng.random_range(-1.0..1.0f32)).collect::<Vec<f32>>();
        let (hidden, weight) = (uniform(rows * width), uniform(vocab * width));
        let logit = |at: usize| {
            let (i, j) = (at / vocab, at % vocab);
            let products = hidden[i * width..][..width].iter().zip(&weight[j * width..][..width]);
            products.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32
        };
        let inputs = Inputs::around(seed, vocab, 0.9, (0..rows * vocab).map(logit).collect());
        Self { inputs, width, hidden, weight }
    }

    fn shape(&self, chunk_rows: usize) -> LinearShape {
        let shape = LinearShape::new(self.inputs.rows, self.width, self.inputs.vocab);
        LinearShape { chunk_rows, temperature: self.inputs.temperature, ..shape }
    }

    /// With hidden states, weight and logits of type `T`.
    fn run<T: Float>(
        &self,
        device: &Device,
        loss: Loss<'_>,
        chunk_rows: usize,
    ) -> (Vec<f32>, Vec<f32>, Vec<RowStat>) {
        self.run_with::<T, T>(device, loss, chunk_rows)
    }

    /// The same with a weight of another type.
    fn run_with<T: Float, W: Float>(
        &self,
        device: &Device,
        loss: Loss<'_>,
        chunk_rows: usize,
    ) -> (Vec<f32>, Vec<f32>, Vec<RowStat>) {
        fn of_type<T: Float>(values: &[f32]) -> Vec<T> {
            values.iter().map(|x| T::from_f32(*x)).collect()
        }
        let shape = self.shape(chunk_rows);
        let mut scratch = vec![T::from_f32(f32::NAN); shape.scratch_len()];
        let (hidden, weight) = (of_type::<T>(&self.hidden), of_type::<W>(&self.weight));
        let (mut d_hidden, mut d_weight) = (vec![f32::NAN; self.hidden.len()], vec![0.0; self.weight.len()]);
        let mut stats = vec![RowStat::default(); shape.rows];
        let out = HeadGradients {
            scratch: &mut scratch[..],
            d_hidden: &mut d_hidden[..],
            d_weight: &mut d_weight[..],
            stats: &mut stats[..],
        };
        device
            .linear_loss(shape, loss, Head { hidden: &hidden[..], weight: &weight }, out)
            .expect("valid arguments");
        (d_hidden, d_weight, stats)
    }
}

fn gradients_through_the_head_agree_with_their_definition(device: &Device) {
    for (rows, vocab, width) in [(7, 33, 5), (13, 127, 16), (3, 1000, 8)] {
        let head = Case::new(21, rows, vocab, width);
        for (name, loss) in head.inputs.losses() {
            let (mut d_hidden, mut d_weight) = (vec![0f64; rows * width], vec![0f64; vocab * width]);
            for i in 0..rows {
                let row =
                    definition::row(&loss, i, &head.inputs.row_logits(i), f64::from(head.inputs.temperature));
                for (j, g) in row.gradient.iter().enumerate() {
                    let g = g * f64::from(head.inputs.weights[i]);
                    for c in 0..width {
                        d_hidden[i * width + c] += g * f64::from(head.weight[j * width + c]);
                        d_weight[j * width + c] += g * f64::from(head.hidden[i * width + c]);
                    }
                }
            }
            for chunk_rows in [1, 4, 64] {
                let (found_hidden, found_weight, _) = head.run::<f32>(device, loss, chunk_rows);
                for (found, expected) in [(&found_hidden, &d_hidden), (&found_weight, &d_weight)] {
                    for (f, e) in found.iter().zip(expected) {
                        let error = (f64::from(*f) - e).abs();
                        assert!(error <= 5e-6 + 2e-5 * e.abs(), "{name}, chunks of {chunk_rows}: {f} {e}");
                    }
                }
            }
        }
    }
}

fn rows_without_a_gradient_change_nothing_but_their_statistics(device: &Device) {
    let mut head = Case::new(22, 9, 65, 12);
    for i in [0, 4, 5] {
        head.inputs.advantages[i] = 0.0;
    }
    head.inputs.weights[7] = 0.0;
    head.hidden[7 * 12..][..12].fill(f32::NAN);
    let loss = RowLoss { token: head.inputs.policy(None), ..head.inputs.losses()[0].1 };
    let (d_hidden, d_weight, stats) = head.run::<f32>(device, loss, 4);
    for i in [0, 4, 5, 7] {
        assert_eq!(d_hidden[i * 12..][..12], [0.0; 12]);
    }
    assert!(stats[0].logprob < 0.0 && stats[0].loss == 0.0 && stats[7] == RowStat::default());
    assert!(d_weight.iter().all(|d| d.is_finite()) && d_weight.iter().any(|d| *d != 0.0));

    head.inputs.advantages.fill(0.0);
    let loss = RowLoss { token: head.inputs.policy(None), ..head.inputs.losses()[0].1 };
    let (d_hidden, d_weight, _) = head.run::<f32>(device, loss, 4);
    assert!(d_hidden.iter().chain(&d_weight).all(|d| *d == 0.0));
}

/// Of the same numbers: of what is frozen in bf16 the logits stay `f32`. A GPU rounds the gradient of the logits to bf16.
fn a_weight_in_bf16_gives_what_it_gives_widened(device: &Device) {
    let head = exact_head(9, 131, 12);
    for (name, loss) in head.inputs.losses() {
        let (d_hidden, _, stats) = head.run_with::<f32, bf16>(device, loss, 4);
        let (expected, _, expected_stats) = head.run::<f32>(device, loss, 4);
        let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let tolerance = if matches!(device, Device::Cpu(_)) { 1e-6 } else { 1e-2 };
        for (found, expected) in d_hidden.iter().zip(&expected) {
            assert!((found - expected).abs() <= tolerance * largest, "{name}: {found} {expected}");
        }
        for (found, expected) in stats.iter().zip(&expected_stats) {
            assert!((found.loss - expected.loss).abs() <= 1e-5 * (1.0 + expected.loss.abs()), "{name}");
        }
        assert!(largest > 0.0, "{name}: nothing to compare");
    }
}

fn scores_through_the_head_equal_scores_of_its_logits(device: &Device) {
    let head = Case::new(23, 11, 129, 16);
    let (rows, k, top_k) = (11, head.inputs.k, 5);
    for chunk_rows in [1, 4, 11, 64] {
        let shape = head.shape(chunk_rows);
        let mut scratch = vec![f32::NAN; shape.scratch_len()];
        let (mut logprobs, mut lse, mut entropy) = (vec![9.0; rows], vec![9.0; rows], vec![9.0; rows]);
        let (mut candidates, mut ids, mut top) =
            (vec![9.0; rows * k], vec![9; rows * top_k], vec![9.0; rows * top_k]);
        let score = Score {
            targets: &head.inputs.targets[..],
            candidates: Some(Candidates { k, ids: &head.inputs.ids[..] }),
        };
        let out = ScoreOut {
            logprobs: &mut logprobs[..],
            lse: &mut lse,
            entropy: Some(&mut entropy),
            candidates: Some(&mut candidates),
            top: Some(TopK { k: top_k, ids: &mut ids[..], logprobs: &mut top }),
        };
        device
            .linear_logprob(
                shape,
                score,
                Head { hidden: &head.hidden[..], weight: &head.weight },
                &mut scratch,
                out,
            )
            .expect("valid arguments");
        for i in 0..rows {
            let l = definition::logprobs(&head.inputs.row_logits(i), f64::from(head.inputs.temperature));
            let close = |found: f32, expected: f64| {
                assert!((f64::from(found) - expected).abs() < 1e-5, "row {i}: {found} {expected}");
            };
            close(logprobs[i], l[head.inputs.targets[i] as usize]);
            close(entropy[i], definition::entropy(&l));
            for (found, id) in candidates.iter().zip(&head.inputs.ids).skip(i * k).take(k) {
                close(*found, if *id < 0 { 0.0 } else { l[*id as usize] });
            }
            let mut order: Vec<usize> = (0..l.len()).collect();
            order.sort_by(|a, b| l[*b].total_cmp(&l[*a]));
            for slot in 0..top_k {
                assert_eq!(ids[i * top_k + slot], order[slot] as i32);
                close(top[i * top_k + slot], l[order[slot]]);
            }
        }
    }
}

/// A head whose products and their sums are exact, so that every device rounds the same logits to bf16.
fn exact_head(rows: usize, vocab: usize, width: usize) -> Case {
    let mut head = Case::new(24, rows, vocab, width);
    for x in head.hidden.iter_mut().chain(&mut head.weight) {
        *x = (*x * 16.0).round() / 16.0;
    }
    let logit = |at: usize| {
        let (i, j) = (at / vocab, at % vocab);
        let products = head.hidden[i * width..][..width].iter().zip(&head.weight[j * width..][..width]);
        bf16::from_f32(products.map(|(a, b)| a * b).sum()).to_f32()
    };
    let logits = (0..rows * vocab).map(logit).collect();
    Case { inputs: Inputs::around(24, vocab, 0.9, logits), ..head }
}

fn a_bf16_head_rounds_its_logits_and_their_gradients(device: &Device) {
    let (rows, vocab, width) = (9, 131, 12);
    let head = exact_head(rows, vocab, width);
    for (name, loss) in head.inputs.losses() {
        let (mut d_hidden, mut d_weight) =
            (vec![(0f64, 0f64); rows * width], vec![(0f64, 0f64); vocab * width]);
        let (found_hidden, found_weight, stats) = head.run::<bf16>(device, loss, 4);
        for i in 0..rows {
            let row = definition::row(&loss, i, &head.inputs.row_logits(i), 0.9f32.into());
            let error = (f64::from(stats[i].loss) - row.loss).abs();
            assert!(error < 1e-5 * (1.0 + row.loss.abs()), "{name}, row {i}: {:?} {}", stats[i], row.loss);
            for (j, g) in row.gradient.iter().enumerate() {
                for c in 0..width {
                    let add = |sum: &mut (f64, f64), x: f32| {
                        let term = g * f64::from(head.inputs.weights[i]) * f64::from(x);
                        *sum = (sum.0 + term, sum.1 + term.abs());
                    };
                    add(&mut d_hidden[i * width + c], head.weight[j * width + c]);
                    add(&mut d_weight[j * width + c], head.hidden[i * width + c]);
                }
            }
        }
        for (found, expected) in [(&found_hidden, &d_hidden), (&found_weight, &d_weight)] {
            for (f, (e, size)) in found.iter().zip(expected) {
                let error = (f64::from(*f) - e).abs();
                assert!(error <= 1e-6 + size / 256.0, "{name}: {f} {e}");
            }
        }
    }
}

fn chunks_of_any_size_give_the_same_statistics(device: &Device) {
    let head = exact_head(13, 131, 12);
    for (name, loss) in head.inputs.losses() {
        let (_, _, expected) = head.run::<f32>(device, loss, 64);
        let (_, _, expected_bf16) = head.run::<bf16>(device, loss, 64);
        for chunk_rows in [1, 5, 13] {
            assert_eq!(head.run::<f32>(device, loss, chunk_rows).2, expected, "{name}, {chunk_rows} rows");
            assert_eq!(
                head.run::<bf16>(device, loss, chunk_rows).2,
                expected_bf16,
                "{name}, {chunk_rows} rows"
            );
        }
    }
}
