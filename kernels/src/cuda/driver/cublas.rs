//! Matrix products by cuBLASLt.
//!
//! What holds of their bits. cuBLAS promises the same result for the same call on the same GPU with the same version
//! and workspace. It does not promise that a row is the same whatever rows are beside it; we come close by the
//! choice of one algorithm for all `m` up to [`FEW_ROWS`] and one for all larger ones, from `n`, `k`, layouts and
//! types, without split-K: each element is then summed over `k` in the order of that algorithm's tiles, in which
//! `m` has no part. Only where cuBLAS refuses the algorithm for the actual `m` is another one taken.
#![allow(unsafe_code)]

use std::{
    collections::HashMap,
    ffi::c_void,
    mem::MaybeUninit,
    ptr,
    sync::{Mutex, PoisonError},
};

use cudarc::cublaslt::{result, sys};
use cudarc::driver::sys::CUstream;

use super::{Address, Driver, real::Real};
use crate::cuda::gemm::{Dtype, Factor, Gemm};

/// Up to this many rows a product is a decoding step's.
pub(super) const FEW_ROWS: usize = 64;
/// Rows for which the algorithm of larger products is chosen.
const MANY_ROWS: usize = 2048;
const WORKSPACE_BYTES: usize = 32 << 20;
/// Algorithms that are looked at to find one without split-K.
const CANDIDATES: usize = 32;

type Algorithm = sys::cublasLtMatmulAlgo_t;

/// What an algorithm is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    few_rows: bool,
    n: usize,
    k: usize,
    a: Factor,
    b: Factor,
    c_stride: usize,
    input: Dtype,
    output: Dtype,
    /// Of every operand, in bytes.
    alignment: u32,
}

pub(super) struct Cublas {
    handle: sys::cublasLtHandle_t,
    workspace: Address,
    algorithms: Mutex<HashMap<Key, Algorithm>>,
}

/// Descriptions of one product, destroyed with it.
struct Descriptions {
    product: sys::cublasLtMatmulDesc_t,
    /// Of `b`, `a` and `c`.
    layouts: Vec<sys::cublasLtMatrixLayout_t>,
}

fn told(doing: &'static str) -> impl Fn(result::CublasError) -> String {
    move |error| format!("cuBLAS {doing}: {:?}", error.0)
}

fn data_type(dtype: Dtype) -> sys::cudaDataType {
    match dtype {
        Dtype::F32 => sys::cudaDataType::CUDA_R_32F,
        Dtype::Bf16 => sys::cudaDataType::CUDA_R_16BF,
    }
}

impl Descriptions {
    fn new(gemm: &Gemm, m: usize) -> Result<Self, String> {
        // CUBLAS_COMPUTE_32F multiplies f32 in full: TF32 would be another compute type.
        let (compute, scale) = (sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType::CUDA_R_32F);
        let product =
            result::create_matmul_desc(compute, scale).map_err(told("cannot describe a product"))?;
        let mut made = Self { product, layouts: Vec::with_capacity(3) };
        use sys::cublasLtMatmulDescAttributes_t::*;
        for (which, factor) in [(CUBLASLT_MATMUL_DESC_TRANSA, gemm.b), (CUBLASLT_MATMUL_DESC_TRANSB, gemm.a)]
        {
            let operation = i32::from(factor.transposed);
            // SAFETY: the description was just made; the attribute is a 32-bit enum with N = 0 and T = 1.
            unsafe {
                result::set_matmul_desc_attribute(product, which, ptr::from_ref(&operation).cast(), 4)
                    .map_err(told("cannot transpose"))?;
            }
        }
        let stored = |factor: Factor, rows: usize, cols: usize| {
            if factor.transposed { (cols, rows) } else { (rows, cols) }
        };
        let (b_rows, b_cols) = stored(gemm.b, gemm.n, gemm.k);
        let (a_rows, a_cols) = stored(gemm.a, gemm.k, m);
        for (dtype, rows, cols, stride) in [
            (gemm.input, b_rows, b_cols, gemm.b.stride),
            (gemm.input, a_rows, a_cols, gemm.a.stride.max(a_rows)),
            (gemm.output, gemm.n, m, gemm.c_stride),
        ] {
            let layout =
                result::create_matrix_layout(data_type(dtype), rows as u64, cols as u64, stride as i64);
            made.layouts.push(layout.map_err(told("cannot describe a matrix"))?);
        }
        Ok(made)
    }
}

impl Drop for Descriptions {
    fn drop(&mut self) {
        for layout in self.layouts.drain(..) {
            // SAFETY: made in `new`, and destroyed once.
            let _ = unsafe { result::destroy_matrix_layout(layout) };
        }
        // SAFETY: as above.
        let _ = unsafe { result::destroy_matmul_desc(self.product) };
    }
}

impl Cublas {
    pub(super) fn new(device: &Real) -> Result<Self, String> {
        let workspace = device.allocate(WORKSPACE_BYTES).map_err(|error| error.to_string())?;
        let workspace =
            workspace.ok_or_else(|| format!("no {WORKSPACE_BYTES} bytes for cuBLAS to work in"))?;
        let handle = result::create_handle().map_err(told("does not start"))?;
        Ok(Self { handle, workspace, algorithms: Mutex::default() })
    }

    /// # Safety
    /// The operands have the elements that the shape reaches, and the stream is of the current context.
    pub(super) unsafe fn run(&self, gemm: &Gemm, stream: CUstream) -> Result<(), String> {
        let descriptions = Descriptions::new(gemm, gemm.m)?;
        let algorithm = self.algorithm(gemm, &descriptions)?;
        let (alpha, beta) = (1f32, if gemm.accumulate { 1f32 } else { 0f32 });
        let [b, a, c] = descriptions.layouts[..] else { unreachable!("three matrices were described") };
        let pointer = |address: Address| ptr::with_exposed_provenance::<c_void>(address as usize);
        // SAFETY: the caller's promise; the workspace is as large as we say, and used by one stream.
        unsafe {
            result::matmul(
                self.handle,
                descriptions.product,
                ptr::from_ref(&alpha).cast(),
                ptr::from_ref(&beta).cast(),
                pointer(gemm.b_address),
                b,
                pointer(gemm.a_address),
                a,
                pointer(gemm.c_address),
                c,
                pointer(gemm.c_address).cast_mut(),
                c,
                &algorithm,
                pointer(self.workspace).cast_mut(),
                WORKSPACE_BYTES,
                stream.cast(),
            )
        }
        .map_err(told("cannot multiply"))
    }

    /// The algorithm for this kind of product, checked for the actual one.
    fn algorithm(&self, gemm: &Gemm, actual: &Descriptions) -> Result<Algorithm, String> {
        let strides = [gemm.a.stride, gemm.b.stride].map(|stride| stride * gemm.input.bytes());
        let strides = [strides[0], strides[1], gemm.c_stride * gemm.output.bytes()];
        let starts = [gemm.a_address, gemm.b_address, gemm.c_address];
        let wide = strides.iter().all(|bytes| bytes % 16 == 0) && starts.iter().all(|start| start % 16 == 0);
        let smallest = gemm.input.bytes().min(gemm.output.bytes()) as u32;
        let key = Key {
            few_rows: gemm.m <= FEW_ROWS,
            n: gemm.n,
            k: gemm.k,
            // Where columns of `a` lie `m` apart, its stride says nothing but `m`.
            a: Factor { stride: if gemm.a.transposed { 0 } else { gemm.a.stride }, ..gemm.a },
            b: gemm.b,
            c_stride: gemm.c_stride,
            input: gemm.input,
            output: gemm.output,
            alignment: if wide { 16 } else { smallest },
        };
        let known = self.algorithms.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        let chosen = match known {
            Some(algorithm) => algorithm,
            None => {
                let rows = if key.few_rows { FEW_ROWS } else { MANY_ROWS };
                let algorithm = self.choose(&Descriptions::new(gemm, rows)?, key.alignment)?;
                *self
                    .algorithms
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .entry(key)
                    .or_insert(algorithm)
            }
        };
        let [b, a, c] = actual.layouts[..] else { unreachable!("three matrices were described") };
        let mut checked = MaybeUninit::uninit();
        // SAFETY: all descriptions are alive, and there is a place for the answer.
        let fits = unsafe {
            sys::cublasLtMatmulAlgoCheck(
                self.handle,
                actual.product,
                b,
                a,
                c,
                c,
                &chosen,
                checked.as_mut_ptr(),
            )
            .result()
            .is_ok_and(|()| checked.assume_init_ref().workspaceSize <= WORKSPACE_BYTES)
        };
        if fits { Ok(chosen) } else { self.choose(actual, key.alignment) }
    }

    /// The first algorithm of cuBLAS's heuristic that sums every element in one piece.
    fn choose(&self, product: &Descriptions, alignment: u32) -> Result<Algorithm, String> {
        let preference = result::create_matmul_pref().map_err(told("cannot describe a preference"))?;
        let chosen = self.choose_by(product, preference, alignment);
        // SAFETY: just made, and not used later.
        let _ = unsafe { result::destroy_matmul_pref(preference) };
        chosen
    }

    fn choose_by(
        &self,
        product: &Descriptions,
        preference: sys::cublasLtMatmulPreference_t,
        alignment: u32,
    ) -> Result<Algorithm, String> {
        use sys::cublasLtMatmulPreferenceAttributes_t::*;
        let bytes = WORKSPACE_BYTES as u64;
        // SAFETY: the preference is alive; the attribute is 64 bits.
        unsafe {
            let value = ptr::from_ref(&bytes).cast();
            result::set_matmul_pref_attribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, value, 8)
        }
        .map_err(told("cannot limit its workspace"))?;
        let no_reduction = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32;
        for (which, value) in [
            (CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, no_reduction),
            (CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment),
            (CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment),
            (CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment),
            (CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment),
        ] {
            // SAFETY: as above; these attributes are 32 bits.
            unsafe { result::set_matmul_pref_attribute(preference, which, ptr::from_ref(&value).cast(), 4) }
                .map_err(told("cannot exclude split-K"))?;
        }
        let [b, a, c] = product.layouts[..] else { unreachable!("three matrices were described") };
        let mut found = [const { MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit() }; CANDIDATES];
        let mut count = 0;
        // SAFETY: all descriptions are alive, and there is room for that many answers.
        unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                product.product,
                b,
                a,
                c,
                c,
                preference,
                CANDIDATES as i32,
                found[0].as_mut_ptr(),
                &mut count,
            )
        }
        .result()
        .map_err(told("has no algorithm"))?;
        for candidate in &found[..usize::try_from(count).unwrap_or(0).min(CANDIDATES)] {
            // SAFETY: the first `count` were written.
            let candidate = unsafe { candidate.assume_init_ref() };
            if candidate.state.result().is_ok() && in_one_piece(&candidate.algo) {
                return Ok(candidate.algo);
            }
        }
        Err(format!("cuBLAS has no algorithm without split-K among {count}"))
    }
}

/// Whether one block sums an element over all of `k`.
fn in_one_piece(algorithm: &Algorithm) -> bool {
    use sys::cublasLtMatmulAlgoConfigAttributes_t::*;
    let read = |which| {
        let (mut value, mut written) = (0u32, 0);
        // SAFETY: the attributes asked for are 32 bits.
        let status = unsafe {
            let place = ptr::from_mut(&mut value).cast();
            sys::cublasLtMatmulAlgoConfigGetAttribute(algorithm, which, place, 4, &mut written)
        };
        status.result().is_ok().then_some(value)
    };
    read(CUBLASLT_ALGO_CONFIG_SPLITK_NUM).is_some_and(|parts| parts <= 1)
        && read(CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME) == Some(0)
}

impl Drop for Cublas {
    fn drop(&mut self) {
        // SAFETY: made in `new`; the device has waited for its work. Its memory goes with the context.
        unsafe {
            let _ = result::destroy_handle(self.handle);
            let _ = cudarc::driver::result::free_sync(self.workspace);
        }
    }
}
