//! The canaries of matrix products, and what the head's loss does with its rows.

use half::bf16;
use openclaw_kernels::ops::*;
use openclaw_kernels::{Backend, Result};

use crate::canary::Outcome;
use crate::numbers::{all, all_mut, host, numbers, rounded};

/// Sums of many products in another order.
const TOLERANCE: f32 = 1e-4;

fn outcome(name: &'static str, values: Vec<f32>) -> Outcome {
    Outcome { name, values, tolerance: TOLERANCE }
}

/// A step that changes every parameter by a part that can be seen.
pub fn adamw_step() -> AdamW {
    AdamW { learning_rate: 0.1, betas: (0.9, 0.98), eps: 1e-8, weight_decay: 0.1, step: 1, grad_scale: 0.5 }
}

/// Few rows and many, as a decoding step and a training step have them.
pub fn products<B: Backend>(b: &B) -> Result<Vec<Outcome>> {
    let (n, k) = (48, 64);
    let mut outcomes = Vec::new();
    for (name, m) in [("product of 3 rows", 3), ("product of 70 rows", 70)] {
        let (x, weight) = (b.upload(&numbers(m * k, 1))?, b.upload(&numbers(n * k, 2))?);
        let mut out = b.upload(&numbers(m * n, 3))?;
        let (rows, transposed) = (MatrixLayout::rows(k), MatrixLayout::transposed(k));
        let shape = Matmul { m, n, k, a: rows, b: transposed, c_row: n, accumulate: true };
        b.matmul(shape, all(b, &x), all(b, &weight), all_mut(b, &mut out))?;
        outcomes.push(outcome(name, host(b, &out)?));
    }
    Ok(outcomes)
}

/// Products with weights in bf16, and rows of them. What is multiplied are numbers that a GPU does not round.
pub fn narrow<B: Backend>(b: &B) -> Result<Vec<Outcome>> {
    let (n, k) = (48, 64);
    let weight = b.upload(&rounded::<bf16>(&numbers(n * k, 2)))?;
    let mut outcomes = Vec::new();
    for (name, m) in [("product of 3 rows in bf16", 3), ("product of 70 rows in bf16", 70)] {
        let x: Vec<f32> = rounded::<bf16>(&numbers(m * k, 1)).iter().map(|x| x.to_f32()).collect();
        let (x, mut out) = (b.upload(&x)?, b.upload(&numbers(m * n, 3))?);
        let (rows, transposed) = (MatrixLayout::rows(k), MatrixLayout::transposed(k));
        let shape = Matmul { m, n, k, a: rows, b: transposed, c_row: n, accumulate: true };
        b.matmul(shape, all(b, &x), all(b, &weight), all_mut(b, &mut out))?;
        outcomes.push(outcome(name, host(b, &out)?));
    }
    let (ids, mut out) = (b.upload(&[3u32, 47, 3, 0])?, b.zeros::<f32>(4 * k)?);
    b.embedding(k, all(b, &ids), all(b, &weight), all_mut(b, &mut out))?;
    outcomes.push(outcome("rows in bf16", host(b, &out)?));
    Ok(outcomes)
}

/// The head's loss over rows of which one is ignored and one has no gradient: rows are moved and scattered.
pub fn head<B: Backend>(b: &B) -> Result<Vec<Outcome>> {
    let (rows, width, vocab) = (5, 64, 203);
    let shape = LinearShape { chunk_rows: 4, ..LinearShape::new(rows, width, vocab) };
    let (hidden, weight) = (b.upload(&numbers(rows * width, 1))?, b.upload(&numbers(vocab * width, 2))?);
    let (targets, weights) = (b.upload(&[0i32, 17, -1, 112, 202])?, b.upload(&[0.25f32; 5])?);
    let (advantages, old) = (b.upload(&[1.0f32, 0.0, 0.7, 1.0, 0.3])?, b.upload(&[-5.3f32; 5])?);
    let (mut scratch, mut stats) = (b.zeros::<f32>(shape.scratch_len())?, b.zeros::<RowStat>(rows)?);
    let (mut d_hidden, mut d_weight) = (b.zeros::<f32>(rows * width)?, b.zeros::<f32>(vocab * width)?);
    let policy = PolicyTerm {
        surrogate: Surrogate::Ppo { old_logprobs: all(b, &old) },
        advantages: all(b, &advantages),
        importance: None,
        clip: ClipRange { low: 0.2, high: 0.28, dual: None },
    };
    let plain = RowLoss::cross_entropy(all(b, &weights), all(b, &targets));
    let loss = RowLoss { token: TokenTerm::Policy(policy), ..plain };
    let out = HeadGradients {
        scratch: all_mut(b, &mut scratch),
        d_hidden: all_mut(b, &mut d_hidden),
        d_weight: all_mut(b, &mut d_weight),
        stats: all_mut(b, &mut stats),
    };
    b.linear_loss(shape, loss, Head { hidden: all(b, &hidden), weight: all(b, &weight) }, out)?;
    let losses = b.download(all(b, &stats))?.iter().map(|stat| stat.loss).collect();
    Ok(vec![
        outcome("losses", losses),
        outcome("to hidden", host(b, &d_hidden)?),
        outcome("to weight", host(b, &d_weight)?),
    ])
}
