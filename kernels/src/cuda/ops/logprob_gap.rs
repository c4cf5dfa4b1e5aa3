//! Operation 2: how much likelier the teacher finds the taken token than the student does.
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
use crate::error::{Result, expect_len};
use crate::ops::{GapOut, LogitsShape, check_logits};

const SOURCE: Source = Source {
    file: "logprob_gap.cu",
    text: concat!(
        "#line 1 \"softmax.cuh\"\n",
        include_str!("../../../cuda/softmax.cuh"),
        "#line 1 \"logprob_gap.cu\"\n",
        include_str!("../../../cuda/logprob_gap.cu")
    ),
};

/// The specialisation for logits of type `T`.
fn specialised<T: Float>(aligned: bool) -> Module {
    module::<T>(&SOURCE, aligned, THREADS)
}

pub(in crate::cuda) fn manifest() -> Vec<Specialisation> {
    let new = |module| Specialisation::new(module, "logprob_gap").without_spills();
    let wide = [specialised::<f32>(true), specialised::<bf16>(true)];
    let narrow = [specialised::<f32>(false), specialised::<bf16>(false)];
    wide.map(|module| new(module).with_wide_loads(60)).into_iter().chain(narrow.map(new)).collect()
}

pub(in crate::cuda) fn logprob_gap<T: Float>(
    cuda: &Cuda,
    shape: LogitsShape,
    student: CudaView<'_, T>,
    teacher: CudaView<'_, T>,
    targets: CudaView<'_, i32>,
    out: GapOut<CudaViewMut<'_, f32>>,
) -> Result<()> {
    const OP: &str = "logprob_gap";
    check_logits(OP, "student", shape, student.len())?;
    check_logits(OP, "teacher", shape, teacher.len())?;
    expect_len(OP, "targets", targets.len(), shape.rows)?;
    expect_len(OP, "student log-probs", out.student.len(), shape.rows)?;
    expect_len(OP, "teacher log-probs", out.teacher.len(), shape.rows)?;
    expect_len(OP, "gap", out.gap.len(), shape.rows)?;
    check_ids(cuda, OP, shape.vocab, &[Ids { what: "targets", ids: targets, k: 1 }], None)?;
    let aligned = [student, teacher].iter().all(|side| is_aligned::<T>(side.address(), shape.stride));
    let arguments = Arguments::new()
        .read(student)
        .read(teacher)
        .value(shape.stride as u64)
        .value(shape.vocab as u32)
        .value(Scale::new(shape.temperature))
        .read(targets)
        .write(&out.student)
        .write(&out.teacher)
        .write(&out.gap);
    let launch = Launch::new(shape.rows, THREADS);
    // SAFETY: a block per row, which reads `vocab` logits of both sides from its stride on, and writes its place of
    // the results.
    unsafe { cuda.launch(specialised::<T>(aligned), "logprob_gap", launch, &arguments) }
}
