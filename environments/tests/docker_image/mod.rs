//! The root file system of the suites of sandboxes, with Python.

#[path = "../../../sandbox/tests/host/image.rs"]
mod programs;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// All of it in a folder.
pub fn make(root: &Path) {
    programs::make(root);
    for name in ["cmp", "python3", "tac", "uniq"] {
        programs::copy_program(name, root);
    }
    let script = "import sysconfig; print(sysconfig.get_path('stdlib'))";
    let asked = Command::new("/usr/bin/python3").args(["-c", script]).output().unwrap();
    let library = String::from_utf8(asked.stdout).unwrap();
    let to = root.join(library.trim().trim_start_matches('/'));
    fs::create_dir_all(&to).unwrap();
    let mut packed = Command::new("tar")
        .args(["-C", library.trim(), "--exclude=test", "--exclude=__pycache__", "--exclude=idlelib"])
        .args(["--exclude=config-*", "--exclude=dist-packages", "-ch", "."])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let unpacked =
        Command::new("tar").arg("-C").arg(&to).arg("-x").stdin(packed.stdout.take().unwrap()).status();
    assert!(unpacked.unwrap().success() && packed.wait().unwrap().success());
}
