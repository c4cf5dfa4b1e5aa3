//! Causal attention of ragged batches.

use std::ops::Range;

use openclaw_kernels::ops::QkvShape;

use crate::cases::{Random, assert_close, assert_gradient, dot, qkv_shape, refusal, wide};
use crate::devices::{Device, Operations, bits, can_emulate, on_every_device};

on_every_device!(
    every_sequence_agrees_with_the_definition,
    gradients_are_slopes,
    a_sequence_does_not_depend_on_its_batch,
    large_scores_stay_finite,
    wrong_arguments_are_named,
);

/// Lengths around the block of 64 rows, and none at all.
pub const LENGTHS: [usize; 7] = [1, 63, 0, 64, 65, 130, 0];
/// Heads, kv heads and the width of a head.
type Heads = (usize, usize, usize);
/// 1, 2 and 4 heads for each kv head.
pub const HEADS: [Heads; 4] = [(2, 2, 6), (4, 2, 16), (4, 1, 32), (2, 1, 66)];
/// Heads and lengths of which one case is enough: more heads than a tile has rows of, and wide ones.
const OTHERS: [(Heads, &[usize]); 3] =
    [((70, 1, 2), &[3, 2]), ((3, 1, 64), &[70, 1]), ((1, 1, 200), &[35, 40])];

/// Output and log-sum-exp of one sequence.
pub fn definition(shape: QkvShape, qk: &[f64], qkv: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let QkvShape { heads, kv_heads, head_dim, .. } = shape;
    let tokens = qk.len() / shape.qk_width();
    let (mut out, mut lse) = (vec![0.0; tokens * shape.out_width()], vec![]);
    for token in 0..tokens {
        for head in 0..heads {
            let kv = head * kv_heads / heads;
            let query = &qk[token * shape.qk_width() + head * head_dim..][..head_dim];
            let key = |t: usize| &qk[t * shape.qk_width() + (heads + kv) * head_dim..][..head_dim];
            let scores: Vec<f64> =
                (0..=token).map(|t| dot(query, key(t)) / (head_dim as f64).sqrt()).collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let mass: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            let out = &mut out[token * shape.out_width() + head * head_dim..][..head_dim];
            for (t, score) in scores.iter().enumerate() {
                let p = (score - max).exp() / mass;
                let value = &qkv[t * shape.qkv_width() + (heads + kv_heads + kv) * head_dim..];
                out.iter_mut().zip(value).for_each(|(o, v)| *o += p * v);
            }
            lse.push(max + mass.ln());
        }
    }
    (out, lse)
}

/// A ragged batch of random queries, keys and values.
pub struct Batch {
    pub shape: QkvShape,
    pub sequences: Vec<Range<usize>>,
    pub qk: Vec<f32>,
    pub qkv: Vec<f32>,
    d_out: Vec<f32>,
}

impl Batch {
    pub fn new((heads, kv_heads, head_dim): Heads, lengths: &[usize]) -> Self {
        let shape = qkv_shape(heads, kv_heads, head_dim);
        let mut random = Random::new((heads + kv_heads + head_dim) as u64);
        let mut tokens = 0;
        let sequences = lengths.iter().map(|len| {
            tokens += len;
            tokens - len..tokens
        });
        let sequences = sequences.collect();
        Self {
            shape,
            sequences,
            qk: random.values(tokens * shape.qk_width(), 2.0),
            qkv: random.values(tokens * shape.qkv_width(), 1.0),
            d_out: random.values(tokens * shape.out_width(), 1.0),
        }
    }

    fn rows<T>(x: &[T], width: usize, tokens: &Range<usize>) -> Range<usize> {
        assert!(x.len() >= tokens.end * width);
        tokens.start * width..tokens.end * width
    }

    fn qk_of(&self, tokens: &Range<usize>) -> &[f32] {
        &self.qk[Self::rows(&self.qk, self.shape.qk_width(), tokens)]
    }

    fn qkv_of(&self, tokens: &Range<usize>) -> &[f32] {
        &self.qkv[Self::rows(&self.qkv, self.shape.qkv_width(), tokens)]
    }

    fn d_out_of(&self, tokens: &Range<usize>) -> &[f32] {
        &self.d_out[Self::rows(&self.d_out, self.shape.out_width(), tokens)]
    }

    /// One sequence as a batch of its own.
    fn alone(&self, tokens: &Range<usize>) -> Self {
        Self {
            shape: self.shape,
            sequences: std::iter::once(0..tokens.len()).collect(),
            qk: self.qk_of(tokens).to_vec(),
            qkv: self.qkv_of(tokens).to_vec(),
            d_out: self.d_out_of(tokens).to_vec(),
        }
    }

    /// Output and log-sum-exps.
    pub fn forward(&self, device: &Device) -> [Vec<f32>; 2] {
        let found = device.on_any_threads(|cpu| {
            let tokens = self.qk.len() / self.shape.qk_width();
            let mut out = vec![f32::NAN; tokens * self.shape.out_width()];
            let mut lse = vec![f32::NAN; tokens * self.shape.heads];
            cpu.attention(self.shape, &self.sequences, &self.qk, &self.qkv, &mut out, &mut lse)
                .expect("valid arguments");
            vec![out, lse]
        });
        found.try_into().expect("two results")
    }

    /// Gradients of `qk` and of `qkv`, where the part that is not written is 0.
    fn backward(&self, device: &Device) -> [Vec<f32>; 2] {
        let [out, lse] = self.forward(device);
        let found = device.on_any_threads(|cpu| {
            let (mut d_qk, mut d_qkv) = (vec![f32::NAN; self.qk.len()], vec![f32::NAN; self.qkv.len()]);
            let (shape, sequences) = (self.shape, &self.sequences);
            cpu.attention_backward(
                shape,
                sequences,
                &self.qk,
                &self.qkv,
                &out,
                &lse,
                &self.d_out,
                &mut d_qk,
                &mut d_qkv,
            )
            .expect("valid arguments");
            vec![d_qk, d_qkv]
        });
        let [d_qk, mut d_qkv] = found.try_into().expect("two results");
        for row in d_qkv.chunks_mut(self.shape.qkv_width()) {
            let queries_and_keys = &mut row[..self.shape.qk_width()];
            assert!(queries_and_keys.iter().all(|d| d.is_nan()), "more than values was written");
            queries_and_keys.fill(0.0);
        }
        [d_qk, d_qkv]
    }
}

fn every_sequence_agrees_with_the_definition(device: &Device) {
    for (heads, lengths) in HEADS.map(|heads| (heads, &LENGTHS[..])).into_iter().chain(OTHERS) {
        let batch = Batch::new(heads, lengths);
        let [out, lse] = batch.forward(device);
        for tokens in &batch.sequences {
            let (expected, expected_lse) =
                definition(batch.shape, &wide(batch.qk_of(tokens)), &wide(batch.qkv_of(tokens)));
            let name = format!("{} tokens, {heads:?}", tokens.len());
            let out = &out[Batch::rows(&out, batch.shape.out_width(), tokens)];
            let lse = &lse[Batch::rows(&lse, batch.shape.heads, tokens)];
            assert_close(&name, out, &expected, 2e-6);
            assert_close(&format!("lse of {name}"), lse, &expected_lse, 2e-6);
        }
    }
}

fn gradients_are_slopes(device: &Device) {
    let others = OTHERS.into_iter().chain([((2, 1, 2), &[3, 2][..])]);
    for (heads, lengths) in HEADS.map(|heads| (heads, &LENGTHS[..])).into_iter().chain(others) {
        let batch = Batch::new(heads, lengths);
        let [d_qk, d_qkv] = batch.backward(device);
        for tokens in &batch.sequences {
            let (qk, qkv) = (batch.qk_of(tokens), batch.qkv_of(tokens));
            let (qk64, qkv64, d_out) = (wide(qk), wide(qkv), wide(batch.d_out_of(tokens)));
            let d_qk = &d_qk[Batch::rows(&d_qk, batch.shape.qk_width(), tokens)];
            let d_qkv = &d_qkv[Batch::rows(&d_qkv, batch.shape.qkv_width(), tokens)];
            let name = format!("{} tokens, {heads:?}", tokens.len());
            assert_gradient(&format!("d_qk of {name}"), d_qk, qk, |qk| {
                dot(&definition(batch.shape, qk, &qkv64).0, &d_out)
            });
            assert_gradient(&format!("d_qkv of {name}"), d_qkv, qkv, |qkv| {
                dot(&definition(batch.shape, &qk64, qkv).0, &d_out)
            });
        }
    }
}

fn a_sequence_does_not_depend_on_its_batch(device: &Device) {
    for heads in HEADS {
        let batch = Batch::new(heads, &LENGTHS);
        let widths =
            [batch.shape.out_width(), batch.shape.heads, batch.shape.qk_width(), batch.shape.qkv_width()];
        let together = [batch.forward(device), batch.backward(device)].concat();
        for tokens in &batch.sequences {
            let alone = batch.alone(tokens);
            let alone = [alone.forward(device), alone.backward(device)].concat();
            for ((alone, together), width) in alone.iter().zip(&together).zip(widths) {
                let together = &together[Batch::rows(together, width, tokens)];
                assert!(bits(alone) == bits(together), "{} tokens depend on their batch", tokens.len());
            }
        }
    }
}

fn large_scores_stay_finite(device: &Device) {
    let mut batch = Batch::new((2, 1, 16), &[70]);
    batch.qk.iter_mut().for_each(|x| *x *= 100.0);
    let [out, lse] = batch.forward(device);
    let (expected, expected_lse) = definition(batch.shape, &wide(&batch.qk), &wide(&batch.qkv));
    // The scores themselves are in f32: near 1e5 they are known to 1e-2.
    assert_close("lse", &lse, &expected_lse, 1e-6);
    assert_close("out", &out, &expected, 0.05);
    assert!(batch.backward(device).concat().iter().all(|d| d.is_finite()));
}

fn wrong_arguments_are_named(device: &Device) {
    let shape = qkv_shape(2, 1, 4);
    let x = vec![0.5f32; 48];
    type Lengths = (usize, usize, usize, usize);
    let run = |shape: QkvShape, sequences: &[Range<usize>], (qk, qkv, out, lse): Lengths| {
        let forward = device.on(1, |cpu| {
            let (mut out, mut lse) = (vec![0.0; out], vec![0.0; lse]);
            cpu.attention(shape, sequences, &x[..qk], &x[..qkv], &mut out, &mut lse)
        });
        let backward = device.on(1, |cpu| {
            let (mut d_qk, mut d_qkv) = (vec![0.0; qk], vec![0.0; qkv]);
            let (qk, qkv, out, lse) = (&x[..qk], &x[..qkv], &x[..out], &x[..lse]);
            cpu.attention_backward(shape, sequences, qk, qkv, out, lse, out, &mut d_qk, &mut d_qkv)
        });
        let (forward, backward) = (refusal(forward), refusal(backward));
        assert_eq!(forward.replace("attention:", "attention_backward:"), backward);
        forward
    };
    let ok = (36, 48, 24, 6);
    for (lengths, expected) in [
        ((35, 48, 24, 6), "qk has 35 elements, expected 36"),
        ((36, 47, 24, 6), "qkv has 47 elements, expected 48"),
        ((36, 48, 25, 6), "out has 25 elements, expected 24"),
        ((36, 48, 24, 3), "lse has 3 elements, expected 6"),
    ] {
        assert_eq!(run(shape, &[0..1, 1..3], lengths), format!("attention: {expected}"));
    }
    for (sequences, expected) in [
        ([0..1, 2..3], "sequence 2..3 does not continue at 1"),
        ([0..2, 1..3], "sequence 1..3 does not continue at 2"),
        ([1..2, 2..3], "sequence 1..2 does not continue at 0"),
    ] {
        assert_eq!(run(shape, &sequences, ok), format!("attention: {expected}"));
    }
    for (heads, kv_heads) in [(3, 2), (1, 2), (2, 0), (0, 1)] {
        let e = run(QkvShape { heads, kv_heads, ..shape }, &[0..3, 3..3], ok);
        assert_eq!(e, format!("attention: {heads} heads cannot share {kv_heads} kv_heads"));
    }
    let one = std::slice::from_ref(&(0..3));
    for (lengths, expected) in [
        ([23, 36, 48], "d_out has 23 elements, expected 24"),
        ([24, 35, 48], "d_qk has 35 elements, expected 36"),
        ([24, 36, 47], "d_qkv has 47 elements, expected 48"),
    ] {
        let e = refusal(device.on(1, |cpu| {
            let (mut d_qk, mut d_qkv) = (vec![0.0; lengths[1]], vec![0.0; lengths[2]]);
            let (out, lse, d_out) = (&x[..24], &x[..6], &x[..lengths[0]]);
            cpu.attention_backward(shape, one, &x[..36], &x, out, lse, d_out, &mut d_qk, &mut d_qkv)
        }));
        assert_eq!(e, format!("attention_backward: {expected}"));
    }
}

#[test]
fn heads_that_cuda_is_not_compiled_for_are_refused() {
    if can_emulate() {
        let (shape, x) = (qkv_shape(1, 1, 258), vec![0.5; 3 * 258]);
        let run = |device: &dyn Operations| {
            let sequence = std::slice::from_ref(&(0..1));
            device.attention(shape, sequence, &x[..2 * 258], &x, &mut [0.0; 258], &mut [0.0])
        };
        Device::Cpu.on(1, run).expect("the CPU takes any width");
        let e = refusal(Device::Emulated.on(1, run));
        assert_eq!(e, "attention: head_dim 258 is more than 256, the most on CUDA");
    }
}
