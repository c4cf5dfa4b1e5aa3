//! What this host can do, found by doing it.

use std::{
    ffi::OsString,
    process::{Command, Stdio},
    thread,
};

use landlock::LandlockStatus;

use super::{
    Bubblewrap, find_program,
    keeper::{self, Keeper},
    process,
};
use crate::{
    Check,
    cgroup::Cgroups,
    running::{Running as _, is_readable},
    seccomp,
};

/// By name, with what the check of namespaces needs last.
pub(super) fn checks(backend: &Bubblewrap) -> Vec<Check> {
    let mut all = vec![bubblewrap()];
    for (name, package) in
        [("bash", "bash"), ("tar", "tar"), ("find", "findutils"), ("nsenter", "util-linux")]
    {
        all.push(program(name, package));
    }
    let complete = all.iter().all(|check| check.ok);
    all.push(isolation(backend, complete));
    all.push(user(backend));
    let (ok, detail) = Cgroups::find().describe();
    all.push(Check { name: "control groups", ok, detail, needed: false });
    all.push(landlock());
    all
}

fn program(name: &'static str, package: &str) -> Check {
    match find_program(name) {
        Some(path) => Check { name, ok: true, detail: path.display().to_string(), needed: true },
        None => Check { name, ok: false, detail: format!("not installed: install {package}"), needed: true },
    }
}

fn bubblewrap() -> Check {
    let name = "bubblewrap";
    let Some(path) = find_program("bwrap") else {
        return Check {
            name,
            ok: false,
            detail: "bwrap is not installed: install bubblewrap".into(),
            needed: true,
        };
    };
    let said = Command::new(&path).arg("--version").env_clear().stdin(Stdio::null()).output();
    let version =
        said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let number = version.split(' ').nth(1).unwrap_or_default();
    let mut parts = number.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    // --disable-userns, --args and --json-status-fd together.
    let ok = (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (0, 8);
    let detail = if ok { version } else { format!("{number} is older than 0.8") };
    Check { name, ok, detail, needed: true }
}

/// All of it at once, as commands have it: namespaces, no more of them inside, the filter of system calls.
fn isolation(backend: &Bubblewrap, complete: bool) -> Check {
    let name = "namespaces and seccomp";
    let check = |ok, detail: String| Check { name, ok, detail, needed: true };
    if !complete {
        return check(false, "cannot be tried without the above".into());
    }
    let tried = Keeper::new().map_err(|error| error.to_string()).and_then(|keeper| {
        let bwrap = find_program("bwrap").unwrap_or_default().into_os_string();
        let options = "--unshare-all --unshare-user --disable-userns --cap-drop ALL --die-with-parent --new-session \
                       --clearenv --ro-bind / / --proc /proc --dev /dev";
        let mut running = process::Launch {
            keeper: &keeper,
            bwrap: &bwrap,
            inside: None,
            options: options.split_whitespace().map(OsString::from).collect(),
            words: vec!["sh".into(), "-c".into(), "cat >/dev/null".into()],
            seccomp: &seccomp::program(),
            group: None,
            rlimits: &[],
            user: backend.becomes(),
            stdin: Stdio::null(),
            stdout: Stdio::null(),
        }
        .start()
        .map_err(|error| error.to_string())?;
        is_readable(running.end(), std::time::Duration::from_secs(60));
        let mut said = String::new();
        let stderr = running.stderr.take();
        match running.finish() {
            Some(0) => Ok(()),
            _ => {
                if let Some(mut stderr) = stderr {
                    let _ = std::io::Read::read_to_string(&mut stderr, &mut said);
                }
                Err(said.trim().to_owned())
            }
        }
    });
    match tried {
        Ok(()) => check(true, "work".into()),
        Err(why) => check(false, format!("{why}; are user namespaces allowed to unprivileged users?")),
    }
}

/// Root behind a user namespace is still root.
fn user(backend: &Bubblewrap) -> Check {
    let (ok, detail) = match backend.becomes() {
        Some(0) => (false, "commands would run as root: choose another user".into()),
        Some(user) => (true, format!("becomes user {user}")),
        None => (true, format!("stays user {}", rustix::process::geteuid().as_raw())),
    };
    Check { name: "unprivileged user", ok, detail, needed: true }
}

fn landlock() -> Check {
    // It binds the thread that asks.
    let status = thread::spawn(|| keeper::restrict().map(|status| status.landlock)).join();
    let (ok, detail) = match status {
        Ok(Ok(LandlockStatus::Available { effective_abi, .. })) => {
            let abi = effective_abi as i32;
            (abi >= 6, format!("ABI {abi}; signals and abstract sockets are fenced from 6 on"))
        }
        _ => (false, "not in this kernel".into()),
    };
    Check { name: "landlock", ok, detail, needed: false }
}
