//! Operation 2: how much likelier the teacher finds the taken token than the student does.

use rayon::prelude::*;

use super::logprob::logprob_backward;
use super::softmax::{Scale, Softmax};
use super::{check_ids, min_rows};
use crate::backend::Float;
use crate::error::{Result, expect_len};
use crate::ops::{GapOut, GapSide, LogitsShape, check_logits};

pub(crate) fn logprob_gap<T: Float>(
    shape: LogitsShape,
    student: &[T],
    teacher: &[T],
    targets: &[i32],
    out: GapOut<&mut [f32]>,
) -> Result<()> {
    const OP: &str = "logprob_gap";
    check_logits(OP, "student", shape, student.len())?;
    check_logits(OP, "teacher", shape, teacher.len())?;
    expect_len(OP, "targets", targets.len(), shape.rows)?;
    check_ids(OP, "targets", targets, shape.vocab)?;
    expect_len(OP, "student log-probs", out.student.len(), shape.rows)?;
    expect_len(OP, "teacher log-probs", out.teacher.len(), shape.rows)?;
    expect_len(OP, "gap", out.gap.len(), shape.rows)?;
    let scale = Scale::new(shape.temperature);
    let logits = student.par_chunks(shape.stride).zip(teacher.par_chunks(shape.stride));
    let outputs = out.student.par_iter_mut().zip(out.teacher).zip(out.gap);
    logits.zip(outputs).zip(targets).with_min_len(min_rows(shape.vocab)).for_each(
        |((logits, outputs), taken)| {
            let ((student, teacher), gap) = outputs;
            if *taken < 0 {
                (*student, *teacher, *gap) = (0.0, 0.0, 0.0);
                return;
            }
            let of = |logits: &[T]| {
                let logits = &logits[..shape.vocab];
                Softmax::of(logits, scale).logprob(logits[*taken as usize].to_f32())
            };
            let (s, t) = (of(logits.0), of(logits.1));
            (*student, *teacher, *gap) = (s as f32, t as f32, (t - s) as f32);
        },
    );
    Ok(())
}

pub(crate) fn logprob_gap_backward<T: Float>(
    shape: LogitsShape,
    side: GapSide,
    logits: Option<&[T]>,
    targets: &[i32],
    d_gap: &[f32],
    d_logits: &mut [T],
) -> Result<()> {
    match side {
        GapSide::Teacher => logprob_backward(shape, logits, targets, d_gap, None, d_logits),
        GapSide::Student => {
            let d_logprobs: Vec<f32> = d_gap.iter().map(|d| -d).collect();
            logprob_backward(shape, logits, targets, &d_logprobs, None, d_logits)
        }
    }
}
