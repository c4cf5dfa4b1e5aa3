//! Operation 4, forward only: scores hidden states through the head, a chunk of rows at a time.

use rayon::prelude::*;

use super::head_type::{rounded, widened, working_memory};
use super::linear_loss::head_logits;
use super::logprob::{check_score_ids, split};
use super::min_rows;
use super::softmax::Scale;
use crate::backend::Float;
use crate::error::Result;
use crate::ops::{Head, LinearShape, Score, ScoreOut, check_linear, check_score};

pub(crate) fn linear_logprob<T: Float, W: Float>(
    shape: LinearShape,
    score: Score<&[i32]>,
    head: Head<&[T], &[W]>,
    scratch: &mut [T],
    out: ScoreOut<&mut [f32], &mut [i32]>,
) -> Result<()> {
    check_linear("linear_logprob", &shape, &head, scratch.len())?;
    check_score("linear_logprob", shape.rows, &score, &out)?;
    check_score_ids("linear_logprob", shape.vocab, &score)?;
    let LinearShape { width, vocab, chunk_rows, .. } = shape;
    let scale = Scale::new(shape.temperature);
    let (hidden, mut own) = (widened(head.hidden), Vec::new());
    let logits = &mut working_memory(scratch, &mut own)[..chunk_rows * vocab];
    let mut rows = split(shape.rows, score, out);
    for hidden in hidden.chunks(chunk_rows * width) {
        let count = hidden.len() / width;
        head_logits(count, &shape, hidden, head.weight, logits)?;
        let logits = logits.par_chunks_mut(vocab).with_min_len(min_rows(vocab));
        let chunk: Vec<_> = rows.drain(..count).collect();
        logits.zip(chunk).for_each_init(Vec::<T>::new, |buffer, (logits, row)| {
            rounded(logits, buffer, |logits| row.read(logits, scale));
        });
    }
    Ok(())
}
