//! Rows of a table by token id.

use super::simd::widen;
use crate::backend::Float;
use crate::error::{KernelError, Result, expect_len, expect_rows};

pub(super) fn forward<W: Float>(width: usize, ids: &[u32], table: &[W], out: &mut [f32]) -> Result<()> {
    check("embedding", width, ids, ("table", table.len()), ("out", out.len()))?;
    for (id, row) in ids.iter().zip(out.chunks_exact_mut(width)) {
        widen(&table[*id as usize * width..][..width], row);
    }
    Ok(())
}

pub(super) fn backward(width: usize, ids: &[u32], d_out: &[f32], d_table: &mut [f32]) -> Result<()> {
    check("embedding_backward", width, ids, ("d_table", d_table.len()), ("d_out", d_out.len()))?;
    for (id, row) in ids.iter().zip(d_out.chunks_exact(width)) {
        for (d, x) in d_table[*id as usize * width..][..width].iter_mut().zip(row) {
            *d += x;
        }
    }
    Ok(())
}

/// Refuses what neither device can do.
pub(crate) fn check(
    op: &'static str,
    width: usize,
    ids: &[u32],
    (table, table_len): (&'static str, usize),
    (rows, rows_len): (&'static str, usize),
) -> Result<()> {
    let vocab = expect_rows(op, table, table_len, width)?;
    expect_len(op, rows, rows_len, ids.len() * width)?;
    match ids.iter().find(|id| **id as usize >= vocab) {
        Some(id) => {
            let what = format!("token id {id} is outside a vocabulary of {vocab}");
            Err(KernelError::Argument { op, what })
        }
        None => Ok(()),
    }
}
