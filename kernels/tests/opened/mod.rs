//! The GPU of a test binary, opened once: opening takes a large one up to half a second, and tests ask for it
//! thousands of times.

use std::sync::OnceLock;

use openclaw_kernels::Cuda;

const VARIABLE: &str = "OPENCLAW_TEST_DEVICE";

/// The GPU that `OPENCLAW_TEST_DEVICE` names, `cuda:0` for example. It stays open until the process ends.
pub fn gpu() -> Option<Cuda> {
    static GPU: OnceLock<Option<Cuda>> = OnceLock::new();
    GPU.get_or_init(|| {
        let name = std::env::var(VARIABLE).ok()?;
        let ordinal = name.strip_prefix("cuda:").and_then(|n| n.parse().ok());
        let ordinal = ordinal.unwrap_or_else(|| panic!("{VARIABLE} is {name:?} and not cuda:N"));
        Some(Cuda::new(ordinal).unwrap_or_else(|error| panic!("{error}")))
    })
    .clone()
}
