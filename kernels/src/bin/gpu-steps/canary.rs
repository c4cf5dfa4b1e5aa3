//! Each kernel once on a tiny shape, beside the CPU backend.

use std::time::Instant;

use half::bf16;
use openclaw_kernels::cuda::manifest;
use openclaw_kernels::ops::*;
use openclaw_kernels::{Backend, Cpu, Float, Result};

use crate::numbers::{all, all_mut, host, numbers, rounded};
use crate::{matrices, open, wrong};

/// Largest difference to the CPU, relative to the largest result.
const TOLERANCE: f32 = 1e-4;
/// The same where results are rounded to bf16.
const TOLERANCE_BF16: f32 = 1e-2;
/// Beside the kernels of the manifest: what uses cuBLAS, and the layout of long rows.
const MORE: [&str; 2] = ["matmul", "row_loss-clusters"];
/// Heads as the larger models have them.
const HEADS: QkvShape = QkvShape { heads: 2, kv_heads: 1, head_dim: 128, eps: 1e-6, normed: true };
const VOCAB: usize = 1003;

/// What an operation made.
pub struct Outcome {
    pub name: &'static str,
    pub values: Vec<f32>,
    pub tolerance: f32,
}

fn outcome(name: &'static str, values: Vec<f32>) -> Outcome {
    Outcome { name, values, tolerance: TOLERANCE }
}

/// The entry points of the manifest, each once, and more.
pub fn kernels() -> Vec<&'static str> {
    let mut names: Vec<&str> = manifest::specialisations().iter().map(|kernel| kernel.kernel).collect();
    names.sort_unstable();
    names.dedup();
    names.extend(MORE);
    names
}

/// Whether the device computes what the CPU computes.
pub fn run(device: &str, kernel: &str) -> Result<bool> {
    let (cuda, _) = open(device)?;
    let cpu = Cpu::new("canary", 1)?;
    let expected = cpu.scope(|| outcomes(&cpu, kernel))?;
    let start = Instant::now();
    let found = outcomes(&cuda, kernel)?;
    let millis = start.elapsed().as_secs_f64() * 1e3;
    let mut holds = true;
    for (expected, found) in expected.iter().zip(&found) {
        let largest = expected.values.iter().fold(f32::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
        let pairs = expected.values.iter().zip(&found.values);
        // NaN is the worst of all.
        let off = pairs
            .map(|(e, f)| (e - f).abs() / largest)
            .fold(0f32, |worst, off| if off.is_nan() || worst.is_nan() { f32::NAN } else { worst.max(off) });
        let off = if expected.values.len() == found.values.len() { off } else { f32::NAN };
        holds &= off <= expected.tolerance;
        println!("canary\t{}\t{off:.1e}\t{:.0e}\t{millis:.1}", expected.name, expected.tolerance);
    }
    Ok(holds)
}

/// What `kernel`, among others, makes of the same numbers.
fn outcomes<B: Backend>(b: &B, kernel: &str) -> Result<Vec<Outcome>> {
    match kernel {
        "fill_2" => filled::<B, bf16>(b),
        "fill_4" => filled::<B, f32>(b),
        "logprob" | "first_unknown_id" => {
            Ok([logprob::<B, f32>(b)?, logprob::<B, bf16>(b)?].into_iter().flatten().collect())
        }
        "logprob_gap" => gap(b),
        "row_loss" => Ok([row_loss::<B, f32>(b, VOCAB)?, row_loss::<B, bf16>(b, VOCAB)?]
            .into_iter()
            .flatten()
            .collect()),
        "row_loss-clusters" => row_loss::<B, bf16>(b, 100_000),
        "copy_rows" => matrices::head(b),
        "matmul" => matrices::products(b),
        "convert" => matrices::narrow(b),
        "rms_norm" | "rms_norm_backward" | "column_sums" => norm(b),
        "embedding" | "embedding_backward" => embedding(b),
        "qk_norm_rope" | "qk_norm_rope_backward" => rope(b),
        "attention" | "attention_deltas" | "attention_d_queries" | "attention_d_keys" => attention(b),
        // Segments of few rows are a decoding step's; more than 512 keys are split and merged.
        "paged_decode" => paged(b, 1, 20),
        "paged_store" | "paged_prefill" => paged(b, 20, 3),
        "merge_decode" => paged(b, 1, 600),
        "merge_prefill" => paged(b, 20, 600),
        "swiglu" | "swiglu_backward" => swiglu(b),
        "adamw" => adamw(b),
        "sum_squares" => {
            let x = b.upload(&numbers(40_000, 1))?;
            Ok(vec![outcome("sum", vec![b.sum_squares(all(b, &x))? as f32])])
        }
        _ => Err(wrong("canary", format!("there is none for {kernel}"))),
    }
}

fn filled<B: Backend, T: Float>(b: &B) -> Result<Vec<Outcome>> {
    let mut x = b.upload(&[T::from_f32(1.0); 700])?;
    b.fill(b.view_mut(&mut x, 3..670), T::from_f32(2.5))?;
    Ok(vec![outcome("filled", host(b, &x)?)])
}

fn logprob<B: Backend, T: Float>(b: &B) -> Result<Vec<Outcome>> {
    let (rows, k) = (3, 4);
    let logits = b.upload(&rounded::<T>(&numbers(rows * VOCAB, 1)))?;
    let (targets, ids) =
        (b.upload(&[5i32, -1, 1002])?, b.upload(&(0..12).map(|i| i * 83).collect::<Vec<i32>>())?);
    let mut results = Vec::new();
    for _ in 0..3 {
        results.push(b.zeros::<f32>(rows)?);
    }
    let [logprobs, lse, entropy] = &mut results[..] else { unreachable!("three were made") };
    let (mut slots, mut top) = (b.zeros::<f32>(rows * k)?, b.zeros::<f32>(rows * k)?);
    let mut top_ids = b.zeros::<i32>(rows * k)?;
    let out = ScoreOut {
        logprobs: all_mut(b, logprobs),
        lse: all_mut(b, lse),
        entropy: Some(all_mut(b, entropy)),
        candidates: Some(all_mut(b, &mut slots)),
        top: Some(TopK { k, ids: all_mut(b, &mut top_ids), logprobs: all_mut(b, &mut top) }),
    };
    let score = Score { targets: all(b, &targets), candidates: Some(Candidates { k, ids: all(b, &ids) }) };
    b.logprob(LogitsShape::dense(rows, VOCAB), all(b, &logits), score, out)?;
    let ids = b.download(all(b, &top_ids))?.iter().map(|id| *id as f32).collect();
    Ok(vec![
        outcome("log-probs", host(b, &results[0])?),
        outcome("log-sum-exps", host(b, &results[1])?),
        outcome("entropies", host(b, &results[2])?),
        outcome("candidates", host(b, &slots)?),
        outcome("top", host(b, &top)?),
        outcome("top ids", ids),
    ])
}

fn gap<B: Backend>(b: &B) -> Result<Vec<Outcome>> {
    let rows = 3;
    let student = b.upload(&rounded::<bf16>(&numbers(rows * VOCAB, 1)))?;
    let teacher = b.upload(&rounded::<bf16>(&numbers(rows * VOCAB, 2)))?;
    let targets = b.upload(&[5i32, 700, 1002])?;
    let (mut s, mut t, mut gap) = (b.zeros::<f32>(rows)?, b.zeros::<f32>(rows)?, b.zeros::<f32>(rows)?);
    let out = GapOut { student: all_mut(b, &mut s), teacher: all_mut(b, &mut t), gap: all_mut(b, &mut gap) };
    let (student, teacher) = (all(b, &student), all(b, &teacher));
    b.logprob_gap(LogitsShape::dense(rows, VOCAB), student, teacher, all(b, &targets), out)?;
    Ok(vec![
        outcome("student", host(b, &s)?),
        outcome("teacher", host(b, &t)?),
        outcome("gap", host(b, &gap)?),
    ])
}

/// A policy loss with an entropy bonus, and a distillation of a few candidates.
fn row_loss<B: Backend, T: Float>(b: &B, vocab: usize) -> Result<Vec<Outcome>> {
    let (rows, k) = (3, 4);
    let tolerance = if size_of::<T>() == 2 { TOLERANCE_BF16 } else { TOLERANCE };
    let logits = rounded::<T>(&numbers(rows * vocab, 1));
    let targets = b.upload(&[5i32, 700, vocab as i32 - 1])?;
    let (weights, advantages) = (b.upload(&[0.5f32, 0.25, 0.25])?, b.upload(&[1.0f32, -0.5, 0.7])?);
    let old = b.upload(&vec![-(vocab as f32).ln(); rows])?;
    let ids: Vec<i32> = (0..rows * k).map(|i| (i * 83) as i32).collect();
    let (ids, teacher) = (b.upload(&ids)?, b.upload(&vec![-3.0f32; rows * k])?);
    let policy = PolicyTerm {
        surrogate: Surrogate::Ppo { old_logprobs: all(b, &old) },
        advantages: all(b, &advantages),
        importance: None,
        clip: ClipRange { low: 0.2, high: 0.28, dual: None },
    };
    let candidates = CandidateTerm {
        k,
        ids: all(b, &ids),
        coef: 1.0,
        loss: CandidateLoss::ReverseKl { teacher_logprobs: all(b, &teacher), entropy_coef: 0.0 },
    };
    let plain = RowLoss::cross_entropy(all(b, &weights), all(b, &targets));
    let mut outcomes = Vec::new();
    for (names, loss) in [
        (
            ["policy gradient", "policy loss"],
            RowLoss { token: TokenTerm::Policy(policy), entropy_coef: 0.01, ..plain },
        ),
        (
            ["distillation gradient", "distillation loss"],
            RowLoss { token: TokenTerm::None, candidates: Some(candidates), ..plain },
        ),
    ] {
        let (mut work, mut stats) = (b.upload(&logits)?, b.zeros::<RowStat>(rows)?);
        let shape = LogitsShape::dense(rows, vocab);
        b.row_loss(shape, loss, None, all_mut(b, &mut work), all_mut(b, &mut stats))?;
        let losses = b.download(all(b, &stats))?.iter().map(|stat| stat.loss).collect();
        outcomes.push(Outcome { name: names[0], values: host(b, &work)?, tolerance });
        outcomes.push(Outcome { name: names[1], values: losses, tolerance });
    }
    Ok(outcomes)
}

fn norm<B: Backend>(b: &B) -> Result<Vec<Outcome>> {
    let (rows, width) = (20, 640);
    let (x, d_out) = (b.upload(&numbers(rows * width, 1))?, b.upload(&numbers(rows * width, 2))?);
    let weight = b.upload(&numbers(width, 3))?;
    let (mut out, mut d_x, mut d_weight) =
        (b.zeros::<f32>(rows * width)?, b.zeros::<f32>(rows * width)?, b.zeros::<f32>(width)?);
    let (x, weight) = (all(b, &x), all(b, &weight));
    b.rms_norm(1e-6, x, weight, all_mut(b, &mut out))?;
    let (d_x_all, d_weight_all) = (all_mut(b, &mut d_x), all_mut(b, &mut d_weight));
    b.rms_norm_backward(1e-6, x, weight, all(b, &d_out), d_x_all, d_weight_all)?;
    Ok(vec![
        outcome("normed", host(b, &out)?),
        outcome("to x", host(b, &d_x)?),
        outcome("to weight", host(b, &d_weight)?),
    ])
}

fn embedding<B: Backend>(b: &B) -> Result<Vec<Outcome>> {
    let (vocab, width) = (50, 96);
    let ids = b.upload(&[3u32, 49, 3, 0, 17])?;
    let (table, d_out) = (b.upload(&numbers(vocab * width, 1))?, b.upload(&numbers(5 * width, 2))?);
    let (mut out, mut d_table) = (b.zeros::<f32>(5 * width)?, b.zeros::<f32>(vocab * width)?);
    b.embedding(width, all(b, &ids), all(b, &table), all_mut(b, &mut out))?;
    b.embedding_backward(width, all(b, &ids), all(b, &d_out), all_mut(b, &mut d_table))?;
    Ok(vec![outcome("rows", host(b, &out)?), outcome("to table", host(b, &d_table)?)])
}

fn rope<B: Backend>(b: &B) -> Result<Vec<Outcome>> {
    let (tokens, dim) = (20, HEADS.head_dim);
    let (qkv, d_qk) = (
        b.upload(&numbers(tokens * HEADS.qkv_width(), 1))?,
        b.upload(&numbers(tokens * HEADS.qk_width(), 2))?,
    );
    let positions = b.upload(&(0..tokens as u32).collect::<Vec<u32>>())?;
    let angles = numbers(tokens * dim / 2, 3);
    let cos = b.upload(&angles.iter().map(|a| a.cos()).collect::<Vec<f32>>())?;
    let sin = b.upload(&angles.iter().map(|a| a.sin()).collect::<Vec<f32>>())?;
    let (q, k) = (b.upload(&numbers(dim, 4))?, b.upload(&numbers(dim, 5))?);
    let (mut qk, mut d_qkv) =
        (b.zeros::<f32>(tokens * HEADS.qk_width())?, b.zeros::<f32>(tokens * HEADS.qkv_width())?);
    let (mut d_q, mut d_k) = (b.zeros::<f32>(dim)?, b.zeros::<f32>(dim)?);
    let table = RopeTable { cos: all(b, &cos), sin: all(b, &sin) };
    let (qkv, positions, q, k) = (all(b, &qkv), all(b, &positions), all(b, &q), all(b, &k));
    b.qk_norm_rope(HEADS, qkv, positions, table, q, k, all_mut(b, &mut qk))?;
    let (d_qkv_all, d_q_all, d_k_all) = (all_mut(b, &mut d_qkv), all_mut(b, &mut d_q), all_mut(b, &mut d_k));
    b.qk_norm_rope_backward(HEADS, qkv, positions, table, q, k, all(b, &d_qk), d_qkv_all, d_q_all, d_k_all)?;
    Ok(vec![
        outcome("rotated", host(b, &qk)?),
        outcome("to qkv", host(b, &d_qkv)?),
        outcome("to query weight", host(b, &d_q)?),
        outcome("to key weight", host(b, &d_k)?),
    ])
}

fn attention<B: Backend>(b: &B) -> Result<Vec<Outcome>> {
    let tokens = 9;
    let sequences = [0..2, 2..tokens];
    let (qk, qkv) = (
        b.upload(&numbers(tokens * HEADS.qk_width(), 1))?,
        b.upload(&numbers(tokens * HEADS.qkv_width(), 2))?,
    );
    let d_out = b.upload(&numbers(tokens * HEADS.out_width(), 3))?;
    let (mut out, mut lse) =
        (b.zeros::<f32>(tokens * HEADS.out_width())?, b.zeros::<f32>(tokens * HEADS.heads)?);
    let (qk, qkv) = (all(b, &qk), all(b, &qkv));
    b.attention(HEADS, &sequences, qk, qkv, all_mut(b, &mut out), all_mut(b, &mut lse))?;
    let (mut d_qk, mut d_qkv) =
        (b.zeros::<f32>(tokens * HEADS.qk_width())?, b.zeros::<f32>(tokens * HEADS.qkv_width())?);
    let (d_qk_all, d_qkv_all) = (all_mut(b, &mut d_qk), all_mut(b, &mut d_qkv));
    let (out_all, lse_all) = (all(b, &out), all(b, &lse));
    b.attention_backward(HEADS, &sequences, qk, qkv, out_all, lse_all, all(b, &d_out), d_qk_all, d_qkv_all)?;
    Ok(vec![
        outcome("attended", host(b, &out)?),
        outcome("log-sum-exps", host(b, &lse)?),
        outcome("to queries and keys", host(b, &d_qk)?),
        outcome("to values", host(b, &d_qkv)?),
    ])
}

/// `new` tokens of a sequence that has `past` already, stored and attended.
fn paged<B: Backend>(b: &B, new: usize, past: usize) -> Result<Vec<Outcome>> {
    let shape = PagedShape { qkv: HEADS, block_size: 16 };
    let blocks = (past + new).div_ceil(shape.block_size);
    // From the last block to the first.
    let table: Vec<u32> = (0..blocks as u32).rev().collect();
    let slot = |i: usize| table[i / 16] * 16 + (i % 16) as u32;
    let slots = b.upload(&(past..past + new).map(slot).collect::<Vec<u32>>())?;
    let (qk, qkv) =
        (b.upload(&numbers(new * HEADS.qk_width(), 1))?, b.upload(&numbers(new * HEADS.qkv_width(), 2))?);
    let pool_len = blocks * 2 * HEADS.kv_heads * shape.block_size * HEADS.head_dim;
    let mut pool = b.upload(&numbers(pool_len, 3))?;
    let (table, qk) = (b.upload(&table)?, all(b, &qk));
    b.paged_store(shape, all(b, &slots), qk, all(b, &qkv), all_mut(b, &mut pool))?;
    let mut out = b.zeros::<f32>(new * HEADS.out_width())?;
    let segments = [PagedSegment { row: 0, new, past, table: 0 }];
    b.paged_attention(shape, &segments, all(b, &table), qk, all(b, &pool), all_mut(b, &mut out))?;
    Ok(vec![outcome("pool", host(b, &pool)?), outcome("attended", host(b, &out)?)])
}

fn swiglu<B: Backend>(b: &B) -> Result<Vec<Outcome>> {
    let (rows, width) = (3, 300);
    let (gate_up, d_out) = (b.upload(&numbers(2 * rows * width, 1))?, b.upload(&numbers(rows * width, 2))?);
    let (mut out, mut d_gate_up) = (b.zeros::<f32>(rows * width)?, b.zeros::<f32>(2 * rows * width)?);
    b.swiglu(width, all(b, &gate_up), all_mut(b, &mut out))?;
    b.swiglu_backward(width, all(b, &gate_up), all(b, &d_out), all_mut(b, &mut d_gate_up))?;
    Ok(vec![outcome("rows", host(b, &out)?), outcome("to gate and up", host(b, &d_gate_up)?)])
}

fn adamw<B: Backend>(b: &B) -> Result<Vec<Outcome>> {
    let len = 3000;
    let (mut params, grads) = (b.upload(&numbers(len, 1))?, b.upload(&numbers(len, 2))?);
    let (mut first, mut second) = (b.zeros::<f32>(len)?, b.zeros::<f32>(len)?);
    let step = matrices::adamw_step();
    let (first_all, second_all) = (all_mut(b, &mut first), all_mut(b, &mut second));
    b.adamw(step, all_mut(b, &mut params), all(b, &grads), first_all, second_all)?;
    Ok(vec![
        outcome("params", host(b, &params)?),
        outcome("first", host(b, &first)?),
        outcome("second", host(b, &second)?),
    ])
}
