//! What every backend promises.

/// A test of each, of a backend.
#[macro_export]
macro_rules! every_promise {
    ($backend:ident) => {
        $crate::claims! { $backend, promises:
            a_command_says_how_it_ended,
            a_command_has_its_input_environment_and_folder,
            a_long_output_keeps_its_ends,
            a_command_over_its_time_is_gone_with_all_it_started,
            the_shell_persists,
            a_line_over_its_time_leaves_the_shell,
            a_slow_shell_comes_back,
            files_are_written_read_and_listed,
            folders_go_in_and_out,
            a_socket_inside_is_reached_and_no_other,
            the_workspace_has_more_names,
            a_snapshot_is_the_workspace_again,
            a_workspace_that_was_shut_is_still_packed,
            an_interrupt_ends_what_runs,
            a_program_goes_on_until_it_is_ended,
            a_closed_session_is_closed,
            sixteen_sessions_at_once,
            a_session_moves_between_threads,
            what_cannot_be_is_refused_at_once,
        }
    };
}

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
    thread,
    time::Duration,
};

use openclaw_sandbox::{
    Advice, Backend, Command, Ending, Exec, Kind, Limits, SandboxError, Session, Spec, Workspace,
};

use crate::host::{MINUTE, SHORT, eventually, open, with_marker};

/// Runs a line that must succeed.
#[track_caller]
fn says(session: &mut dyn Session, line: &str) -> String {
    let ran = session.exec(&Exec::line(line)).unwrap();
    assert!(ran.success(), "{line}: {ran:?}");
    ran.stdout.text().trim_end().to_owned()
}

/// Runs a line of the shell that must succeed.
#[track_caller]
fn told(session: &mut dyn Session, line: &str) -> String {
    let ran = session.shell(line, MINUTE).unwrap();
    assert!(ran.success() && !ran.shell_lost, "{line}: {ran:?}");
    ran.stdout.text().trim_end().to_owned()
}

pub fn a_command_says_how_it_ended(backend: &dyn Backend) {
    let mut session = open(backend);
    for (line, code) in [("true", 0), ("exit 3", 3), ("kill -TERM $$", 143), ("no-such-program", 127)] {
        let ran = session.exec(&Exec::line(line)).unwrap();
        assert_eq!(ran.ending, Ending::Exited(code), "{line}: {ran:?}");
    }
    let ran = session.exec(&Exec::argv(["printf", "%s|", "a b", "", "c\nd"])).unwrap();
    assert_eq!(ran.stdout.text(), "a b||c\nd|");
    let mut nowhere = Exec::line("true");
    nowhere.cwd = "no/such/folder".into();
    let ran = session.exec(&nowhere).unwrap();
    assert_eq!(ran.ending, Ending::NotStarted, "{ran:?}");
    assert!(ran.stderr.text().contains("no/such/folder"), "{ran:?}");
}

pub fn a_command_has_its_input_environment_and_folder(backend: &dyn Backend) {
    let spec =
        Spec { env: [("ONE".into(), "1".into()), ("TWO".into(), "x".into())].into(), ..Spec::default() };
    let mut session = backend.open(&spec).unwrap();
    let long: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    let ran = session.exec(&Exec::line("wc -c").stdin(long)).unwrap();
    assert_eq!(ran.stdout.text().trim(), "1000000");
    // Not all of what is offered need be read.
    assert!(session.exec(&Exec::line("true").stdin(vec![b'x'; 1_000_000])).unwrap().success());
    let mut exec = Exec::line("echo $ONE $TWO $HOME; pwd; mkdir -p deep && id -un");
    exec.env.insert("TWO".into(), "2 2".into());
    let ran = session.exec(&exec).unwrap();
    assert_eq!(ran.stdout.text(), "1 2 2 /home/agent\n/workspace\nagent\n");
    exec.command = Command::Line("pwd".into());
    exec.cwd = "deep".into();
    assert_eq!(session.exec(&exec).unwrap().stdout.text(), "/workspace/deep\n");
}

pub fn a_long_output_keeps_its_ends(backend: &dyn Backend) {
    let limits = Limits { output_bytes: 100, ..Limits::default() };
    let mut session = backend.open(&Spec { limits, ..Spec::default() }).unwrap();
    for shell in [false, true] {
        let line = "echo first; seq 100000 199999; echo last; echo error >&2";
        let ran = match shell {
            true => session.shell(line, MINUTE).unwrap(),
            false => session.exec(&Exec::line(line)).unwrap(),
        };
        assert!(
            ran.stdout.head.starts_with(b"first\n100000\n") && ran.stdout.tail.ends_with(b"199999\nlast\n")
        );
        assert_eq!(ran.stdout.dropped_bytes, 6 + 700_000 + 5 - 100);
        assert_eq!(ran.stderr.text(), "error\n");
    }
}

pub fn a_command_over_its_time_is_gone_with_all_it_started(backend: &dyn Backend) {
    let mut session = open(backend);
    let line = "sleep 7001.5 & (setsid sh -c 'sleep 7001.5 & sleep 7001.5' &) ; echo started; sleep 7001.5";
    let ran = session.exec(&Exec::line(line).timeout(SHORT)).unwrap();
    assert_eq!((ran.ending, ran.stdout.text().as_ref()), (Ending::TimedOut, "started\n"));
    assert_eq!(with_marker("7001.5"), 0);
    // One that ends in time takes its children along, too.
    let ran = session.exec(&Exec::line("(setsid sleep 7002.5 &) ; echo started")).unwrap();
    assert!(ran.success());
    assert_eq!(with_marker("7002.5"), 0);
}

pub fn the_shell_persists(backend: &dyn Backend) {
    let mut session = open(backend);
    told(&mut *session, "mkdir a && cd a && x='one two' && f() { echo \"f $1\"; }");
    assert_eq!(told(&mut *session, "pwd; echo \"$x\"; f 3"), "/workspace/a\none two\nf 3");
    told(&mut *session, "sleep 7003.5 &");
    eventually("the job runs", || with_marker("7003.5") == 1);
    assert_eq!(
        told(&mut *session, "cat <<END\nit's $x\nEND\nprintf 'no end of line'"),
        "it's one two\nno end of line"
    );
    assert_eq!(
        told(&mut *session, "echo 'hello!'; read line || echo nothing to read"),
        "hello!\nnothing to read"
    );
    let ran = session.shell("false", MINUTE).unwrap();
    assert_eq!((ran.ending, ran.shell_lost), (Ending::Exited(1), false));
    let ran = session.shell("echo 'open", MINUTE).unwrap();
    assert!(ran.exit_code().is_some_and(|code| code != 0) && !ran.shell_lost, "{ran:?}");
    // Wherever it sends its output, it comes back.
    assert_eq!(told(&mut *session, "echo 1; exec 5>&1 >/dev/null; echo 2"), "1");
    assert_eq!(told(&mut *session, "exec >&5 5>&-; pwd"), "/workspace/a");
    // Commands of the two kinds see the same files.
    told(&mut *session, "echo text > file");
    assert_eq!(says(&mut *session, "cat a/file"), "text");
    let ran = session.shell("exit 5", MINUTE).unwrap();
    assert_eq!((ran.ending, ran.shell_lost), (Ending::Exited(5), true));
    assert_eq!(told(&mut *session, "pwd; echo \"[$x]\""), "/workspace\n[]");
    assert_eq!(with_marker("7003.5"), 0);
}

pub fn a_line_over_its_time_leaves_the_shell(backend: &dyn Backend) {
    let mut session = open(backend);
    told(&mut *session, "cd /tmp; x=kept; sleep 7004.5 &");
    eventually("the job runs", || with_marker("7004.5") == 1);
    for line in [
        "sleep 7005.5",
        "while :; do :; done",
        "while :; do sleep 0.01; done",
        "cat /dev/zero | sleep 7005.5; sleep 7005.5",
        "(setsid sh -c 'sleep 7005.5 & sleep 7005.5' &); sh -c 'trap \"\" INT TERM; while :; do sleep 7005.5; done'",
        "wait",
    ] {
        let ran = session.shell(line, SHORT).unwrap();
        assert_eq!((ran.ending, ran.shell_lost), (Ending::TimedOut, false), "{line}: {ran:?}");
        assert_eq!((with_marker("7005.5"), with_marker("7004.5")), (0, 1), "{line}");
        assert_eq!(told(&mut *session, "pwd; echo $x"), "/tmp\nkept", "{line}");
    }
    // One that listens to nothing is lost, and says so. It has stopped to listen before its time runs.
    told(&mut *session, "trap '' INT");
    let ran = session.shell("while :; do :; done", SHORT).unwrap();
    assert_eq!((ran.ending, ran.shell_lost), (Ending::TimedOut, true));
    assert_eq!(told(&mut *session, "pwd; echo [$x]"), "/workspace\n[]");
}

pub fn a_slow_shell_comes_back(backend: &dyn Backend) {
    let mut session = open(backend);
    // Each prompt takes long, and an interrupt begins it anew.
    told(&mut *session, "x=kept; PROMPT_COMMAND='for i in {1..30000}; do :; done'");
    for _ in 0..2 {
        let ran = session.shell("sleep 7012.5", SHORT).unwrap();
        assert_eq!((ran.ending, ran.shell_lost), (Ending::TimedOut, false), "{ran:?}");
        assert_eq!(told(&mut *session, "echo $x"), "kept");
    }
}

pub fn files_are_written_read_and_listed(backend: &dyn Backend) {
    let mut session = open(backend);
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    session.write_file(Path::new("a/b c/-file"), &bytes).unwrap();
    assert_eq!(session.read_file(Path::new("a/b c/-file")).unwrap(), bytes);
    session.write_file(Path::new("a/b c/-file"), b"new").unwrap();
    assert_eq!(says(&mut *session, "cat 'a/b c/-file'; echo more >> 'a/b c/-file'"), "new");
    assert_eq!(session.read_file(Path::new("a/b c/-file")).unwrap(), b"newmore\n");
    says(&mut *session, "ln -s 'b c' a/link; mkfifo a/pipe; : > a/empty");
    let listing = session.list(Path::new("a")).unwrap();
    let entries: Vec<_> =
        listing.entries.iter().map(|entry| (entry.name.to_str().unwrap(), entry.kind)).collect();
    assert_eq!(
        entries,
        [("b c", Kind::Folder), ("empty", Kind::File), ("link", Kind::Link), ("pipe", Kind::Other)]
    );
    assert_eq!(session.list(Path::new("")).unwrap().entries.len(), 1);
    // A link that stays inside is a way like any other.
    assert_eq!(session.read_file(Path::new("a/link/-file")).unwrap(), b"newmore\n");
    for path in ["nothing", "a", "../x", "/etc/passwd", ""] {
        let error = session.read_file(Path::new(path)).unwrap_err();
        assert_eq!(error.advice(), Advice::Refused, "{path}: {error}");
    }
    for path in ["", "/x", "a/../x", "..", "a/empty/x"] {
        let error = session.write_file(Path::new(path), b"").unwrap_err();
        assert_eq!(error.advice(), Advice::Refused, "{path}: {error}");
    }
    assert!(session.write_file(Path::new("a"), b"").is_err(), "a folder is not replaced");
    let limits = Limits { read_bytes: 10, ..Limits::default() };
    let mut small = backend.open(&Spec { limits, ..Spec::default() }).unwrap();
    small.write_file(Path::new("file"), b"more than ten").unwrap();
    assert!(matches!(
        small.read_file(Path::new("file")),
        Err(SandboxError::TooLarge { bytes: 13, limit: 10, .. })
    ));
}

pub fn folders_go_in_and_out(backend: &dyn Backend) {
    let dir = tempfile::tempdir().unwrap();
    // No other user can look into these.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let (task, tests) = (dir.path().join("task"), dir.path().join("tests"));
    fs::create_dir_all(task.join("src")).unwrap();
    fs::create_dir_all(&tests).unwrap();
    fs::write(task.join("src/run.sh"), "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(task.join("src/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("src/run.sh", task.join("link")).unwrap();
    fs::write(tests.join("test.sh"), "test -f /workspace/made && echo 1 > /logs/verifier/reward.txt\n")
        .unwrap();
    let read_only = [("/tests".into(), tests)].into();
    let spec = Spec { workspace: Workspace::Folder(task), read_only, ..Spec::default() };
    let mut session = backend.open(&spec).unwrap();
    assert_eq!(
        says(&mut *session, "./link && touch made && sh /tests/test.sh && cat /logs/verifier/reward.txt"),
        "ran\n1"
    );
    for line in [
        "echo >> /tests/test.sh",
        "rm -f /tests/test.sh",
        "touch /tests/x",
        "mv /tests /t",
        "chmod 777 /tests",
    ] {
        let ran = session.exec(&Exec::line(line)).unwrap();
        assert!(ran.exit_code().is_some_and(|code| code != 0), "{line}: {ran:?}");
    }
    says(&mut *session, "ls -d /logs/agent /logs/verifier /logs/artifacts && touch /logs/agent/x");
    let out = dir.path().join("out");
    let copied = session.copy_out(Path::new(""), &out).unwrap();
    assert_eq!((copied.files, copied.skipped), (2, 1));
    assert_eq!(fs::read(out.join("src/run.sh")).unwrap(), b"#!/bin/sh\necho ran\n");
    assert_eq!(fs::metadata(out.join("src/run.sh")).unwrap().permissions().mode() & 0o111, 0o111);
    assert!(fs::symlink_metadata(out.join("link")).is_err(), "no link comes out");
    assert!(session.copy_out(Path::new(""), &out).is_err(), "nothing of the host is written over");
    let error = backend.open(&Spec { workspace: Workspace::Folder("/no/such".into()), ..Spec::default() });
    assert_eq!(error.err().map(|error| error.advice()), Some(Advice::Refused));
}

/// Listens at a socket, and answers each line with itself.
const LISTENER: &str = r#"perl -MSocket -e '
    socket(my $s, PF_UNIX, SOCK_STREAM, 0); bind($s, sockaddr_un($ARGV[0])); listen($s, 1);
    while (accept(my $c, $s)) { print {$c} scalar <$c>; close $c }' "$1" &"#;

pub fn a_socket_inside_is_reached_and_no_other(backend: &dyn Backend) {
    let mut session = open(backend);
    for path in ["/workspace/a/socket", "/tmp/socket"] {
        told(&mut *session, &format!("mkdir -p /workspace/a; set -- {path}; {LISTENER}"));
        let path = Path::new(path);
        eventually("it listens", || session.connect(path).is_ok());
        let mut stream = session.connect(path).unwrap();
        stream.write_all(b"hello\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello\n");
    }
    told(
        &mut *session,
        "echo > /workspace/file; ln -s /workspace/a/socket /tmp/link; ln -s /run /workspace/run",
    );
    for path in [
        "/workspace/file",
        "/tmp/link",
        "/tmp/none",
        "/workspace/run/x",
        "/tmp/../tmp/socket",
        "/run/x",
        "socket",
    ] {
        assert!(matches!(session.connect(Path::new(path)), Err(SandboxError::Path { .. })), "{path}");
    }
    session.close().unwrap();
    assert!(matches!(session.connect(Path::new("/tmp/socket")), Err(SandboxError::Closed)));
}

pub fn the_workspace_has_more_names(backend: &dyn Backend) {
    let spec = Spec { aliases: vec!["/home/user".into()], ..Spec::default() };
    let mut session = backend.open(&spec).unwrap();
    told(&mut *session, "cd /home/user && echo x > file");
    assert_eq!(told(&mut *session, "cat /workspace/file; pwd -P"), "x\n/home/user");
    session.close().unwrap();
    let spec = Spec { aliases: vec!["/home".into()], ..Spec::default() };
    assert!(matches!(backend.open(&spec), Err(SandboxError::Path { .. })));
}

pub fn a_snapshot_is_the_workspace_again(backend: &dyn Backend) {
    let mut session = open(backend);
    let strange = std::ffi::OsStr::from_bytes(b"new\nline \xff");
    session.write_file(Path::new(strange), b"strange").unwrap();
    says(
        &mut *session,
        "mkdir -p d/e; echo one > d/e/f; ln -s d/e/f l; mkfifo p; ln d/e/f hard; chmod 750 d; chmod 000 d/e",
    );
    let snapshot = session.snapshot().unwrap();
    told(
        &mut *session,
        "chmod 700 d/e; rm -r d l; echo other > other; echo x > /tmp/x; (while :; do echo 7006 > late; done) &",
    );
    told(&mut *session, "mkdir -p none/in; chmod 000 none");
    session.reset(&snapshot).unwrap();
    assert_eq!(
        says(
            &mut *session,
            "cat d/e/f l; stat -c %a d; ls /tmp /logs; ls late other none 2>/dev/null || echo gone"
        ),
        "one\none\n750\n/logs:\nagent\nartifacts\nverifier\n\n/tmp:\ngone"
    );
    assert_eq!(session.read_file(Path::new(strange)).unwrap(), b"strange");
    session.close().unwrap();
    // It outlives the session, and opens others.
    let spec = Spec { workspace: Workspace::Snapshot(snapshot.clone()), ..Spec::default() };
    let mut other = backend.open(&spec).unwrap();
    assert_eq!(says(&mut *other, "cat l hard; test -p p && stat -c %h hard"), "one\none\n2");
}

pub fn a_workspace_that_was_shut_is_still_packed(backend: &dyn Backend) {
    let mut session = open(backend);
    says(&mut *session, "echo kept > file; chmod 0 . /tmp /logs /home/agent");
    let snapshot = session.snapshot().unwrap();
    let spec = Spec { workspace: Workspace::Snapshot(snapshot.clone()), ..Spec::default() };
    assert_eq!(says(&mut *backend.open(&spec).unwrap(), "cat file"), "kept");
    let mut nowhere = Exec::line("chmod 0 /workspace");
    nowhere.cwd = "/".into();
    assert!(session.exec(&nowhere).unwrap().success());
    session.reset(&snapshot).unwrap();
    assert_eq!(
        says(&mut *session, "cat file; ls /tmp /home/agent; echo > /tmp/x"),
        "kept\n/home/agent:\n\n/tmp:"
    );
}

pub fn an_interrupt_ends_what_runs(backend: &dyn Backend) {
    let mut session = open(backend);
    let handle = session.interrupt_handle();
    // None runs: the next one is not ended by it.
    handle.interrupt();
    assert!(session.exec(&Exec::line("true")).unwrap().success());
    for (shell, marker) in [(false, "7007.5"), (true, "7008.5")] {
        let interrupt = handle.clone();
        let other = thread::spawn(move || {
            eventually("it runs", || with_marker(&format!("sleep\0{marker}")) == 1);
            interrupt.interrupt();
        });
        let line = format!("sleep {marker}");
        let ran = match shell {
            true => session.shell(&line, Duration::from_secs(600)).unwrap(),
            false => session.exec(&Exec::line(line).timeout(Duration::from_secs(600))).unwrap(),
        };
        other.join().unwrap();
        assert_eq!((ran.ending, ran.shell_lost), (Ending::Interrupted, false));
        assert_eq!(with_marker(marker), 0);
    }
    assert_eq!(told(&mut *session, "echo again"), "again");
}

pub fn a_program_goes_on_until_it_is_ended(backend: &dyn Backend) {
    let mut session = open(backend);
    if backend.name() == "docker" {
        let refused = session.start(&Exec::line("cat")).expect_err("it would end with the next command");
        assert!(refused.to_string().contains("bubblewrap keeps it"), "{refused}");
        return;
    }
    let talks = |session: &mut dyn Session, marker: &str| {
        let line =
            format!("(setsid sleep {marker} &); while read word; do echo \"again $word\"; done; exit 7");
        let mut program = session.start(&Exec::line(line)).unwrap();
        let pipes = program.pipes().unwrap();
        assert!(program.pipes().is_none());
        (program, pipes.stdin, BufReader::new(pipes.stdout))
    };
    let (mut program, mut stdin, mut stdout) = talks(&mut *session, "7011.5");
    for word in ["one", "two"] {
        writeln!(stdin, "{word}").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, format!("again {word}\n"));
        assert_eq!(says(&mut *session, "echo beside"), "beside");
    }
    assert!(!program.has_ended());
    drop(stdin);
    eventually("it ends with its input", || program.has_ended());
    assert_eq!((program.end(), with_marker("7011.5")), (Some(7), 0));

    let (dropped, _stdin, _stdout) = talks(&mut *session, "7012.5");
    eventually("it runs", || with_marker("sleep\x007012.5") == 1);
    drop(dropped);
    assert_eq!(with_marker("7012.5"), 0);

    let (mut ended, _stdin, mut stdout) = talks(&mut *session, "7013.5");
    eventually("it runs", || with_marker("sleep\x007013.5") == 1);
    session.stop_all().unwrap();
    assert_eq!((with_marker("7013.5"), ended.has_ended()), (0, true));
    assert_eq!(stdout.read_to_end(&mut Vec::new()).unwrap(), 0, "nobody writes any more");
    assert_eq!(ended.end(), None);

    let (closed, _stdin, _stdout) = talks(&mut *session, "7014.5");
    eventually("it runs", || with_marker("sleep\x007014.5") == 1);
    session.close().unwrap();
    assert_eq!((with_marker("7014.5"), closed.has_ended()), (0, true));
    assert!(session.start(&Exec::line("true")).is_err());
}

pub fn a_closed_session_is_closed(backend: &dyn Backend) {
    let mut session = open(backend);
    told(&mut *session, "(setsid sleep 7009.5 &); sleep 7009.5 &");
    eventually("they run", || with_marker("sleep\x007009.5") == 2);
    session.close().unwrap();
    assert_eq!(with_marker("7009.5"), 0);
    session.close().unwrap();
    let errors = [
        session.exec(&Exec::line("true")).err(),
        session.shell("true", MINUTE).err(),
        session.read_file(Path::new("x")).err(),
        session.write_file(Path::new("x"), b"").err(),
        session.snapshot().err(),
        session.stop_all().err(),
    ];
    for error in errors {
        assert_eq!(error.map(|error| error.advice()), Some(Advice::NewSession));
    }
    // Dropping is closing.
    let mut dropped = open(backend);
    told(&mut *dropped, "sleep 7010.5 &");
    drop(dropped);
    assert_eq!(with_marker("7010.5"), 0);
}

pub fn sixteen_sessions_at_once(backend: &dyn Backend) {
    thread::scope(|scope| {
        for number in 0..16 {
            scope.spawn(move || {
                let mut session = open(backend);
                told(&mut *session, &format!("x={number}; cd /tmp"));
                for round in 0..3 {
                    says(&mut *session, &format!("echo {number} >> mine; sleep 0.0{round}"));
                    assert_eq!(told(&mut *session, "echo $x; ls /workspace"), format!("{number}\nmine"));
                }
                let mine = session.read_file(Path::new("mine")).unwrap();
                assert_eq!(mine, format!("{number}\n").repeat(3).into_bytes());
                session.close().unwrap();
            });
        }
    });
}

pub fn a_session_moves_between_threads(backend: &dyn Backend) {
    // What opened it ends; a sandbox that ended with its parent thread would go with it.
    let mut session = thread::scope(|scope| {
        let opening = scope.spawn(|| {
            let mut session = open(backend);
            told(&mut *session, "x=1; sleep 7011.5 &");
            session
        });
        opening.join().unwrap()
    });
    eventually("the job runs", || with_marker("sleep\x007011.5") == 1);
    assert_eq!(told(&mut *session, "echo $x"), "1");
    assert_eq!(with_marker("sleep\x007011.5"), 1);
}

pub fn what_cannot_be_is_refused_at_once(backend: &dyn Backend) {
    let none = Spec { limits: Limits { disk_bytes: 0, ..Limits::default() }, ..Spec::default() };
    assert!(matches!(backend.open(&none), Err(SandboxError::Limit { limit: "disk_bytes" })));
    for at in ["/workspace", "/proc/x", "tests", "/", "/a/../etc"] {
        let spec = Spec { read_only: [(at.into(), "/usr".into())].into(), ..Spec::default() };
        assert!(matches!(backend.open(&spec), Err(SandboxError::Path { .. })), "{at}");
    }
}
