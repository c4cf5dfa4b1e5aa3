//! Log-probs, entropies, candidates and top-k of rows of logits.

use half::bf16;
use openclaw_kernels::Float;
use openclaw_kernels::ops::*;

use crate::cases::{Inputs, rows_of, vocabs};
use crate::definition;
use crate::device::Device;

on_every_device! {
    scores_agree_with_their_definition,
    rising_and_equal_logits_are_ranked_too,
    padding_is_no_logit_and_a_peak_in_the_last_column_counts,
    bad_arguments_are_named,
    a_clip_that_is_no_range_is_refused,
}

/// Owned results of one scoring call.
struct Scored {
    logprobs: Vec<f32>,
    lse: Vec<f32>,
    entropy: Vec<f32>,
    candidates: Vec<f32>,
    top_ids: Vec<i32>,
    top_logprobs: Vec<f32>,
}

fn score<T: Float>(
    device: &Device,
    shape: LogitsShape,
    logits: &[T],
    inputs: &Inputs,
    top_k: usize,
) -> Scored {
    let rows = shape.rows;
    let mut s = Scored {
        logprobs: vec![9.0; rows],
        lse: vec![9.0; rows],
        entropy: vec![9.0; rows],
        candidates: vec![9.0; rows * inputs.k],
        top_ids: vec![9; rows * top_k],
        top_logprobs: vec![9.0; rows * top_k],
    };
    let candidates = Some(Candidates { k: inputs.k, ids: &inputs.ids[..] });
    let out = ScoreOut {
        logprobs: &mut s.logprobs[..],
        lse: &mut s.lse,
        entropy: Some(&mut s.entropy),
        candidates: Some(&mut s.candidates),
        top: Some(TopK { k: top_k, ids: &mut s.top_ids[..], logprobs: &mut s.top_logprobs }),
    };
    device
        .logprob(shape, logits, Score { targets: &inputs.targets[..], candidates }, out)
        .expect("valid arguments");
    s
}

fn scores_agree_with_their_definition(device: &Device) {
    for &vocab in vocabs(device) {
        let inputs = Inputs::new(300 + vocab as u64, rows_of(vocab, 4), vocab, 0.7);
        for top_k in [1, 3, 20] {
            check(&inputs, &score(device, inputs.shape(), &inputs.logits, &inputs, top_k), top_k);
            check(
                &inputs,
                &score(device, inputs.shape(), &inputs.logits_as::<bf16>(), &inputs, top_k),
                top_k,
            );
        }
    }
}

fn check(inputs: &Inputs, found: &Scored, top_k: usize) {
    for i in 0..inputs.rows {
        let l = definition::logprobs(&inputs.row_logits(i), f64::from(inputs.temperature));
        let close = |what: &str, found: f32, expected: f64| {
            let error = (f64::from(found) - expected).abs();
            assert!(
                error < 2e-6 * (1.0 + expected.abs()),
                "V {}, row {i}: {what} {found} {expected}",
                inputs.vocab
            );
        };
        let taken = inputs.targets[i] as usize;
        close("logprob", found.logprobs[i], l[taken]);
        close("lse", found.lse[i], inputs.row_logits(i)[taken] / f64::from(inputs.temperature) - l[taken]);
        close("entropy", found.entropy[i], definition::entropy(&l));
        assert!(found.entropy[i] >= 0.0 && f64::from(found.entropy[i]) <= (l.len() as f64).ln() + 1e-6);
        for slot in i * inputs.k..(i + 1) * inputs.k {
            let id = inputs.ids[slot];
            close("candidate", found.candidates[slot], if id < 0 { 0.0 } else { l[id as usize] });
        }
        let mut order: Vec<usize> = (0..l.len()).collect();
        order.sort_by(|a, b| l[*b].total_cmp(&l[*a]).then(a.cmp(b)));
        for slot in 0..top_k {
            let (id, logprob) = (found.top_ids[i * top_k + slot], found.top_logprobs[i * top_k + slot]);
            match order.get(slot) {
                Some(expected) => {
                    assert_eq!(id, *expected as i32, "V {}, row {i}, place {slot}", inputs.vocab);
                    close("top", logprob, l[*expected]);
                }
                None => assert_eq!((id, logprob), (-1, f32::NEG_INFINITY)),
            }
        }
    }
}

fn rising_and_equal_logits_are_ranked_too(device: &Device) {
    let vocab = 3000;
    let mut inputs = Inputs::new(1, 3, vocab, 1.0);
    for j in 0..vocab {
        inputs.logits[j] = (j as f32) / 100.0;
        inputs.logits[vocab + j] = 2.0;
        inputs.logits[2 * vocab + j] = if j == 2999 { 0.5 } else { f32::NEG_INFINITY };
    }
    inputs.targets = vec![5, 5, 2999];
    let found = score(device, inputs.shape(), &inputs.logits, &inputs, 3);
    assert_eq!(found.top_ids, [2999, 2998, 2997, 0, 1, 2, 2999, -1, -1]);
    assert_eq!(found.top_logprobs[6..], [0.0, f32::NEG_INFINITY, f32::NEG_INFINITY]);
    assert_eq!((found.logprobs[2], found.entropy[2]), (0.0, 0.0));
}

fn padding_is_no_logit_and_a_peak_in_the_last_column_counts(device: &Device) {
    let (vocab, stride) = (1000, 1024);
    let mut inputs = Inputs::new(2, 3, vocab, 1.0);
    for i in 0..3 {
        inputs.logits[i * vocab + vocab - 1] = 40.0;
        inputs.targets[i] = vocab as i32 - 1;
    }
    let mut padded = vec![f32::NAN; 3 * stride];
    for i in 0..3 {
        padded[i * stride..][..vocab].copy_from_slice(&inputs.logits[i * vocab..][..vocab]);
    }
    let dense = score(device, inputs.shape(), &inputs.logits, &inputs, 2);
    let found = score(device, LogitsShape { stride, ..inputs.shape() }, &padded, &inputs, 2);
    assert_eq!((&found.logprobs, &found.top_ids), (&dense.logprobs, &dense.top_ids));
    assert!(found.logprobs.iter().all(|l| *l > -1e-6) && found.top_ids[0] == 999);
}

fn bad_arguments_are_named(device: &Device) {
    let inputs = Inputs::new(3, 2, 10, 1.0);
    let run = |shape: LogitsShape, targets: &[i32]| {
        let mut logits = inputs.logits.clone();
        let mut stats = vec![RowStat::default(); 2];
        let loss = RowLoss::cross_entropy(&inputs.weights[..], targets);
        let result = device.row_loss(shape, loss, None, &mut logits, &mut stats);
        result.expect_err("the arguments are bad").to_string()
    };
    assert!(run(inputs.shape(), &[1, 10]).contains("id 10, the vocabulary has 10"));
    assert!(run(inputs.shape(), &[1]).contains("targets has 1 elements, expected 2"));
    assert!(run(LogitsShape { stride: 9, ..inputs.shape() }, &[1, 2]).contains("stride of 9"));
    assert!(run(LogitsShape { temperature: 0.0, ..inputs.shape() }, &[1, 2]).contains("temperature 0"));
    assert!(
        run(LogitsShape { rows: 3, ..inputs.shape() }, &[1, 2])
            .contains("logits has 20 elements, expected 30")
    );
}

fn a_clip_that_is_no_range_is_refused(device: &Device) {
    let inputs = Inputs::new(3, 2, 10, 1.0);
    let good = ClipRange { low: 0.2, high: 0.28, dual: None };
    let low = ClipRange { low: f32::NAN, ..good };
    let dual = ClipRange { dual: Some(0.5), ..good };
    for (clip, says) in [(low, "clip NaN below"), (dual, "dual clip Some(0.5)")] {
        let policy = PolicyTerm {
            surrogate: Surrogate::Ppo { old_logprobs: &inputs.old[..] },
            advantages: &inputs.advantages[..],
            importance: None,
            clip,
        };
        let token = TokenTerm::Policy(policy);
        let loss = RowLoss { token, ..RowLoss::cross_entropy(&inputs.weights[..], &inputs.targets[..]) };
        let (mut logits, mut stats) = (inputs.logits.clone(), vec![RowStat::default(); 2]);
        let error =
            device.row_loss(inputs.shape(), loss, None, &mut logits, &mut stats).expect_err("a bad clip");
        assert!(error.to_string().contains(says), "{error}");
    }
}
