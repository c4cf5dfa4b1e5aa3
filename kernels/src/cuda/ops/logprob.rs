//! Operation 1: log-prob of the taken token, log-sum-exp, entropy, candidates and top-k in one read.
#![allow(unsafe_code)]

use half::bf16;

use super::rows::{Ids, Scale, THREADS, check_ids, is_aligned, module};
use crate::backend::Float;
use crate::cuda::{
    Cuda, CudaView, CudaViewMut,
    launch::{Arguments, Launch},
    manifest::Specialisation,
    modules::{Module, Source},
};
use crate::error::{KernelError, Result};
use crate::ops::{LogitsShape, Score, ScoreOut, check_logits, check_score};

const SOURCE: Source = Source {
    file: "logprob.cu",
    text: concat!(
        "#line 1 \"softmax.cuh\"\n",
        include_str!("../../../cuda/softmax.cuh"),
        "#line 1 \"logprob.cu\"\n",
        include_str!("../../../cuda/logprob.cu")
    ),
};

/// The most tokens that top-k collects: what one tile of a block can add has room in its shared memory.
const MOST_TOP: usize = 64;

/// The specialisation for logits of type `T`.
fn specialised<T: Float>(aligned: bool, entropy: bool, top: bool) -> Module {
    module::<T>(&SOURCE, aligned, THREADS).define("ENTROPY", u32::from(entropy)).define("TOP", u32::from(top))
}

pub(in crate::cuda) fn manifest() -> Vec<Specialisation> {
    let mut all = Vec::new();
    for (entropy, top) in [(false, false), (true, false), (false, true), (true, true)] {
        for aligned in [true, false] {
            for module in
                [specialised::<f32>(aligned, entropy, top), specialised::<bf16>(aligned, entropy, top)]
            {
                let new = Specialisation::new(module, "logprob").without_spills();
                // Narrow loads are of ids and of the logits after the last whole vector.
                all.push(if aligned { new.with_wide_loads(60) } else { new });
            }
        }
    }
    all
}

/// Checks the lengths and ids of a score and what this device can do of it.
pub(super) fn check(
    cuda: &Cuda,
    op: &'static str,
    (rows, vocab): (usize, usize),
    score: &Score<CudaView<'_, i32>>,
    out: &ScoreOut<CudaViewMut<'_, f32>, CudaViewMut<'_, i32>>,
) -> Result<()> {
    check_score(op, rows, score, out)?;
    if let Some(top) = &out.top
        && top.k > MOST_TOP
    {
        let what = format!("top {} of each row is asked for, this device finds {MOST_TOP}", top.k);
        return Err(KernelError::Argument { op, what });
    }
    let targets = Ids { what: "targets", ids: score.targets, k: 1 };
    match score.candidates {
        Some(candidates) => {
            let candidates = Ids { what: "candidates", ids: candidates.ids, k: candidates.k };
            check_ids(cuda, op, vocab, &[targets, candidates], None)
        }
        None => check_ids(cuda, op, vocab, &[targets], None),
    }
}

pub(in crate::cuda) fn logprob<T: Float>(
    cuda: &Cuda,
    shape: LogitsShape,
    logits: CudaView<'_, T>,
    score: Score<CudaView<'_, i32>>,
    out: ScoreOut<CudaViewMut<'_, f32>, CudaViewMut<'_, i32>>,
) -> Result<()> {
    check_logits("logprob", "logits", shape, logits.len())?;
    check(cuda, "logprob", (shape.rows, shape.vocab), &score, &out)?;
    read(cuda, shape, logits, score, out)
}

/// Reads rows whose arguments are checked.
pub(super) fn read<T: Float>(
    cuda: &Cuda,
    shape: LogitsShape,
    logits: CudaView<'_, T>,
    score: Score<CudaView<'_, i32>>,
    out: ScoreOut<CudaViewMut<'_, f32>, CudaViewMut<'_, i32>>,
) -> Result<()> {
    let aligned = is_aligned::<T>(logits.address(), shape.stride);
    let top = out.top.filter(|top| top.k > 0);
    let arguments = Arguments::new()
        .read(logits)
        .value(shape.stride as u64)
        .value(shape.vocab as u32)
        .value(Scale::new(shape.temperature))
        .read(score.targets)
        .read_or_null(score.candidates.map(|candidates| candidates.ids))
        .value(score.candidates.map_or(0, |candidates| candidates.k as u32))
        .write(&out.logprobs)
        .write(&out.lse)
        .write_or_null(out.entropy.as_ref())
        .write_or_null(out.candidates.as_ref())
        .write_or_null(top.as_ref().map(|top| &top.ids))
        .write_or_null(top.as_ref().map(|top| &top.logprobs))
        .value(top.as_ref().map_or(0, |top| top.k as u32));
    let module = specialised::<T>(aligned, out.entropy.is_some(), top.is_some());
    // SAFETY: a block per row, which reads `vocab` logits from its stride on and at its ids, all below `vocab`, and
    // writes its places of the results, whose lengths are checked.
    unsafe { cuda.launch(module, "logprob", Launch::new(shape.rows, THREADS), &arguments) }
}
