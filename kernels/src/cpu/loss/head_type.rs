//! The language-model head in any type: products are of `f32`, and a chunk's logits and gradients are rounded to the
//! head's type as they are on a device that keeps them so.

use std::borrow::Cow;

use super::blocks::same;
use crate::backend::Float;

/// The values as `f32`, without a copy if they are.
pub(super) fn widened<T: Float>(values: &[T]) -> Cow<'_, [f32]> {
    if same::<T, f32>() {
        return Cow::Borrowed(bytemuck::cast_slice(values));
    }
    Cow::Owned(values.iter().map(|value| value.to_f32()).collect())
}

/// The caller's working memory where it has the right type, else as much of `own`.
pub(super) fn working_memory<'a, T: Float>(scratch: &'a mut [T], own: &'a mut Vec<f32>) -> &'a mut [f32] {
    if same::<T, f32>() {
        return bytemuck::cast_slice_mut(scratch);
    }
    own.resize(scratch.len(), 0.0);
    own
}

/// Lets `work` see and change a row rounded to `T`, which `buffer` keeps meanwhile.
pub(super) fn rounded<T: Float, R>(
    row: &mut [f32],
    buffer: &mut Vec<T>,
    work: impl FnOnce(&mut [T]) -> R,
) -> R {
    if same::<T, f32>() {
        return work(bytemuck::cast_slice_mut(row));
    }
    buffer.clear();
    buffer.extend(row.iter().map(|value| T::from_f32(*value)));
    let result = work(buffer);
    for (to, from) in row.iter_mut().zip(buffer) {
        *to = from.to_f32();
    }
    result
}
