//! The GPU of a test binary, opened once: opening takes a large one up to half a second, and tests ask for it
//! thousands of times.

#[path = "../../src/cuda/driver/stand_in/compile.rs"]
mod compile;

use std::{env, fs, path::Path, process::Command, sync::OnceLock};

use openclaw_kernels::Cuda;

const VARIABLE: &str = "OPENCLAW_TEST_DEVICE";

/// The GPU that `OPENCLAW_TEST_DEVICE` names, `cuda:0` for example. It stays open until the process ends.
pub fn gpu() -> Option<Cuda> {
    static GPU: OnceLock<Option<Cuda>> = OnceLock::new();
    GPU.get_or_init(|| {
        let name = env::var(VARIABLE).ok()?;
        let ordinal = name.strip_prefix("cuda:").and_then(|n| n.parse().ok());
        let ordinal = ordinal.unwrap_or_else(|| panic!("{VARIABLE} is {name:?} and not cuda:N"));
        Some(Cuda::new(ordinal).unwrap_or_else(|error| panic!("{error}")))
    })
    .clone()
}

/// Runs some tests of this binary in a process of its own, where a stand-in says when it is opened.
#[test]
fn every_test_of_a_process_has_the_same_gpu() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("opened-{}", std::process::id()));
    let kernels = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stand-in-kernels");
    if let Err(why) = compile::compile(&folder, &kernels) {
        assert!(env::var_os("OPENCLAW_REQUIRE_ALL").is_none(), "{why}");
        return eprintln!("skipped: {why}");
    }
    let child = Command::new(env::current_exe().expect("a test has a path"))
        // Each binary has one of them.
        .args(["swiglu::cuda", "scores::on_cuda::padding", "logits::on_cuda::logprob_gap_logits"])
        .args(["--test-threads", "1"])
        .env(VARIABLE, "cuda:0")
        .env("OPENCLAW_CUDA_LIBRARIES", &folder)
        .env("LD_LIBRARY_PATH", &folder)
        .env("OPENCLAW_KERNEL_CACHE", folder.join("cache"))
        .output()
        .expect("the test binary starts");
    fs::remove_dir_all(&folder).expect("it was made");
    let (out, told) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && !out.contains(" 0 passed"), "{out}{told}");
    assert_eq!(told.lines().filter(|line| *line == "opened").count(), 1, "{out}{told}");
}
