//! The root file system of the suites of sandboxes, with Python, pytest, git, and a repository.

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
    for name in ["cmp", "git", "mktemp", "python3", "tac", "uniq", "xargs"] {
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
    let packages = Path::new("/usr/lib/python3/dist-packages");
    let place = root.join("usr/lib/python3/dist-packages");
    fs::create_dir_all(&place).unwrap();
    let names = [
        "_pytest",
        "pytest",
        "pluggy",
        "iniconfig",
        "packaging",
        "attr",
        "attrs",
        "py",
        "py.py",
        "exceptiongroup",
    ];
    for name in names.into_iter().filter(|name| packages.join(name).exists()) {
        run(Command::new("cp").arg("-rL").arg(packages.join(name)).arg(&place));
    }
    repository(&root.join("testbed"));
}

/// The package here, with a fault in it, where images of published rows have their repositories.
fn repository(testbed: &Path) {
    run(Command::new("cp")
        .arg("-r")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/swe_package"))
        .arg(testbed));
    let path = testbed.join("src/tally/words.py");
    let sound = fs::read_to_string(&path).unwrap();
    fs::write(&path, sound.replace("count == 1", "count == 2")).unwrap();
    let git = |words: &[&str]| run(Command::new("git").arg("-C").arg(testbed).args(words));
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    git(&["-c", "user.name=a", "-c", "user.email=a@localhost", "commit", "-q", "-m", "base"]);
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}
