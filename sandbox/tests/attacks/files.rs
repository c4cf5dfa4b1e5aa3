//! What is tried with files.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
};

use openclaw_sandbox::{Advice, Backend, Ending, Kind, Limits, SandboxError, Spec};

use super::{SECRET, fails, run, still_works};
use crate::host::{MINUTE, open};

pub fn a_link_leads_nowhere(backend: &dyn Backend) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, SECRET).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o666)).unwrap();
    let mut session = open(backend);
    let links = format!(
        "ln -s /etc/passwd passwd; ln -s {0}/secret file; ln -s {0} folder; ln -s ../../../../../../../../..{0}/secret up; \
         ln -s .. above; ln -s /proc/self/root root; ln -s loop loop; mkdir inner; ln -s ../../etc inner/etc",
        dir.path().display()
    );
    assert!(run(&mut *session, &links).success());
    let paths = [
        "passwd",
        "file",
        "folder/secret",
        "up",
        "above/etc/passwd",
        "root/etc/passwd",
        "loop",
        "inner/etc/passwd",
    ];
    for path in paths {
        let error = session.read_file(Path::new(path)).unwrap_err();
        assert_eq!(error.advice(), Advice::Refused, "{path}: {error}");
        let error = session.write_file(Path::new(path), b"changed").unwrap_err();
        assert_eq!(error.advice(), Advice::Refused, "{path}: {error}");
    }
    for path in ["folder", "above", "root", "inner/etc"] {
        assert!(session.list(Path::new(path)).is_err(), "{path}");
        let out = dir.path().join("out");
        assert!(session.copy_out(Path::new(path), &out).is_err() && !out.exists(), "{path}");
    }
    let out = dir.path().join("out");
    let copied = session.copy_out(Path::new(""), &out).unwrap();
    assert_eq!((copied.files, copied.skipped), (0, 8));
    // Swapped all the time, by a job that outlives its line.
    let swap = format!(
        "mkdir -p a real; echo inside > real/secret; (while :; do ln -sfn {} a/x; rm a/x; ln -sfn ../real a/x; rm a/x; mkdir a/x; rmdir a/x; done) 2>/dev/null &",
        dir.path().display()
    );
    assert!(session.shell(&swap, MINUTE).unwrap().success());
    for round in 0..300 {
        if let Ok(bytes) = session.read_file(Path::new("a/x/secret")) {
            assert_eq!(bytes, b"inside\n");
        }
        if round % 30 == 0 {
            // Written inside, or not at all.
            let _ = session.write_file(Path::new("a/x/secret"), b"inside\n");
            let _ = session.copy_out(Path::new("a"), &dir.path().join(format!("out{round}")));
        }
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET);
}

pub fn what_blocks_a_reader_is_not_read(backend: &dyn Backend) {
    let dir = tempfile::tempdir().unwrap();
    let mut session = open(backend);
    let line = "mkfifo pipe; ln -s pipe link; ln -s /dev/zero zero; mkdir d; mkfifo d/pipe; echo x > d/f; \
                perl -MSocket -e 'socket(my $s, AF_UNIX, SOCK_STREAM, 0); bind($s, pack_sockaddr_un(\"socket\"))'";
    assert!(run(&mut *session, line).success());
    fails(&mut *session, "mknod null c 1 3");
    for path in ["pipe", "link", "zero", "socket", "d"] {
        let error = session.read_file(Path::new(path)).unwrap_err();
        assert_eq!(error.advice(), Advice::Refused, "{path}: {error}");
    }
    let copied = session.copy_out(Path::new(""), &dir.path().join("out")).unwrap();
    assert_eq!((copied.files, copied.skipped), (1, 5));
    let other =
        session.list(Path::new("")).unwrap().entries.iter().filter(|entry| entry.kind == Kind::Other).count();
    assert_eq!(other, 2);
    // What is written replaces what is there, and waits for no reader.
    session.write_file(Path::new("pipe"), b"file now").unwrap();
    assert_eq!(session.read_file(Path::new("pipe")).unwrap(), b"file now");
    let snapshot = session.snapshot().unwrap();
    session.reset(&snapshot).unwrap();
}

pub fn names_are_only_names(backend: &dyn Backend) {
    let dir = tempfile::tempdir().unwrap();
    let mut session = open(backend);
    let names: [&[u8]; 5] = [
        b"two\nlines",
        b"\xff\xfe not utf-8",
        b"-rf",
        b"$(touch ran)`touch ran`;'\"",
        b"--checkpoint-action=exec=sh",
    ];
    for name in names {
        session.write_file(Path::new(OsStr::from_bytes(name)), name).unwrap();
    }
    let listing = session.list(Path::new("")).unwrap();
    let mut seen: Vec<&[u8]> = listing.entries.iter().map(|entry| entry.name.as_bytes()).collect();
    let mut expected = names.to_vec();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
    let snapshot = session.snapshot().unwrap();
    session.reset(&snapshot).unwrap();
    let copied = session.copy_out(Path::new(""), &dir.path().join("out")).unwrap();
    assert_eq!((copied.files, copied.skipped), (5, 0));
    for name in names {
        assert_eq!(session.read_file(Path::new(OsStr::from_bytes(name))).unwrap(), name);
    }
}

pub fn many_files_and_deep_folders_are_bounded(backend: &dyn Backend) {
    let dir = tempfile::tempdir().unwrap();
    let mut session = open(backend);
    let many = "mkdir many && cd many && perl -e 'for (1..30000) { open my $f, q(>), $_ or die }'; cd ..; \
                perl -e 'for (1..3000) { mkdir q(deep) or die $!; chdir q(deep) or die $! }'";
    let ran = run(&mut *session, many);
    assert!(ran.success(), "{ran:?}");
    let listing = session.list(Path::new("many")).unwrap();
    assert_eq!((listing.entries.len(), listing.cut), (10_000, true));
    let copied = session.copy_out(Path::new(""), &dir.path().join("out")).unwrap();
    assert_eq!((copied.files, copied.skipped), (30_000, 1));
    let empty = { open(backend).snapshot().unwrap() };
    let snapshot = session.snapshot().unwrap();
    session.reset(&empty).unwrap();
    assert_eq!(session.list(Path::new("")).unwrap().entries, []);
    session.reset(&snapshot).unwrap();
    assert!(run(&mut *session, "test -e many/30000 && test -d deep/deep/deep").success());
}

pub fn the_disk_has_an_end(backend: &dyn Backend) {
    let limits = Limits { disk_bytes: 8 << 20, file_bytes: 3 << 20, ..Limits::default() };
    let mut session = backend.open(&Spec { limits, ..Spec::default() }).unwrap();
    let fill = |dir: &str| {
        format!(
            "i=0; while [ $i -lt 8 ]; do head -c 2097152 /dev/zero > {dir}/f$i || exit 5; i=$((i+1)); done"
        )
    };
    for dir in ["/workspace", "/tmp", "/dev/shm", "/home/agent", "/logs/agent"] {
        let ran = run(&mut *session, &fill(dir));
        assert_eq!(ran.ending, Ending::Exited(5), "{dir}: {ran:?}");
        assert!(ran.stderr.text().contains("No space left"), "{dir}: {ran:?}");
        let ran = run(&mut *session, &format!("du -sk {dir}; rm {dir}/f*"));
        let kib: u64 = ran.stdout.text().split_whitespace().next().unwrap().parse().unwrap();
        assert!(kib <= 8 << 10, "{ran:?}");
    }
    // One file, and one that is all holes.
    fails(&mut *session, "head -c 4194304 /dev/zero > big");
    fails(&mut *session, "truncate -s 1T holes");
    run(&mut *session, "rm -f big holes");
    // A full disk is an answer, and a session that goes on.
    run(&mut *session, &fill("/workspace"));
    assert!(matches!(session.write_file(Path::new("g"), &vec![1; 4 << 20]), Err(SandboxError::Carry { .. })));
    still_works(&mut *session);
    let snapshot = session.snapshot().unwrap();
    session.reset(&snapshot).unwrap();
    assert!(run(&mut *session, "test -s f0 && rm f*").success());
    session.write_file(Path::new("g"), b"fits").unwrap();
}
