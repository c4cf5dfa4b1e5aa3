//! Shapes of the transformer's operations.

use crate::error::{KernelError, Result};

/// How a matrix lies in its view: element `(i, j)` is at `i * row + j * col`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixLayout {
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub col: usize,
}

impl MatrixLayout {
    /// Row-major with `width` elements per row.
    pub fn rows(width: usize) -> Self {
        Self { row: width, col: 1 }
    }
    /// The transpose of a row-major matrix with `width` elements per row.
    pub fn transposed(width: usize) -> Self {
        Self { row: 1, col: width }
    }
}

/// `c [m, n] (+)= a [m, k] b [k, n]`.
#[derive(Clone, Copy, Debug)]
pub struct Matmul {
    /// Rows of `c`.
    pub m: usize,
    /// Columns of `c`.
    pub n: usize,
    /// The summed dimension.
    pub k: usize,
    /// Layout of `a`.
    pub a: MatrixLayout,
    /// Layout of `b`.
    pub b: MatrixLayout,
    /// Row stride of `c`, whose columns are contiguous.
    pub c_row: usize,
    /// Add to `c` instead of overwriting it.
    pub accumulate: bool,
}

/// A row of `qkv` is `[heads x head_dim | kv_heads x head_dim | kv_heads x head_dim]` (query, key, value);
/// a row of `qk` is its first two parts, normalised and rotated; a row of an attention output is
/// `[heads x head_dim]`; `lse` is `[tokens, heads]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QkvShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head, even.
    pub head_dim: usize,
    /// Epsilon of the query and key norms.
    pub eps: f32,
    /// Heads of queries and keys are normed before they are rotated (Qwen3). Where they are not, their weights are empty.
    pub normed: bool,
}

impl QkvShape {
    /// Width of a `qkv` row.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
    /// Width of a `qk` row.
    pub fn qk_width(&self) -> usize {
        (self.heads + self.kv_heads) * self.head_dim
    }
    /// Elements of the norms' weights.
    pub fn norm_width(&self) -> usize {
        if self.normed { self.head_dim } else { 0 }
    }
    /// Width of an attention output row.
    pub fn out_width(&self) -> usize {
        self.heads * self.head_dim
    }

    pub(crate) fn check(&self, op: &'static str) -> Result<()> {
        let Self { heads, kv_heads, head_dim, .. } = *self;
        if kv_heads == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) {
            let what = format!("{heads} heads cannot share {kv_heads} kv_heads");
            return Err(KernelError::Argument { op, what });
        }
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            let what = format!("head_dim {head_dim} is not even and positive");
            return Err(KernelError::Argument { op, what });
        }
        Ok(())
    }
}

/// Cosines and sines, each `[positions, head_dim / 2]`.
#[derive(Clone, Copy, Debug)]
pub struct RopeTable<V> {
    /// Cosines.
    pub cos: V,
    /// Sines.
    pub sin: V,
}

/// One layer's paged key-value pool: `[blocks, 2 (key, value), kv_heads, block_size, head_dim]`.
/// A slot is `block * block_size + offset`.
#[derive(Clone, Copy, Debug)]
pub struct PagedShape {
    /// Heads and widths.
    pub qkv: QkvShape,
    /// Tokens in a block.
    pub block_size: usize,
}

/// New tokens of one sequence in a serving step.
#[derive(Clone, Copy, Debug)]
pub struct PagedSegment {
    /// First row of the step that belongs to this sequence.
    pub row: usize,
    /// Number of new tokens.
    pub new: usize,
    /// Tokens already in the pool before them.
    pub past: usize,
    /// Where this sequence's block numbers start in the block tables.
    pub table: usize,
}

/// Hyper-parameters of one AdamW step (Loshchilov & Hutter 2019, decoupled weight decay).
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Learning rate.
    pub learning_rate: f32,
    /// Decay rates of the two moments.
    pub betas: (f32, f32),
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Number of this step, from 1.
    pub step: u32,
    /// Gradients are multiplied by this first (gradient clipping).
    pub grad_scale: f32,
}
