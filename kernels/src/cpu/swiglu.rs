//! The gated activation silu(gate) * up (Shazeer 2020).

use rayon::prelude::*;

use super::{norm::rows_per_task, simd::exp, simd::multiversion};
use crate::error::{Result, expect_len, expect_rows};

pub(super) fn forward(width: usize, gate_up: &[f32], out: &mut [f32]) -> Result<()> {
    expect_rows("swiglu", "out", out.len(), width)?;
    expect_len("swiglu", "gate_up", gate_up.len(), 2 * out.len())?;
    let rows = rows_per_task(2 * width);
    if out.len() <= rows * width {
        rows_forward(width, gate_up, out);
    } else {
        out.par_chunks_mut(rows * width)
            .zip(gate_up.par_chunks(rows * 2 * width))
            .for_each(|(out, gate_up)| rows_forward(width, gate_up, out));
    }
    Ok(())
}

multiversion! {
    fn rows_forward(width: usize, gate_up: &[f32], out: &mut [f32]) {
        for (out, gate_up) in out.chunks_exact_mut(width).zip(gate_up.chunks_exact(2 * width)) {
            let (gate, up) = gate_up.split_at(width);
            for i in 0..width {
                out[i] = gate[i] / (1.0 + exp::<FMA>(-gate[i])) * up[i];
            }
        }
    }
}

pub(super) fn backward(width: usize, gate_up: &[f32], d_out: &[f32], d_gate_up: &mut [f32]) -> Result<()> {
    expect_rows("swiglu_backward", "d_out", d_out.len(), width)?;
    expect_len("swiglu_backward", "gate_up", gate_up.len(), 2 * d_out.len())?;
    expect_len("swiglu_backward", "d_gate_up", d_gate_up.len(), gate_up.len())?;
    let rows = rows_per_task(2 * width);
    d_gate_up
        .par_chunks_mut(rows * 2 * width)
        .zip(gate_up.par_chunks(rows * 2 * width))
        .zip(d_out.par_chunks(rows * width))
        .for_each(|((d_gate_up, gate_up), d_out)| rows_backward(width, gate_up, d_out, d_gate_up));
    Ok(())
}

multiversion! {
    fn rows_backward(width: usize, gate_up: &[f32], d_out: &[f32], d_gate_up: &mut [f32]) {
        for ((d, x), g) in
            d_gate_up.chunks_exact_mut(2 * width).zip(gate_up.chunks_exact(2 * width)).zip(d_out.chunks_exact(width))
        {
            let (d_gate, d_up) = d.split_at_mut(width);
            let (gate, up) = x.split_at(width);
            for i in 0..width {
                let sigmoid = 1.0 / (1.0 + exp::<FMA>(-gate[i]));
                let silu = gate[i] * sigmoid;
                d_up[i] = g[i] * silu;
                d_gate[i] = g[i] * up[i] * (sigmoid * (1.0 + gate[i] * (1.0 - sigmoid)));
            }
        }
    }
}
