//! A short soak: the node is under load and under kills, and what it holds stays bounded. The long one is
//! `openclaw-rl experiment soak --minutes 30`.

use std::{path::Path, process::Command};

use openclaw_tests::binary;

#[test]
fn half_a_minute_of_load_and_kills_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let out = dir.path().join("soak");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut soak = Command::new(binary());
    soak.current_dir(root)
        .args(["experiment", "soak", "--minutes", "0.5", "--growth", "2", "--out"])
        .arg(out);
    let output = soak.output().expect("the binary can be run");
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}\n{told}");
    let last: Vec<&str> = said.lines().last().expect("a table").split('|').map(str::trim).collect();
    let answers: u64 = last[2].parse().expect("a count of answers");
    assert!(answers > 0, "{said}");
}
