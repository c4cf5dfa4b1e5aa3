//! The devices that every claim is tested on, as operations on host slices: inputs go up, outputs come back.

use std::ops::Range;

#[path = "../opened/mod.rs"]
mod opened;

pub use opened::gpu;

use half::bf16;
use openclaw_kernels::{Backend, Cpu, Cuda, Result, ops::*};

/// Where a test runs: on the CPU, or on CUDA sources that an emulation runs there, or the GPU of
/// `OPENCLAW_TEST_DEVICE`.
pub enum Device {
    Cpu,
    Emulated,
}

/// Makes a test of each function for each device: `cpu::name` and `cuda::name`.
macro_rules! on_every_device {
    ($($name:ident),+ $(,)?) => {
        mod cpu {
            $(#[test] fn $name() { super::$name(&crate::devices::Device::Cpu) })+
        }
        mod cuda {
            $(#[test] fn $name() {
                if crate::devices::can_emulate() {
                    super::$name(&crate::devices::Device::Emulated)
                }
            })+
        }
    };
}
pub(crate) use on_every_device;

/// Whether CUDA sources can be compiled here; says why not, and fails where everything must run.
pub fn can_emulate() -> bool {
    if gpu().is_some() {
        return true;
    }
    let Err(error) = Cuda::emulated() else { return true };
    assert!(std::env::var_os("OPENCLAW_REQUIRE_ALL").is_none(), "{error}");
    eprintln!("skipped: {error}");
    false
}

impl Device {
    /// Runs `work`, on the CPU with so many threads; emulated threads run in an order that the number decides.
    pub fn on<R: Send>(&self, threads: usize, work: impl FnOnce(&dyn Operations) -> R + Send) -> R {
        match self {
            Self::Cpu => {
                let cpu = Cpu::new("transformer", threads).expect("threads start");
                cpu.scope(|| work(&cpu))
            }
            Self::Emulated => {
                let emulated = || Cuda::emulated_as(90, threads as u64, u64::MAX);
                work(&gpu().unwrap_or_else(|| emulated().expect("can_emulate() saw that it can")))
            }
        }
    }

    /// What `work` gives; panics unless it is the same bit for bit on one, two and three threads.
    pub fn on_any_threads(&self, work: impl Fn(&dyn Operations) -> Vec<Vec<f32>> + Sync) -> Vec<Vec<f32>> {
        let one = self.on(1, &work);
        for threads in [2, 3] {
            let many = self.on(threads, &work);
            for (i, (one, many)) in one.iter().zip(&many).enumerate() {
                assert!(bits(one) == bits(many), "result {i} depends on whether there are {threads} threads");
            }
        }
        one
    }
}

pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// [`Backend`] on host slices. What an operation writes is read first, so that untouched elements stay.
#[allow(clippy::too_many_arguments)]
pub trait Operations: Sync {
    fn matmul(&self, shape: Matmul, a: &[f32], b: &[f32], c: &mut [f32]) -> Result<()>;
    fn matmul_bf16(&self, shape: Matmul, a: &[f32], b: &[bf16], c: &mut [f32]) -> Result<()>;
    fn embedding(&self, width: usize, ids: &[u32], table: &[f32], out: &mut [f32]) -> Result<()>;
    fn embedding_bf16(&self, width: usize, ids: &[u32], table: &[bf16], out: &mut [f32]) -> Result<()>;
    fn embedding_backward(&self, width: usize, ids: &[u32], d_out: &[f32], d_table: &mut [f32])
    -> Result<()>;
    fn rms_norm(&self, eps: f32, x: &[f32], weight: &[f32], out: &mut [f32]) -> Result<()>;
    fn rms_norm_backward(
        &self,
        eps: f32,
        x: &[f32],
        weight: &[f32],
        d_out: &[f32],
        d_x: &mut [f32],
        d_weight: &mut [f32],
    ) -> Result<()>;
    fn qk_norm_rope(
        &self,
        shape: QkvShape,
        qkv: &[f32],
        positions: &[u32],
        rope: RopeTable<&[f32]>,
        q_weight: &[f32],
        k_weight: &[f32],
        qk: &mut [f32],
    ) -> Result<()>;
    fn qk_norm_rope_backward(
        &self,
        shape: QkvShape,
        qkv: &[f32],
        positions: &[u32],
        rope: RopeTable<&[f32]>,
        q_weight: &[f32],
        k_weight: &[f32],
        d_qk: &[f32],
        d_qkv: &mut [f32],
        d_q_weight: &mut [f32],
        d_k_weight: &mut [f32],
    ) -> Result<()>;
    fn attention(
        &self,
        shape: QkvShape,
        sequences: &[Range<usize>],
        qk: &[f32],
        qkv: &[f32],
        out: &mut [f32],
        lse: &mut [f32],
    ) -> Result<()>;
    fn attention_backward(
        &self,
        shape: QkvShape,
        sequences: &[Range<usize>],
        qk: &[f32],
        qkv: &[f32],
        out: &[f32],
        lse: &[f32],
        d_out: &[f32],
        d_qk: &mut [f32],
        d_qkv: &mut [f32],
    ) -> Result<()>;
    fn paged_store(
        &self,
        shape: PagedShape,
        slots: &[u32],
        qk: &[f32],
        qkv: &[f32],
        pool: &mut [f32],
    ) -> Result<()>;
    fn paged_attention(
        &self,
        shape: PagedShape,
        segments: &[PagedSegment],
        block_tables: &[u32],
        qk: &[f32],
        pool: &[f32],
        out: &mut [f32],
    ) -> Result<()>;
    fn swiglu(&self, width: usize, gate_up: &[f32], out: &mut [f32]) -> Result<()>;
    fn swiglu_backward(
        &self,
        width: usize,
        gate_up: &[f32],
        d_out: &[f32],
        d_gate_up: &mut [f32],
    ) -> Result<()>;
    fn adamw(
        &self,
        step: AdamW,
        params: &mut [f32],
        grads: &[f32],
        first: &mut [f32],
        second: &mut [f32],
    ) -> Result<()>;
    fn sum_squares(&self, x: &[f32]) -> Result<f64>;
}

/// Evaluates `$call` with every named slice replaced by a view of its copy on the device, and copies back what may
/// have been written, also after an error.
macro_rules! on_device {
    ($device:ident, [$($read:ident),*], [$($write:ident),*], $call:expr) => {{
        $(
            let uploaded = $device.upload($read)?;
            let $read = $device.view(&uploaded, 0..$read.len());
        )*
        on_device!(@write $device, [$($write),*], $call)
    }};
    (@write $device:ident, [], $call:expr) => { $call };
    (@write $device:ident, [$write:ident $(, $rest:ident)*], $call:expr) => {{
        let host = $write;
        let mut uploaded = $device.upload(host)?;
        let result = {
            let $write = $device.view_mut(&mut uploaded, 0..host.len());
            on_device!(@write $device, [$($rest),*], $call)
        };
        host.copy_from_slice(&$device.download($device.view(&uploaded, 0..host.len()))?);
        result
    }};
}

#[allow(clippy::too_many_arguments)]
impl<B: Backend> Operations for B {
    fn matmul(&self, shape: Matmul, a: &[f32], b: &[f32], c: &mut [f32]) -> Result<()> {
        on_device!(self, [a, b], [c], Backend::matmul(self, shape, a, b, c))
    }
    fn matmul_bf16(&self, shape: Matmul, a: &[f32], b: &[bf16], c: &mut [f32]) -> Result<()> {
        on_device!(self, [a, b], [c], Backend::matmul(self, shape, a, b, c))
    }
    fn embedding(&self, width: usize, ids: &[u32], table: &[f32], out: &mut [f32]) -> Result<()> {
        on_device!(self, [ids, table], [out], Backend::embedding(self, width, ids, table, out))
    }
    fn embedding_bf16(&self, width: usize, ids: &[u32], table: &[bf16], out: &mut [f32]) -> Result<()> {
        on_device!(self, [ids, table], [out], Backend::embedding(self, width, ids, table, out))
    }
    fn embedding_backward(
        &self,
        width: usize,
        ids: &[u32],
        d_out: &[f32],
        d_table: &mut [f32],
    ) -> Result<()> {
        on_device!(
            self,
            [ids, d_out],
            [d_table],
            Backend::embedding_backward(self, width, ids, d_out, d_table)
        )
    }
    fn rms_norm(&self, eps: f32, x: &[f32], weight: &[f32], out: &mut [f32]) -> Result<()> {
        on_device!(self, [x, weight], [out], Backend::rms_norm(self, eps, x, weight, out))
    }
    fn rms_norm_backward(
        &self,
        eps: f32,
        x: &[f32],
        weight: &[f32],
        d_out: &[f32],
        d_x: &mut [f32],
        d_weight: &mut [f32],
    ) -> Result<()> {
        on_device!(
            self,
            [x, weight, d_out],
            [d_x, d_weight],
            Backend::rms_norm_backward(self, eps, x, weight, d_out, d_x, d_weight)
        )
    }
    fn qk_norm_rope(
        &self,
        shape: QkvShape,
        qkv: &[f32],
        positions: &[u32],
        rope: RopeTable<&[f32]>,
        q_weight: &[f32],
        k_weight: &[f32],
        qk: &mut [f32],
    ) -> Result<()> {
        let RopeTable { cos, sin } = rope;
        on_device!(
            self,
            [qkv, positions, cos, sin, q_weight, k_weight],
            [qk],
            Backend::qk_norm_rope(
                self,
                shape,
                qkv,
                positions,
                RopeTable { cos, sin },
                q_weight,
                k_weight,
                qk
            )
        )
    }
    fn qk_norm_rope_backward(
        &self,
        shape: QkvShape,
        qkv: &[f32],
        positions: &[u32],
        rope: RopeTable<&[f32]>,
        q_weight: &[f32],
        k_weight: &[f32],
        d_qk: &[f32],
        d_qkv: &mut [f32],
        d_q_weight: &mut [f32],
        d_k_weight: &mut [f32],
    ) -> Result<()> {
        let RopeTable { cos, sin } = rope;
        on_device!(
            self,
            [qkv, positions, cos, sin, q_weight, k_weight, d_qk],
            [d_qkv, d_q_weight, d_k_weight],
            Backend::qk_norm_rope_backward(
                self,
                shape,
                qkv,
                positions,
                RopeTable { cos, sin },
                q_weight,
                k_weight,
                d_qk,
                d_qkv,
                d_q_weight,
                d_k_weight
            )
        )
    }
    fn attention(
        &self,
        shape: QkvShape,
        sequences: &[Range<usize>],
        qk: &[f32],
        qkv: &[f32],
        out: &mut [f32],
        lse: &mut [f32],
    ) -> Result<()> {
        on_device!(self, [qk, qkv], [out, lse], Backend::attention(self, shape, sequences, qk, qkv, out, lse))
    }
    fn attention_backward(
        &self,
        shape: QkvShape,
        sequences: &[Range<usize>],
        qk: &[f32],
        qkv: &[f32],
        out: &[f32],
        lse: &[f32],
        d_out: &[f32],
        d_qk: &mut [f32],
        d_qkv: &mut [f32],
    ) -> Result<()> {
        on_device!(
            self,
            [qk, qkv, out, lse, d_out],
            [d_qk, d_qkv],
            Backend::attention_backward(self, shape, sequences, qk, qkv, out, lse, d_out, d_qk, d_qkv)
        )
    }
    fn paged_store(
        &self,
        shape: PagedShape,
        slots: &[u32],
        qk: &[f32],
        qkv: &[f32],
        pool: &mut [f32],
    ) -> Result<()> {
        on_device!(self, [slots, qk, qkv], [pool], Backend::paged_store(self, shape, slots, qk, qkv, pool))
    }
    fn paged_attention(
        &self,
        shape: PagedShape,
        segments: &[PagedSegment],
        block_tables: &[u32],
        qk: &[f32],
        pool: &[f32],
        out: &mut [f32],
    ) -> Result<()> {
        on_device!(
            self,
            [block_tables, qk, pool],
            [out],
            Backend::paged_attention(self, shape, segments, block_tables, qk, pool, out)
        )
    }
    fn swiglu(&self, width: usize, gate_up: &[f32], out: &mut [f32]) -> Result<()> {
        on_device!(self, [gate_up], [out], Backend::swiglu(self, width, gate_up, out))
    }
    fn swiglu_backward(
        &self,
        width: usize,
        gate_up: &[f32],
        d_out: &[f32],
        d_gate_up: &mut [f32],
    ) -> Result<()> {
        on_device!(
            self,
            [gate_up, d_out],
            [d_gate_up],
            Backend::swiglu_backward(self, width, gate_up, d_out, d_gate_up)
        )
    }
    fn adamw(
        &self,
        step: AdamW,
        params: &mut [f32],
        grads: &[f32],
        first: &mut [f32],
        second: &mut [f32],
    ) -> Result<()> {
        on_device!(
            self,
            [grads],
            [params, first, second],
            Backend::adamw(self, step, params, grads, first, second)
        )
    }
    fn sum_squares(&self, x: &[f32]) -> Result<f64> {
        on_device!(self, [x], [], Backend::sum_squares(self, x))
    }
}
