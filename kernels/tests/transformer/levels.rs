//! The same claims at every instruction level that this machine has. A process chooses its level once, so each
//! lower one is a run of this test binary of its own.

use std::process::Command;

use openclaw_kernels::Cpu;

const VARIABLE: &str = "OPENCLAW_SIMD";

fn instructions() -> &'static str {
    Cpu::new("levels", 1).expect("a thread starts").instructions()
}

#[test]
fn the_variable_lowers_the_level() {
    let found = instructions();
    match std::env::var(VARIABLE).as_deref() {
        Ok("portable") => assert_eq!(found, "portable"),
        Ok("avx2") => assert_ne!(found, "avx512"),
        _ => assert!(["portable", "avx2", "avx512"].contains(&found), "{found}"),
    }
}

#[test]
fn lower_levels_satisfy_every_other_test() {
    let levels: &[&str] = match instructions() {
        "avx512" => &["avx2", "portable"],
        "avx2" => &["portable"],
        _ => &[],
    };
    for level in levels {
        let run = Command::new(std::env::current_exe().expect("a test has a path"))
            .args(["--skip", "lower_levels", "--skip", "cuda::"])
            .env(VARIABLE, level)
            .output()
            .expect("the test binary starts");
        let text = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{level}:\n{text}");
        assert!(!text.contains(" 0 passed"), "{level}:\n{text}");
    }
}
