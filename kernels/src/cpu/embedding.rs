//! Rows of a table by token id.

use crate::error::{KernelError, Result, expect_len};

pub(super) fn forward(width: usize, ids: &[u32], table: &[f32], out: &mut [f32]) -> Result<()> {
    expect_len("embedding", "out", out.len(), ids.len() * width)?;
    for (id, row) in ids.iter().zip(out.chunks_exact_mut(width)) {
        row.copy_from_slice(&table[offset(*id, width, table.len())?..][..width]);
    }
    Ok(())
}

pub(super) fn backward(width: usize, ids: &[u32], d_out: &[f32], d_table: &mut [f32]) -> Result<()> {
    expect_len("embedding_backward", "d_out", d_out.len(), ids.len() * width)?;
    let len = d_table.len();
    for (id, row) in ids.iter().zip(d_out.chunks_exact(width)) {
        for (d, x) in d_table[offset(*id, width, len)?..][..width].iter_mut().zip(row) {
            *d += x;
        }
    }
    Ok(())
}

fn offset(id: u32, width: usize, table_len: usize) -> Result<usize> {
    let at = id as usize * width;
    if at + width > table_len {
        let what = format!("token id {id} is outside a vocabulary of {}", table_len / width);
        return Err(KernelError::Argument { op: "embedding", what });
    }
    Ok(at)
}
