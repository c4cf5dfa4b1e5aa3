//! What untrusted code tries, and what it gets.

/// A test of each, of a backend.
#[macro_export]
macro_rules! every_attempt {
    ($backend:ident) => {
        $crate::claims! { $backend, attempts:
            files_of_the_host_cannot_be_read,
            nothing_outside_the_disk_can_be_written,
            the_environment_of_the_supervisor_is_not_there,
            no_descriptor_is_inherited,
            processes_of_the_host_cannot_be_seen_or_ended,
            there_is_no_network,
            a_fork_bomb_ends_with_its_time,
            a_memory_bomb_is_killed,
            the_disk_has_an_end,
            an_endless_output_is_cut,
            nothing_survives_to_change_a_verdict,
            no_kinship_saves_a_process,
            no_namespace_is_made_inside,
            other_processes_cannot_be_traced,
            a_link_leads_nowhere,
            what_blocks_a_reader_is_not_read,
            names_are_only_names,
            many_files_and_deep_folders_are_bounded,
            the_first_process_is_no_way_out,
        }
    };
}

mod files;

use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use openclaw_sandbox::{Backend, Ending, Exec, Limits, Ran, Session, Spec, Workspace};

pub use self::files::*;
use crate::host::{MINUTE, SHORT, eventually, open, with_marker};

/// What no attacker may ever see.
const SECRET: &str = "the-secret-of-the-host";

fn run(session: &mut dyn Session, line: &str) -> Ran {
    session.exec(&Exec::line(line)).unwrap()
}

/// A line whose output something else may hold open: with docker it takes the time that it has.
fn run_to_the_end(session: &mut dyn Session, line: &str) -> Ran {
    session.exec(&Exec::line(line).timeout(Duration::from_secs(5))).unwrap()
}

/// The line ran and failed, for no missing tool's sake, and learnt nothing.
#[track_caller]
fn fails(session: &mut dyn Session, line: &str) -> Ran {
    let ran = run(session, line);
    let code = ran.exit_code();
    assert!(code.is_some_and(|code| code != 0 && code != 127), "{line}: {ran:?}");
    assert!(!ran.stdout.text().contains(SECRET) && !ran.stderr.text().contains(SECRET), "{line}: {ran:?}");
    ran
}

/// A system call by its number answers EPERM.
#[track_caller]
fn forbidden(session: &mut dyn Session, call: &str) {
    // EPERM is 1; what is not there would be ENOSYS.
    // The numbers are this machine's.
    if cfg!(not(target_arch = "x86_64")) {
        return;
    }
    let line = format!("perl -e 'my $r = syscall({call}); exit($r == -1 && $!{{EPERM}} ? 0 : 1 + ($!+0))'");
    let ran = run(session, &line);
    assert!(ran.success(), "{call}: {ran:?}");
}

/// The session still does what it is asked.
#[track_caller]
fn still_works(session: &mut dyn Session) {
    let ran = run(session, "echo works");
    assert_eq!((ran.ending, ran.stdout.text().as_ref()), (Ending::Exited(0), "works\n"), "{ran:?}");
}

pub fn files_of_the_host_cannot_be_read(backend: &dyn Backend) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let user_home = PathBuf::from(std::env::var_os("HOME").unwrap_or("/tmp".into()));
    let home = tempfile::tempdir_in(&user_home).unwrap();
    let mut session = open(backend);
    for folder in [dir.path(), home.path()] {
        let secret = folder.join("secret");
        fs::write(&secret, SECRET).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
        fails(&mut *session, &format!("cat {}", secret.display()));
        for pid in ["1", "2", "self", "$$"] {
            fails(&mut *session, &format!("cat /proc/{pid}/root{0} /proc/{pid}/cwd{0}", secret.display()));
        }
    }
    let profile = user_home.join(".bashrc");
    fails(&mut *session, &format!("cat {0} || ls {0}/*", profile.display()));
    for path in [
        "/etc/shadow",
        "/etc/gshadow",
        "/var/lib/dpkg/status",
        "/sys/class",
        "/run",
        "/boot",
        "/dev/kvm",
        "/dev/mem",
        "/dev/vda",
        "/proc/kcore",
    ] {
        fails(&mut *session, &format!("{{ cat {path} || ls {path}/*; }} | grep -q ."));
    }
    // Nothing that lies on a disk of the host can be written.
    fails(&mut *session, "touch /usr/bin/x /usr/x");
    let found = run(&mut *session, "find / -xdev -name secret 2>/dev/null; find / -name '.ssh' 2>/dev/null");
    assert_eq!(found.stdout.text(), "");
}

pub fn nothing_outside_the_disk_can_be_written(backend: &dyn Backend) {
    let mut session = open(backend);
    for path in [
        "/x",
        "/etc/x",
        "/etc/passwd",
        "/usr/x",
        "/dev/x",
        "/home/x",
        "/proc/x",
        "/proc/sys/kernel/hostname",
        "/proc/sysrq-trigger",
    ] {
        fails(&mut *session, &format!("echo x > {path}"));
    }
    fails(&mut *session, "mkdir /a");
    fails(&mut *session, "ln -s /tmp /home/b");
    let places = run(
        &mut *session,
        "for d in /workspace /tmp /home/agent /logs /dev/shm; do echo x > $d/x || exit; done",
    );
    assert!(places.success(), "{places:?}");
}

pub fn the_environment_of_the_supervisor_is_not_there(backend: &dyn Backend) {
    let mut session = open(backend);
    assert!(std::env::vars().any(|(name, _)| name == "CARGO_MANIFEST_DIR"), "there is something to be seen");
    for ran in [
        run(&mut *session, "env; cat /proc/*/environ | tr '\\0' '\\n'; cat /proc/*/cmdline"),
        session.shell("env; cat /proc/*/environ | tr '\\0' '\\n'; cat /proc/*/cmdline", MINUTE).unwrap(),
    ] {
        let text = ran.stdout.text();
        assert!(text.contains("HOME=/home/agent"), "{ran:?}");
        assert!(
            !text.contains("CARGO") && !text.contains("RUST") && !text.contains("openclaw-sandbox"),
            "{ran:?}"
        );
    }
}

pub fn no_descriptor_is_inherited(backend: &dyn Backend) {
    // As a library might have opened it.
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(SECRET.as_bytes()).unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let mut session = open(backend);
    let ran = run(&mut *session, "exec ls /proc/self/fd");
    assert_eq!(ran.stdout.text(), "0\n1\n2\n3\n", "the last is the folder itself");
    let ran = run_to_the_end(
        &mut *session,
        "for fd in /proc/[0-9]*/fd/*; do cat $fd < /dev/null & done; wait; readlink /proc/[0-9]*/fd/*",
    );
    assert!(!ran.stdout.text().contains(SECRET) && !ran.stdout.text().contains("memfd"), "{ran:?}");
    let ran = session.shell("readlink /proc/[0-9]*/fd/*", MINUTE).unwrap();
    assert!(!ran.stdout.text().contains("memfd") && !ran.stdout.text().contains("deleted"), "{ran:?}");
}

pub fn processes_of_the_host_cannot_be_seen_or_ended(backend: &dyn Backend) {
    let mut session = open(backend);
    let mut other = open(backend);
    assert!(other.shell("sleep 7101.5 &", MINUTE).unwrap().success());
    eventually("another session's job runs", || with_marker("sleep\x007101.5") == 1);
    let seen = run(&mut *session, "ls -d /proc/[0-9]* | wc -l; cat /proc/[0-9]*/cmdline");
    let count: u32 = seen.stdout.text().lines().next().unwrap().parse().unwrap();
    assert!(count <= 5 && !seen.stdout.text().contains("7101.5"), "{seen:?}");
    // The user is the same, the namespace is not.
    run(&mut *session, "kill -9 -1");
    let own = std::process::id();
    fails(&mut *session, &format!("kill -9 {own}"));
    run(&mut *session, "for pid in $(seq 2 40000); do kill -9 $pid; done 2>/dev/null");
    assert_eq!(with_marker("sleep\x007101.5"), 1);
    still_works(&mut *session);
    still_works(&mut *other);
}

pub fn there_is_no_network(backend: &dyn Backend) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let any = TcpListener::bind("0.0.0.0:0").unwrap();
    let path = dir.path().join("socket");
    let by_path = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let name = format!("openclaw-attack-{}", std::process::id());
    let by_name = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let mut session = open(backend);
    for listener in [&tcp, &any] {
        let port = listener.local_addr().unwrap().port();
        fails(&mut *session, &format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'"));
    }
    for (address, call) in [("10.0.0.1", ""), ("169.254.169.254", "")] {
        fails(&mut *session, &format!("bash -c 'exec 3<>/dev/tcp/{address}/80' {call}"));
    }
    let connect = |path: &str| {
        format!(
            "perl -MSocket -e 'socket(my $s, AF_UNIX, SOCK_STREAM, 0) or exit 9; exit(connect($s, pack_sockaddr_un({path})) ? 0 : 2)'"
        )
    };
    fails(&mut *session, &connect(&format!("\"{}\"", path.display())));
    fails(&mut *session, &connect(&format!("\"\\0{name}\"")));
    // No socket to the hypervisor (40), no raw packets (17), no kernel cryptography (38).
    for family in [40, 17, 38, 44] {
        fails(&mut *session, &format!("perl -e 'exit(socket(my $s, {family}, 1, 0) ? 0 : 2)'"));
    }
    for listener in [&tcp, &any] {
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nobody came");
    }
    for listener in [&by_path, &by_name] {
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nobody came");
    }
    // Its own loopback works: a server and its client in one session.
    let line = "perl -MIO::Socket::INET -e 'my $l = IO::Socket::INET->new(Listen => 1, LocalAddr => \"127.0.0.1:8000\") or die; \
                if (fork) { my $c = $l->accept; print <$c> } else { my $c = IO::Socket::INET->new(\"127.0.0.1:8000\"); print $c \"hello\" }'";
    let ran = run(&mut *session, line);
    assert_eq!(ran.stdout.text(), "hello", "{ran:?}");
}

pub fn a_fork_bomb_ends_with_its_time(backend: &dyn Backend) {
    let limits = Limits { processes: 40, ..Limits::default() };
    let mut session = backend.open(&Spec { limits, ..Spec::default() }).unwrap();
    for line in [
        "bash -c 'f() { f 7102.5 | f 7102.5 & }; f; wait; sleep 7102.5'",
        "perl -e 'while (1) { fork; $0 = q(7102.5) }'",
    ] {
        let ran = session.exec(&Exec::line(line).timeout(SHORT)).unwrap();
        assert_eq!(ran.ending, Ending::TimedOut, "{line}");
        assert_eq!(with_marker("7102.5"), 0);
        still_works(&mut *session);
    }
    // Files can be carried out all the same while it runs.
    assert!(
        session
            .shell("f() { f 7106.5 | f 7106.5 & }; f; for i in $(seq 60); do sleep 7106.5 & done", SHORT)
            .is_ok()
    );
    session.snapshot().unwrap();
    session.write_file(Path::new("x"), b"x").unwrap();
    session.stop_all().unwrap();
    assert_eq!(with_marker("7106.5"), 0);
    let ran = session.shell("f() { f | f & }; f; sleep 7102.5", SHORT).unwrap();
    assert_eq!(ran.ending, Ending::TimedOut);
    assert_eq!(with_marker("7102.5"), 0);
    assert!(session.shell("true", MINUTE).unwrap().success());
    // It is counted together: what the shell has, a command cannot have.
    let line = "perl -e 'my $n = 0; while ($n < 100) { my $p = fork; last unless defined $p; if (!$p) { sleep 60; exit } $n++ } print $n'";
    let ran = run(&mut *session, line);
    let forked: u32 = ran.stdout.text().parse().unwrap();
    assert!(forked < 40, "{forked} processes");
}

pub fn a_memory_bomb_is_killed(backend: &dyn Backend) {
    let limits = Limits { memory_bytes: 64 << 20, disk_bytes: 16 << 20, ..Limits::default() };
    let mut session = backend.open(&Spec { limits, ..Spec::default() }).unwrap();
    let ran = run(&mut *session, "perl -e 'my @a; push @a, \"x\" x 1048576 while 1'");
    assert!(!ran.success() && ran.exit_code() != Some(127), "{ran:?}");
    still_works(&mut *session);
    // Many small ones are counted together, where there are control groups.
    let many = "for n in 1 2 3 4 5 6; do perl -e 'my $a = \"x\" x (30 << 20); sleep 2; print \"held\\n\"' & done; wait";
    let ran = run(&mut *session, many);
    let grouped = backend.probe().iter().any(|check| check.name == "control groups" && check.ok);
    assert!(!grouped || ran.out_of_memory && ran.stdout.text().lines().count() < 6, "{ran:?}");
    let ran = session.shell("perl -e 'my @a; push @a, \"x\" x 1048576 while 1'; echo on", MINUTE).unwrap();
    assert!(ran.shell_lost || ran.stdout.text() == "on\n", "{ran:?}");
    assert!(session.shell("true", MINUTE).unwrap().success());
}

pub fn an_endless_output_is_cut(backend: &dyn Backend) {
    let mut session = open(backend);
    let kept = 64 << 10;
    for line in ["yes", "yes >&2", "cat /dev/zero"] {
        let ran = session.exec(&Exec::line(line).timeout(SHORT)).unwrap();
        let (out, err) = (&ran.stdout, &ran.stderr);
        assert_eq!(ran.ending, Ending::TimedOut, "{line}");
        assert_eq!(out.head.len().max(err.head.len()) + out.tail.len().max(err.tail.len()), kept);
        assert!(out.dropped_bytes + err.dropped_bytes > 0);
        let ran = session.shell(line, SHORT).unwrap();
        assert_eq!(ran.ending, Ending::TimedOut, "{line}");
        assert!(ran.stdout.head.len() + ran.stdout.tail.len() <= kept);
    }
    // A job that writes for ever, after its line has ended, holds nobody up.
    assert!(session.shell("yes &", MINUTE).unwrap().success());
    assert!(session.shell("true", MINUTE).unwrap().success());
    session.stop_all().unwrap();
    assert!(session.shell("true", MINUTE).unwrap().success());
}

pub fn nothing_survives_to_change_a_verdict(backend: &dyn Backend) {
    let mut session = open(backend);
    session.write_file(Path::new("answer"), b"wrong").unwrap();
    let tamper = "(setsid sh -c 'while :; do echo right > answer; done' 7103.5 &) ; sleep 0.1";
    assert!(session.shell(tamper, MINUTE).unwrap().success());
    eventually("it tampers", || {
        session.read_file(Path::new("answer")).is_ok_and(|bytes| bytes == b"right\n")
    });
    session.stop_all().unwrap();
    assert_eq!(with_marker("7103.5"), 0);
    session.write_file(Path::new("answer"), b"wrong").unwrap();
    assert!(run(&mut *session, "sleep 0.2; cat answer").stdout.text() == "wrong");
    // The grader is another session over the same files, with tests nobody could write to.
    assert!(session.shell(tamper, MINUTE).unwrap().success());
    let end = session.snapshot().unwrap();
    session.close().unwrap();
    assert_eq!(with_marker("7103.5"), 0);
    let tests = tempfile::tempdir().unwrap();
    fs::write(tests.path().join("test.sh"), "test -e answer && echo 1 > /logs/verifier/reward.txt").unwrap();
    let read_only = [("/tests".into(), tests.path().into())].into();
    let mut grader =
        backend.open(&Spec { workspace: Workspace::Snapshot(end), read_only, ..Spec::default() }).unwrap();
    assert!(run(&mut *grader, "sh /tests/test.sh; cat /logs/verifier/reward.txt").success());
}

pub fn no_kinship_saves_a_process(backend: &dyn Backend) {
    if cfg!(not(target_arch = "x86_64")) {
        return;
    }
    let mut session = open(backend);
    // clone with CLONE_PARENT: a child of whoever has started the command.
    let kin =
        "perl -e 'if (syscall(56, 0x8011, 0, 0, 0, 0) == 0) { exec q(sleep), q(7107.5) } print q(done)'";
    let ran = run_to_the_end(&mut *session, kin);
    assert_eq!(ran.stdout.text(), "done", "{ran:?}");
    assert_eq!(with_marker("7107.5"), 0);
    still_works(&mut *session);
}

pub fn no_namespace_is_made_inside(backend: &dyn Backend) {
    let mut session = open(backend);
    for line in [
        "unshare -Ur true",
        "unshare -m true",
        "unshare -n true",
        "nsenter -t 1 -m true",
        "mount -t tmpfs x /tmp",
        "umount /workspace",
        "mount --bind /tmp /usr",
        "chroot / true",
    ] {
        fails(&mut *session, line);
    }
    // unshare of a user namespace, clone of one, mount, setns, pivot_root, move_mount, fsopen.
    for call in [
        "272, 0x10000000",
        "56, 0x10000011, 0, 0, 0, 0",
        "165, 0, 0, 0, 0, 0",
        "308, 0, 0",
        "155, 0, 0",
        "429, 0, 0, 0, 0, 0",
        "430, 0, 0",
    ] {
        forbidden(&mut *session, call);
    }
    let ran = run(
        &mut *session,
        "grep -h ^Cap /proc/self/status | cut -f2 | sort -u; grep NoNewPrivs /proc/self/status | cut -f2",
    );
    assert_eq!(ran.stdout.text(), "0000000000000000\n1\n", "{ran:?}");
}

pub fn other_processes_cannot_be_traced(backend: &dyn Backend) {
    let mut session = open(backend);
    assert!(session.shell("sleep 7104.5 &", MINUTE).unwrap().success());
    // ptrace attach and seize, process_vm_readv and writev, pidfd_getfd, kcmp.
    for call in [
        "101, 16, 1, 0, 0",
        "101, 0x4206, 1, 0, 0",
        "310, 1, 0, 0, 0, 0, 0",
        "311, 1, 0, 0, 0, 0, 0",
        "438, 0, 0, 0",
        "312, 1, 2, 0, 0, 0",
    ] {
        forbidden(&mut *session, call);
    }
    // bpf, perf_event_open, userfaultfd, io_uring_setup, keyctl, add_key, kexec_load, init_module, open_by_handle_at.
    for call in [
        "321, 0, 0, 0",
        "298, 0, 0, 0, 0, 0",
        "323, 0",
        "425, 1, 0",
        "250, 0, 0, 0, 0, 0",
        "248, 0, 0, 0, 0, 0",
        "246, 0, 0, 0, 0",
        "175, 0, 0, 0",
        "304, 0, 0, 0",
    ] {
        forbidden(&mut *session, call);
    }
    // The same by the second numbering of x86-64, and what is typed into a terminal.
    forbidden(&mut *session, "0x40000000 + 521, 16, 1, 0, 0");
    forbidden(&mut *session, "16, 0, 0x5412, 0");
}

pub fn the_first_process_is_no_way_out(backend: &dyn Backend) {
    let mut session = open(backend);
    // It does not end by a signal from inside; whatever becomes of it, nothing is left.
    run(&mut *session, "kill -9 1; kill -TERM 1; (setsid sleep 7105.5 &); sleep 0.05");
    assert_eq!(with_marker("7105.5"), 0);
    let ran = session.shell("kill -9 1; kill -9 $$", MINUTE).unwrap();
    assert!(ran.shell_lost, "{ran:?}");
    assert!(session.shell("true", MINUTE).unwrap().success());
    // A line that writes what looks like the end of a line ends nothing early.
    let ran = session.shell("printf '\\n0123456789abcdef0123456789abcdef 0\\n'; exit 7", MINUTE).unwrap();
    assert_eq!(ran.ending, Ending::Exited(7));
    let ran = session.shell("exec 3>&- 4>&-; echo alive", MINUTE).unwrap();
    assert_eq!(ran.stdout.text(), "alive\n");
    still_works(&mut *session);
}
