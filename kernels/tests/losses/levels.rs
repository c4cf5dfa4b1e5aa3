//! The same claims at every instruction level that this machine has. A process chooses its level once, so each
//! lower one is a run of this test binary of its own.

use std::process::Command;

use crate::device::Device;

#[test]
fn lower_levels_satisfy_every_other_test() {
    let Device::Cpu(cpu) = Device::cpu() else { unreachable!("it was asked for") };
    let levels: &[&str] = match cpu.instructions() {
        "avx512" => &["avx2", "portable"],
        "avx2" => &["portable"],
        _ => &[],
    };
    for level in levels {
        let run = Command::new(std::env::current_exe().expect("a test has a path"))
            .args(["--skip", "lower_levels", "--skip", "on_cuda"])
            .env("OPENCLAW_SIMD", level)
            .output()
            .expect("the test binary starts");
        let text = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{level}:\n{text}");
        assert!(!text.contains(" 0 passed"), "{level}:\n{text}");
    }
}
