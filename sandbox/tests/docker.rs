//! What every backend promises and what untrusted code tries, of docker and against it, by a daemon of the test's own.

#[path = "attacks/mod.rs"]
mod attempts;
mod host;
#[path = "conformance/mod.rs"]
mod promises;

use std::{env, fs};

use openclaw_sandbox::{Advice, Backend, Docker, Exec, Root, SandboxError, Spec};

use host::{Host, MINUTE, daemon::IMAGE, eventually, open, with_marker};

every_promise!(docker);
every_attempt!(docker);

const DIR: &str = "OPENCLAW_SANDBOX_TEST_DIR";
const SOCKET: &str = "OPENCLAW_SANDBOX_TEST_SOCKET";

#[test]
#[ignore = "it is started, and killed, by the next one"]
fn a_supervisor() {
    let (Some(dir), Some(socket)) = (env::var_os(DIR), env::var_os(SOCKET)) else { return };
    let mut backend = Docker::new(socket, IMAGE);
    backend.dir = dir.into();
    let mut session = open(&backend);
    let _kept = session.snapshot().unwrap();
    assert!(session.exec(&Exec::line("true")).unwrap().success());
    session.shell("(setsid sleep 7301.5 &); sleep 7301.5 &", MINUTE).unwrap();
    host::supervise();
}

#[test]
fn a_killed_supervisor_takes_its_containers_along() {
    let Some((host, backend)) = Host::docker() else { return };
    let mut supervisor = host::supervisor(&[(DIR, &backend.dir), (SOCKET, &backend.socket)]);
    eventually("its jobs run", || with_marker("sleep\x007301.5") == 2);
    assert_eq!(backend.sweep(), 0, "it lives");
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    // Nobody sweeps them.
    eventually("its jobs are gone", || with_marker("7301.5") == 0);
    eventually("its snapshot is swept", || {
        backend.sweep();
        fs::read_dir(&backend.dir).unwrap().next().is_none()
    });
    host.leaves_nothing();
}

#[test]
fn a_base_that_died_is_told() {
    let Some((host, backend)) = Host::docker() else { return };
    let mut session = open(&backend);
    assert!(session.shell("sleep 7302.5 &", MINUTE).unwrap().success());
    host::daemon::kill_all();
    eventually("it is gone", || with_marker("7302.5") == 0);
    let error = session.exec(&Exec::line("true")).err().unwrap();
    assert_eq!(error.advice(), Advice::NewSession, "{error}");
    session.close().unwrap();
    host.leaves_nothing();
}

#[test]
fn a_root_is_an_image_that_is_there() {
    let Some((host, backend)) = Host::docker() else { return };
    let with_root = |root| Spec { root, ..Spec::default() };
    let mut session = backend.open(&with_root(Root::Image(IMAGE.into()))).unwrap();
    assert!(session.exec(&Exec::line("true")).unwrap().success());
    session.close().unwrap();
    let error = backend.open(&with_root(Root::Folder("/usr".into()))).err().unwrap();
    assert_eq!(error.advice(), Advice::Refused, "{error}");
    for absent in [
        backend.open(&with_root(Root::Image("no-such-image".into()))),
        Docker::new(&backend.socket, "no-such-image").open(&Spec::default()),
        Docker::new("/no/such/socket", IMAGE).open(&Spec::default()),
    ] {
        let error = absent.err().unwrap();
        assert!(matches!(error, SandboxError::Missing { .. }) && error.to_string().contains("no"), "{error}");
    }
    host.leaves_nothing();
}
