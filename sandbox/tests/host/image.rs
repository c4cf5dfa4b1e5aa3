//! Root file systems of this machine's programs.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

/// What the suites run, and what carries files.
const PROGRAMS: &str = "bash cat chmod chroot cp cut du env find grep head id ln ls mkdir mkfifo mknod mount mv nsenter perl \
                        printf pwd readlink rm rmdir sed seq setsid sh sleep sort stat tail tar touch tr truncate umount unshare \
                        wc yes";

/// All of them in a folder.
pub fn make(root: &Path) {
    for folder in ["etc", "usr/bin"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    symlink("usr/bin", root.join("bin")).unwrap();
    PROGRAMS.split_whitespace().for_each(|name| copy_program(name, root));
    let asked = Command::new("perl").args(["-e", "print join(q( ), @INC)"]).output().unwrap();
    for folder in String::from_utf8(asked.stdout).unwrap().split_whitespace().map(Path::new) {
        if folder.join("Socket.pm").exists() {
            let to = root.join(folder.strip_prefix("/").unwrap());
            fs::create_dir_all(&to).unwrap();
            let from = folder.join(".");
            assert!(Command::new("cp").arg("-rL").arg(from).arg(to).status().unwrap().success());
        }
    }
}

/// With the libraries that it needs.
pub fn copy_program(name: &str, root: &Path) {
    let places = ["/usr/bin", "/usr/sbin"].map(|folder| Path::new(folder).join(name));
    let program = places.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("no {name} here"));
    let listed = Command::new("ldd").arg(&program).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    for file in libraries {
        copy(&file, &root.join(file.strip_prefix("/").unwrap()));
    }
    copy(&program, &root.join("usr/bin").join(name));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
}
