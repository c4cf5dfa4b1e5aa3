//! What holds of bubblewrap alone: root file systems, refusals, and the end of a supervisor.

mod host;

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    process::Command,
};

use openclaw_sandbox::{Advice, Backend, Bubblewrap, Exec, Limits, Root, SandboxError, Spec};

use host::{Host, MINUTE, eventually, image::copy_program, open, with_marker};

const DIR: &str = "OPENCLAW_SANDBOX_TEST_DIR";

#[test]
#[ignore = "it is started, and killed, by the next one"]
fn a_supervisor() {
    let Some(dir) = env::var_os(DIR) else { return };
    let mut session = open(&Bubblewrap::new(65534, PathBuf::from(dir)));
    let _kept = session.snapshot().unwrap();
    session.shell("(setsid sleep 7201.5 &); sleep 7201.5 &", MINUTE).unwrap();
    host::supervise();
}

#[test]
fn a_killed_supervisor_takes_its_sandboxes_along() {
    let Some((host, backend)) = Host::bubblewrap() else { return };
    // What others on this machine have left.
    backend.sweep();
    let mut supervisor = host::supervisor(&[(DIR, &backend.dir)]);
    eventually("its jobs run", || with_marker("sleep\x007201.5") == 2);
    assert_eq!(backend.sweep(), 0, "it lives");
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    eventually("its jobs are gone", || with_marker("7201.5") == 0);
    // Its folder, its snapshot, and where there are control groups, those.
    let mut swept = 0;
    eventually("it is swept", || {
        swept += backend.sweep();
        fs::read_dir(&backend.dir).unwrap().next().is_none()
    });
    assert!(swept >= 2, "{swept}");
    host.leaves_nothing();
}

#[test]
fn a_root_file_system_is_all_there_is() {
    let Some((host, backend)) = Host::bubblewrap() else { return };
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for program in ["sh", "cat", "ls"] {
        copy_program(program, dir.path());
    }
    symlink("usr/bin", dir.path().join("bin")).unwrap();
    fs::create_dir(dir.path().join("etc")).unwrap();
    fs::write(dir.path().join("etc/release"), "small").unwrap();
    fs::write(dir.path().join("etc/shadow"), "secret").unwrap();
    let mut session =
        backend.open(&Spec { root: Root::Folder(dir.path().into()), ..Spec::default() }).unwrap();
    let ran = session
        .exec(&Exec::line("cat /etc/release; ls /usr/bin; echo x > a && cat a; cat /etc/shadow"))
        .unwrap();
    assert_eq!(ran.stdout.text(), "smallcat\nls\nsh\nx\n", "{ran:?}");
    assert!(!ran.success());
    // Without bash the shell is a plain one.
    assert!(session.shell("cd /tmp; x=1", MINUTE).unwrap().success());
    let ran = session.shell("echo $x; ls -d $PWD", MINUTE).unwrap();
    assert_eq!(ran.stdout.text(), "1\n/tmp\n", "{ran:?}");
    session.close().unwrap();
    host.leaves_nothing();
}

#[test]
fn root_is_refused() {
    let Some((host, backend)) = Host::bubblewrap() else { return };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let error = Bubblewrap::new(0, &backend.dir).open(&Spec::default()).err().unwrap();
    assert_eq!(error.advice(), Advice::Refused);
    let SandboxError::Missing { missing } = error else { panic!("{error}") };
    assert_eq!(missing, ["unprivileged user: commands would run as root: choose another user"]);
    host.leaves_nothing();
}

#[test]
fn a_share_of_a_processor_is_enforced() {
    let Some((host, backend)) = Host::bubblewrap() else { return };
    let grouped = backend.probe().iter().any(|check| check.name == "control groups" && check.ok);
    if grouped {
        let limits = Limits { cpu_percent: Some(10), ..Limits::default() };
        let mut session = backend.open(&Spec { limits, ..Spec::default() }).unwrap();
        assert!(session.shell("while :; do :; done &", MINUTE).unwrap().success());
        let throttled = || {
            host.groups().iter().any(|group| {
                let stat = fs::read_to_string(group.join("cpu.stat")).unwrap_or_default();
                stat.lines().any(|line| line.strip_prefix("nr_throttled ").is_some_and(|count| count != "0"))
            })
        };
        eventually("it is held back", throttled);
        session.close().unwrap();
    }
    host.leaves_nothing();
}

#[test]
fn a_base_that_died_is_told() {
    let Some((host, backend)) = Host::bubblewrap() else { return };
    let mut session = open(&backend);
    assert!(session.shell("sleep 7202.5 &", MINUTE).unwrap().success());
    for child in host.children() {
        let _ = Command::new("kill").args(["-9", &child]).status().unwrap();
    }
    eventually("it is gone", || with_marker("7202.5") == 0);
    let error = session.exec(&Exec::line("true")).err().unwrap();
    assert_eq!(error.advice(), Advice::NewSession, "{error}");
    session.close().unwrap();
    host.leaves_nothing();
}
