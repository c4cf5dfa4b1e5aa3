//! Terminals with real sandboxes: families by their oracles, task folders from end to end.

mod machine;
mod terminal_host;
mod terminal_rigged;

use std::{thread, time::Instant};

use machine::{eventually, with_marker};
use openclaw_environments::{
    terminal::{
        Settings, Terminal,
        families::{self, Family, Knobs},
    },
    world::{Action, Environment, Split, Verdict, World, WorldError},
};
use terminal_host::{bash, begun, call, gave, harbor, over, terminal, write};

/// Says what share is right: one check of two is whether there is an answer at all.
const CHECK: &str = r#"score=0
[ -e answer.txt ] && score=0.5
cmp -s answer.txt /tests/expected.txt && score=1
echo $score > /logs/verifier/reward.txt
exit 3
"#;

fn done() -> Action {
    Action::Text("Done.".into())
}

fn of_family(family: Family) -> Option<Terminal> {
    terminal(Settings { families: Some(vec![family]), ..Settings::default() })
}

fn rate(verdict: &Verdict) -> (f64, f32, bool) {
    (verdict.numbers["rate"], verdict.reward, verdict.success)
}

fn oracle(family: Family) {
    let Some(terminal) = of_family(family) else { return };
    let mut world = terminal.open().unwrap();
    for number in 0..20 {
        let split = if number % 2 == 0 { Split::Train } else { Split::HeldOut };
        let task = terminal.task(split, number).unwrap();
        let made = families::task(family, split, number, &Knobs::default());
        let begun = world.reset(&task).unwrap();
        let mut states = vec![begun.state];
        for command in &made.plan {
            let outcome = world.step(&bash(command)).unwrap();
            assert_eq!(outcome.rule.unwrap().score, 1, "{made:?}\n{command}\n{outcome:?}");
            assert!(!outcome.done && !gave(&outcome).1, "{outcome:?}");
            states.push(outcome.observation.state);
        }
        assert_eq!(begun.state, Some(made.start.hash()), "{made:?}");
        if family != Family::Text {
            assert_eq!(states.last(), Some(&Some(made.goal.hash())), "{made:?}");
        }
        // Once more is of no use.
        let again = world.step(&bash("ls")).unwrap();
        assert_eq!(again.rule.unwrap().score, -1);
        assert_eq!(Some(&again.observation.state), states.last());
        let outcome = world.step(&done()).unwrap();
        assert!(outcome.done && outcome.rule.unwrap().score == 1, "{made:?}\n{outcome:?}");
        let verdict = world.evaluate().unwrap();
        assert_eq!(rate(&verdict), (1.0, 1.0, true), "{made:?}");
        assert_eq!(world.evaluate(), Ok(verdict));
    }
}

#[test]
fn the_plans_of_moves_are_right() {
    oracle(Family::Moves);
}

#[test]
fn the_plans_of_text_are_right() {
    oracle(Family::Text);
}

#[test]
fn the_plans_of_hidden_names_are_right() {
    oracle(Family::Hidden);
}

#[test]
fn wrong_plans_fail() {
    for family in Family::ALL {
        let Some(terminal) = of_family(family) else { return };
        let mut world = terminal.open().unwrap();
        for (number, wrong) in
            ["true", "rm -rf *", "touch zzzz", "cat nothing; false"].into_iter().enumerate()
        {
            let task = terminal.task(Split::Train, number as u64).unwrap();
            world.reset(&task).unwrap();
            let outcome = world.step(&bash(wrong)).unwrap();
            assert_eq!(outcome.rule.unwrap().score, -1, "{wrong}");
            assert_eq!(world.step(&Action::Malformed).unwrap().rule.unwrap().score, -1);
            let outcome = world.step(&done()).unwrap();
            assert_eq!((outcome.rule.unwrap().score, outcome.done), (-1, true));
            assert_eq!(rate(&world.evaluate().unwrap()), (0.0, -1.0, false), "{wrong}");
            assert!(world.step(&bash("true")).is_err(), "it is over");
        }
    }
}

#[test]
fn one_shell_and_the_files_of_the_workspace() {
    let Some(terminal) = terminal(Settings { step_secs: 2, output_bytes: 100, ..Settings::default() }) else {
        return;
    };
    let mut world = terminal.open().unwrap();
    assert!(matches!(world.step(&bash("true")), Err(WorldError::Broken(_))), "nothing was begun");
    world.reset(&terminal.task(Split::Train, 0).unwrap()).unwrap();
    let mut of = |action: Action| gave(&world.step(&action).unwrap());
    assert_eq!(of(bash("x=5; mkdir -p a && cd a")), ("[no output]".into(), false));
    assert_eq!(of(bash("echo $x; pwd")), ("5\n/workspace/a".into(), false));
    assert_eq!(of(bash("echo out; echo err >&2; (exit 7)")), ("out\nerr\n[exit code 7]".into(), true));
    let (text, failed) = of(bash("seq 1 1000"));
    assert!(
        text.starts_with("1\n2\n") && text.ends_with("999\n1000") && text.contains("bytes left out]"),
        "{text}"
    );
    assert!(!failed && text.len() < 150);
    let (text, failed) = of(bash("echo begun; sleep 1003.25"));
    assert!(text.starts_with("begun\n[ended after 2 s]") && failed, "{text}");
    assert_eq!(of(bash("echo $x")).0, "5", "the shell goes on");
    let (text, failed) = of(bash("exit 4"));
    assert!(text.contains("[exit code 4]\n[the shell has ended") && failed, "{text}");
    assert_eq!(of(bash("echo .$x")).0, ".");
    assert_eq!(of(call("write_file", &[("path", "b/c.txt"), ("content", "one\n")])).0, "4 bytes written");
    assert_eq!(of(call("read_file", &[("path", "/workspace/b/c.txt")])), ("one\n".into(), false));
    for (action, says) in [
        (call("read_file", &[("path", "b/none")]), "does not exist"),
        (call("read_file", &[("path", "/etc/passwd")]), "not below"),
        (call("read_file", &[("path", "../etc/passwd")]), "leads out"),
        (call("write_file", &[("path", "b"), ("content", "")]), ""),
        (call("write_file", &[("path", "b")]), "argument content"),
        (call("python", &[]), "no tool python"),
        (call("bash", &[]), "argument command"),
    ] {
        let (text, failed) = of(action);
        assert!(failed && text.contains(says), "{text}");
    }
}

#[test]
fn a_folder_is_played_from_end_to_end() {
    let tasks = tempfile::tempdir().unwrap();
    let dockerfile = "ENV GREETING=hello NAME=\"$GREETING you\"\nWORKDIR sub\nCOPY start.txt copies/\nCOPY *.txt ./\n\
                      RUN printf '%s' \"$NAME\" > built.txt && test -s copies/start.txt";
    harbor(tasks.path(), "all", dockerfile, CHECK);
    let Some(terminal) = over(tasks.path()) else { return };
    let (task, mut world) = begun(&terminal, "all");
    assert_eq!(task.opening[0].role, "user");
    let outcome = world
        .step(&bash("pwd; cat built.txt; echo; find . -type f | sort; echo $GREETING; ls -d /tests /build"))
        .unwrap();
    let (text, failed) = gave(&outcome);
    let seen = "/workspace/sub\nhello you\n./built.txt\n./copies/start.txt\n./start.txt\nhello\n";
    // A value sees what was before its line.
    assert!(text.starts_with(&seen.replace("hello you", " you")) && failed, "{text}");
    assert!(text.contains("cannot access '/tests'") && text.contains("cannot access '/build'"), "{text}");
    assert_eq!(outcome.rule, None);
    assert_eq!(world.step(&Action::Malformed).unwrap().rule.unwrap().score, -1);
    for (command, reward) in [
        ("echo right > answer.txt", (1.0, 1.0, true)),
        ("echo wrong > answer.txt", (0.5, 0.0, false)),
        ("true", (0.0, -1.0, false)),
    ] {
        world.reset(&task).unwrap();
        world.step(&bash(command)).unwrap();
        assert!(world.step(&done()).unwrap().done);
        let kept = tempfile::tempdir().unwrap();
        world.keep(&kept.path().join("files")).unwrap();
        let answer = std::fs::read_to_string(kept.path().join("files/sub/answer.txt"));
        assert_eq!(
            answer.ok().map(|text| format!("echo {} > answer.txt", text.trim())).as_deref().unwrap_or("true"),
            command
        );
        let verdict = world.evaluate().unwrap();
        assert_eq!(rate(&verdict), reward, "{command}");
        assert_eq!(world.evaluate(), Ok(verdict));
    }
}

#[test]
fn tests_give_the_rate_and_weights_weigh() {
    let tasks = tempfile::tempdir().unwrap();
    let ctrf = r#"{"results":{"tests":[{"name":"a","status":"passed"},{"name":"b","status":"passed"},{"name":"c","status":"failed"},{"name":"d","status":"failed"}]}}"#;
    let check = format!("echo 0 > /logs/verifier/reward.txt; echo '{ctrf}' > /logs/verifier/ctrf.json");
    harbor(tasks.path(), "ctrf", "", &check);
    let summary =
        "=== short test summary info ===\nPASSED t.py::test_a\nFAILED t.py::test_b - no\n=== 1 failed ===\n";
    let files = [
        ("task.yaml", "instruction: do it\n"),
        ("Dockerfile", &format!("FROM {}\nWORKDIR /workspace\n", terminal_host::IMAGE)),
        ("run-tests.sh", "cat $TEST_DIR/summary; exit 1"),
        ("tests/summary", summary),
        ("weights.json", r#"{"test_a": 3, "test_b": 1}"#),
    ];
    write(&tasks.path().join("older"), &files);
    let Some(terminal) = over(tasks.path()) else { return };
    for (id, rate, passed, total) in [("ctrf", 0.5, 2.0, 4.0), ("older", 0.75, 1.0, 2.0)] {
        let verdict = begun(&terminal, id).1.evaluate().unwrap();
        let numbers = &verdict.numbers;
        assert_eq!((numbers["rate"], numbers["passed"], numbers["total"]), (rate, passed, total), "{id}");
        assert_eq!((verdict.reward, verdict.success), (2.0 * rate as f32 - 1.0, false));
    }
}

#[test]
fn a_broken_verifier_is_no_verdict() {
    let tasks = tempfile::tempdir().unwrap();
    let (txt, json) = ("/logs/verifier/reward.txt", "/logs/verifier/reward.json");
    let checks = [
        ("missing", "true".to_owned(), "neither"),
        ("nan", format!("echo nan > {txt}"), "\"nan\""),
        ("words", format!("echo good > {txt}"), "\"good\""),
        ("empty", format!(": > {txt}"), "is empty"),
        ("range", format!("echo 7 > {txt}"), "0 to 1"),
        ("json", format!("echo 1 > {txt}; echo '{{' > {json}"), "reward.json"),
        ("folder", format!("mkdir {txt}"), "not a regular file"),
        ("slow", "sleep 1004.25".to_owned(), "not done in"),
    ];
    for (name, check, _) in &checks {
        harbor(tasks.path(), name, "", check);
    }
    let images = vec![terminal_host::IMAGE.to_owned()];
    let tasks = Some(tasks.path().to_owned());
    let settings = Settings { tasks, held_out: 0, images, verifier_secs: 2, ..Settings::default() };
    let Some(terminal) = terminal(settings) else { return };
    for (name, _, says) in checks {
        let (_, mut world) = begun(&terminal, name);
        // What the agent leaves for the verifier is not the verifier's.
        world.step(&bash(&format!("echo 1 > {txt}; echo '{{\"reward\": 1}}' > {json}"))).unwrap();
        match world.evaluate() {
            Err(WorldError::Invalid(why)) => assert!(why.contains(says), "{name}: {why}"),
            other => panic!("{name}: {other:?}"),
        }
        assert!(matches!(world.evaluate(), Err(WorldError::Invalid(_))));
    }
}

#[test]
fn what_the_agent_rigs_does_not_count() {
    let tasks = tempfile::tempdir().unwrap();
    harbor(tasks.path(), "all", "WORKDIR /app/sub", CHECK);
    let images = vec![terminal_host::IMAGE.to_owned()];
    let tasks = Some(tasks.path().to_owned());
    let settings = Settings { tasks, held_out: 0, images, disk_mb: 8, ..Settings::default() };
    let Some(terminal) = terminal(settings) else { return };
    let (task, mut world) = begun(&terminal, "all");
    for rigged in [
        "echo 1 > /logs/verifier/reward.txt; echo '{\"reward\": 1}' > /logs/verifier/reward.json",
        "cd ..; mkdir .openclaw-verifier; echo '{\"reward\": 1}' > .openclaw-verifier/reward.json",
        "cd ..; ln -s /workspace/forged .openclaw-verifier; mkdir forged; echo '{\"reward\": 1}' > forged/reward.json",
        // No verdict would be better than a bad one.
        "cd ..; rm -r sub",
        "cd ..; rm -r sub; echo x > sub",
        "cd ..; rm -r sub; ln -s /tests sub",
        "cat /dev/zero > full 2>/dev/null; chmod 0 full; true",
        "cat /dev/zero > full 2>/dev/null; cd ..; chmod 0 sub .; true",
        // It would answer as soon as the verifier is there.
        "setsid bash -c 'until [ -e /tests ]; do :; done; echo right > answer.txt' >/dev/null 2>&1 </dev/null &",
        "(while :; do echo 1 > /logs/verifier/reward.txt; [ -e /tests ] && echo right > answer.txt; done) >/dev/null 2>&1 &",
    ] {
        world.reset(&task).unwrap();
        assert!(!gave(&world.step(&bash(rigged)).unwrap()).1);
        assert_eq!(rate(&world.evaluate().unwrap()), (0.0, -1.0, false), "{rigged}");
    }
}

#[test]
fn what_a_task_lacks_is_named() {
    let tasks = tempfile::tempdir().unwrap();
    let lacks = [
        ("apt", "RUN apt-get install -y no-such-tool", "needs apt:no-such-tool"),
        ("path", "WORKDIR /srv/app", "needs path:/srv/app"),
        ("home", "RUN echo x > ~/.rc", "needs path:/home/agent"),
        ("fails", "RUN no-such-command --now", "RUN fails here, Exited(127)"),
        ("copy", "COPY none.txt ./", "COPY fails here"),
        ("user", "USER root", "USER is not supported"),
    ];
    for (name, dockerfile, _) in lacks {
        harbor(tasks.path(), name, dockerfile, CHECK);
    }
    harbor(tasks.path(), "image", "", CHECK);
    write(&tasks.path().join("image"), &[("environment/Dockerfile", "FROM nowhere/image:9\n")]);
    let Some(terminal) = over(tasks.path()) else { return };
    let mut world = terminal.open().unwrap();
    for number in 0..terminal.tasks(Split::Train).unwrap() {
        let task = terminal.task(Split::Train, number).unwrap();
        let says = lacks
            .iter()
            .find(|lack| lack.0 == &*task.id)
            .map_or("needs image:nowhere/image:9", |lack| lack.2);
        match world.reset(&task) {
            Err(WorldError::Refused(why)) => assert!(why.contains(says), "{why}"),
            other => panic!("{}: {other:?}", task.id),
        }
    }
}

#[test]
fn an_interrupt_ends_a_step_and_a_verifier_and_the_world_goes_on() {
    let tasks = tempfile::tempdir().unwrap();
    harbor(tasks.path(), "slow", "", "[ -e quick ] || sleep 1005.25; echo 1 > /logs/verifier/reward.txt");
    let Some(terminal) = over(tasks.path()) else { return };
    let (task, mut world) = begun(&terminal, "slow");
    let interrupt = world.interrupt();
    // Nothing runs, so it is about nothing.
    interrupt();
    assert_eq!(gave(&world.step(&bash("echo on")).unwrap()).0, "on");
    let ended =
        |world: &mut dyn World, marker: &str, run: &mut dyn FnMut(&mut dyn World) -> Option<WorldError>| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    eventually("it runs", || with_marker(marker) > 0);
                    interrupt();
                });
                assert_eq!(run(world), Some(WorldError::Interrupted));
            });
            eventually("it is gone", || with_marker(marker) == 0);
        };
    ended(world.as_mut(), "sleep\x001000", &mut |world| world.step(&bash("sleep 1000")).err());
    assert_eq!(gave(&world.step(&bash("echo on")).unwrap()).0, "on");
    ended(world.as_mut(), "1005.25", &mut |world| world.evaluate().err());
    // The handle is that of the world, whatever session it has.
    world.reset(&task).unwrap();
    ended(world.as_mut(), "sleep\x001001", &mut |world| world.step(&bash("touch quick; sleep 1001")).err());
    assert!(world.evaluate().unwrap().success);
}

#[test]
fn a_world_that_is_dropped_leaves_nothing() {
    let Some(terminal) = of_family(Family::Moves) else { return };
    let mut world = terminal.open().unwrap();
    world.reset(&terminal.task(Split::Train, 0).unwrap()).unwrap();
    world.step(&bash("sleep 1006.25 & setsid sleep 1006.25 &")).unwrap();
    eventually("they run", || with_marker("1006.25") == 2);
    drop(world);
    eventually("they are gone", || with_marker("1006.25") == 0);
}

#[test]
#[ignore = "it measures"]
fn how_long_it_takes() {
    let Some(terminal) = terminal(Settings::default()) else { return };
    let ms = |began: Instant, count: u32| began.elapsed().as_secs_f64() * 1e3 / f64::from(count);
    let mut told = Vec::new();
    let began = Instant::now();
    let mut world = terminal.open().unwrap();
    told.push(format!("first open {:.1} ms", ms(began, 1)));
    let began = Instant::now();
    (0..20).for_each(|_| drop(terminal.open().unwrap()));
    told.push(format!("open {:.3} ms", ms(began, 20)));
    let began = Instant::now();
    (0..20).for_each(|number| drop(world.reset(&terminal.task(Split::Train, number).unwrap()).unwrap()));
    told.push(format!("reset {:.1} ms", ms(began, 20)));
    let began = Instant::now();
    (0..50).for_each(|_| drop(world.step(&bash("ls -R")).unwrap()));
    told.push(format!("step with ls {:.1} ms", ms(began, 50)));
    let began = Instant::now();
    let write = call("write_file", &[("path", "a"), ("content", "b")]);
    (0..20).for_each(|_| drop(world.step(&write).unwrap()));
    told.push(format!("step with write_file {:.1} ms", ms(began, 20)));
    let began = Instant::now();
    thread::scope(|scope| {
        for number in 0..16 {
            let terminal = &terminal;
            scope.spawn(move || {
                let mut world = terminal.open().unwrap();
                world.reset(&terminal.task(Split::Train, number).unwrap()).unwrap();
                (0..5).for_each(|_| drop(world.step(&bash("ls -R")).unwrap()));
                world.evaluate().unwrap();
            });
        }
    });
    told.push(format!("16 worlds, 5 steps each and a verdict {:.1} ms", ms(began, 1)));
    let tasks = tempfile::tempdir().unwrap();
    harbor(tasks.path(), "all", "COPY start.txt ./\nRUN true", CHECK);
    let folder = over(tasks.path()).unwrap();
    let began = Instant::now();
    let (task, mut world) = begun(&folder, "all");
    told.push(format!("first reset of a folder {:.1} ms", ms(began, 1)));
    let (mut reset, mut evaluate) = (0.0, 0.0);
    for _ in 0..10 {
        let began = Instant::now();
        world.reset(&task).unwrap();
        reset += ms(began, 10);
        let began = Instant::now();
        world.evaluate().unwrap();
        evaluate += ms(began, 10);
    }
    told.push(format!("reset of a folder {reset:.1} ms, verdict {evaluate:.1} ms"));
    eprintln!("{}", told.join("\n"));
}
