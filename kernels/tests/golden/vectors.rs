//! Reads the vectors and compares with their stated tolerances.

use std::path::PathBuf;

use half::bf16;
use openclaw_kernels::Float;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// Rounded storage adds this much relative error to a gradient kept in bf16.
pub const BF16_ROUNDING: f64 = 1.0 / 256.0;

/// One case of the manifest with its tensors.
pub struct Case<'a> {
    name: &'a str,
    manifest: &'a Value,
    tensors: &'a SafeTensors<'a>,
}

/// Runs `check` on every case of an operation and expects as many as the manifest promises.
pub fn for_each_case(op: &str, check: impl Fn(&Case<'_>)) {
    let folder = std::env::var_os("GOLDEN_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden"), PathBuf::from);
    let read = |file: &str| std::fs::read(folder.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    let (manifest, data) = (read("manifest.json"), read("golden.safetensors"));
    let manifest: Value = serde_json::from_slice(&manifest).expect("the manifest is JSON");
    let tensors = SafeTensors::deserialize(&data).expect("the vectors are safetensors");
    let mut count = 0;
    for case in manifest["cases"].as_array().expect("the manifest lists cases") {
        if case["op"] == op {
            check(&Case {
                name: case["name"].as_str().expect("a case has a name"),
                manifest: case,
                tensors: &tensors,
            });
            count += 1;
        }
    }
    let promised = manifest["cases_per_op"][op].as_u64();
    assert_eq!(promised.unwrap_or(count), count, "cases of {op}");
}

impl Case<'_> {
    pub fn has(&self, key: &str) -> bool {
        self.tensors.tensor(&format!("{}/{key}", self.name)).is_ok()
    }
    pub fn shape(&self, key: &str) -> Vec<usize> {
        self.tensor(key).shape().to_vec()
    }
    fn tensor(&self, key: &str) -> safetensors::tensor::TensorView<'_> {
        self.tensors
            .tensor(&format!("{}/{key}", self.name))
            .unwrap_or_else(|e| panic!("{}: {key}: {e}", self.name))
    }
    /// Any tensor, as `f64`.
    pub fn get(&self, key: &str) -> Vec<f64> {
        let tensor = self.tensor(key);
        let wide = || tensor.data().chunks_exact(8).map(|b| b.try_into().expect("8 bytes"));
        match tensor.dtype() {
            Dtype::F64 => wide().map(f64::from_le_bytes).collect(),
            Dtype::I64 => wide().map(|b| i64::from_le_bytes(b) as f64).collect(),
            Dtype::F32 => {
                let narrow = tensor.data().chunks_exact(4).map(|b| b.try_into().expect("4 bytes"));
                narrow.map(|b| f64::from(f32::from_le_bytes(b))).collect()
            }
            Dtype::U8 => tensor.data().iter().map(|b| f64::from(*b)).collect(),
            other => panic!("{}: {key} has type {other:?}", self.name),
        }
    }
    pub fn floats<T: Float>(&self, key: &str) -> Vec<T> {
        self.get(key).iter().map(|v| T::from_f32(*v as f32)).collect()
    }
    pub fn ids(&self, key: &str) -> Vec<i32> {
        self.get(key).iter().map(|v| *v as i32).collect()
    }
    /// A numeric parameter; `None` where it is null or absent.
    pub fn number(&self, key: &str) -> Option<f32> {
        self.manifest["params"][key].as_f64().map(|v| v as f32)
    }
    pub fn flag(&self, key: &str) -> bool {
        self.manifest["params"][key].as_bool().unwrap_or(false)
    }
    pub fn text(&self, key: &str) -> &str {
        self.manifest["params"][key].as_str().unwrap_or_default()
    }
    /// Whether the logits are exact in bf16, so that the case also runs in bf16.
    pub fn exact_in_bf16(&self) -> bool {
        self.manifest["input_precision"].as_str().is_some_and(|p| p.starts_with("bf16"))
    }
    /// Row ranges of the samples.
    pub fn samples(&self) -> Vec<std::ops::Range<usize>> {
        self.get("in/offsets").windows(2).map(|w| w[0] as usize..w[1] as usize).collect()
    }

    /// Compares with an expectation, each element with its own tolerance.
    pub fn close(&self, what: &str, found: &[f32], expected: &[f64], tolerance: impl Fn(usize, f64) -> f64) {
        assert_eq!(found.len(), expected.len(), "{}: {what}", self.name);
        for (i, (f, e)) in found.iter().zip(expected).enumerate() {
            let (f, tolerance) = (f64::from(*f), tolerance(i, *e));
            let equal = f == *e || (f - e).abs() <= tolerance;
            assert!(equal, "{}: {what}[{i}] is {f}, expected {e} within {tolerance:e}", self.name);
        }
    }
    /// Log-probs, log-sum-exps and entropies: 2e-6 (1 + |lse|).
    pub fn logprobs(&self, what: &str, found: &[f32], expected: &[f64], lse: &[f64]) {
        self.close(what, found, expected, |i, _| 2e-6 * (1.0 + lse[i].abs()));
    }
    pub fn losses(&self, what: &str, found: &[f32], expected: &[f64]) {
        self.close(what, found, expected, |_, _| 1e-5);
    }
    /// Gradients: 2e-6 + 2e-5 |g|, and the rounding of bf16 where they are stored so.
    pub fn gradients<T: Float>(&self, what: &str, found: &[T], expected: &[f64]) {
        let found: Vec<f32> = found.iter().map(|v| v.to_f32()).collect();
        let relative = if is_bf16::<T>() { 2e-5 + BF16_ROUNDING } else { 2e-5 };
        self.close(what, &found, expected, |_, e| 2e-6 + relative * e.abs());
    }
}

pub fn is_bf16<T: 'static>() -> bool {
    std::any::TypeId::of::<T>() == std::any::TypeId::of::<bf16>()
}
