//! Problems with a code tool, in the real sandbox.

#[path = "tool_call/host.rs"]
mod host;
mod machine;
#[path = "tool_call/servers.rs"]
mod servers;

use std::{fs, thread};

use host::{answer, begin, bench, call, code, environment, has_sandbox, result, run};
use machine::{eventually, with_marker};
use openclaw_environments::{
    tool_call::families::{self, Action as Planned, Family, Knobs},
    world::{Action, Split, WorldError, text_of},
};
use serde_json::json;

/// The plan of a task, as a policy does it.
fn plan(family: Family, split: Split, seed: u64) -> Vec<Action> {
    let done = |(action, _): &(Planned, families::Ran)| match action {
        Planned::Call { code: text, .. } => code(text),
        Planned::Answer(given) => Action::Text(format!("It is \\boxed{{{given}}}.")),
        Planned::Malformed => Action::Malformed,
    };
    families::task(family, split, seed, &Knobs::default()).plan.iter().map(done).collect()
}

fn plans_succeed(family: Family) {
    if !has_sandbox() {
        return;
    }
    let environment = environment(&format!("families = [\"{}\"]", family.name()));
    for number in 0..20 {
        let (split, seed) = if number < 14 { (Split::Train, number) } else { (Split::HeldOut, number) };
        let (mut world, task) = begin(&*environment, split, seed);
        let plan = plan(family, split, seed);
        for action in &plan {
            let outcome = world.step(action).expect("a step");
            let score = outcome.rule.map(|rule| rule.score);
            assert_eq!(score, Some(1), "{} {action:?} {outcome:?}", task.id);
        }
        let verdict = world.evaluate().expect("a verdict");
        assert_eq!((verdict.reward, verdict.success), (1.0, true), "{}", task.id);
        assert_eq!(verdict.numbers["calls"], (plan.len() - 1) as f64);
    }
}

#[test]
fn plans_of_expressions_succeed() {
    plans_succeed(Family::Expression);
}

#[test]
fn plans_of_two_stages_succeed() {
    plans_succeed(Family::TwoStage);
}

#[test]
fn plans_of_repairs_succeed() {
    plans_succeed(Family::Repair);
}

#[test]
fn a_wrong_answer_costs_less_the_more_was_tried() {
    if !has_sandbox() {
        return;
    }
    let environment = environment("families = [\"tc1\"]\ndecoy_tools = 4");
    for (calls, reward) in [(0, -1.1), (1, -1.05), (4, -0.9)] {
        let (mut world, _) = begin(&*environment, Split::Train, 3);
        for _ in 0..calls {
            run(&mut *world, "print(1)");
            // What is of no use counts for nothing.
            let outcome = world.step(&call("search", json!({"query": "the answer"}))).expect("a step");
            assert!(result(&outcome).is_error);
            assert_eq!(text_of(&result(&outcome).parts), "search is of no use here.");
            assert_eq!(outcome.rule.map(|rule| rule.score), Some(-1));
        }
        let verdict = answer(&mut *world, "\\boxed{-1}");
        assert!((f64::from(verdict.reward) - reward).abs() < 1e-6, "{verdict:?}");
        assert_eq!((verdict.success, verdict.numbers["calls"]), (false, f64::from(calls)));
    }
}

#[test]
fn what_cannot_be_done_is_said_and_counted_against_the_step() {
    let mut world = bench("decoy_tools = 0");
    for (action, says) in [
        (call("search", json!({"query": "a"})), "There is no tool search."),
        (call("code_interpreter", json!({"cod": "a"})), "missing argument code"),
    ] {
        let outcome = world.step(&action).expect("a step");
        assert_eq!((text_of(&result(&outcome).parts).as_str(), result(&outcome).is_error), (says, true));
        assert_eq!((outcome.rule.map(|rule| rule.score), outcome.done), (Some(-1), false));
    }
    let outcome = world.step(&Action::Malformed).expect("a step");
    assert_eq!((outcome.rule.map(|rule| rule.score), outcome.done), (Some(-1), false));
}

#[test]
fn a_step_is_as_good_as_its_worst_call() {
    if !has_sandbox() {
        return;
    }
    let environment = environment("families = [\"tc1\"]");
    let (mut world, _) = begin(&*environment, Split::Train, 5);
    let calls = |action: &Action| match action {
        Action::Calls(calls) => calls.clone(),
        _ => Vec::new(),
    };
    let planned = calls(&plan(Family::Expression, Split::Train, 5)[0]);
    let outcome = world.step(&Action::Calls([planned, calls(&code("print(1)"))].concat())).expect("a step");
    assert_eq!(outcome.observation.results.len(), 2);
    assert_eq!(outcome.rule.map(|rule| rule.score), Some(-1), "{outcome:?}");
}

#[test]
fn an_exception_shows_what_was_printed_and_the_end_of_its_traceback() {
    if !has_sandbox() {
        return;
    }
    let mut world = bench("");
    let (text, is_error) = run(&mut *world, "print('before')\nx = {}\nx['key']");
    assert!(is_error);
    assert!(text.starts_with("before\nTraceback"), "{text}");
    assert!(text.contains("File \"<code>\", line 3") && text.contains("x['key']"), "{text}");
    assert!(text.ends_with("KeyError: 'key'") && !text.contains("<string>"), "{text}");
    let (text, is_error) = run(&mut *world, "print(1");
    assert!(is_error && text.contains("SyntaxError"), "{text}");
    let (text, is_error) = run(&mut *world, "import sys\nsys.exit(3)");
    assert!(is_error && text.contains("code 3"), "{text}");
    let (text, is_error) = run(&mut *world, "def f(n):\n    return f(n + 1)\nf(0)");
    assert!(is_error && text.contains("RecursionError") && text.len() < 2000, "{text}");
    // Nothing that is the wrapper's can be seen.
    let (text, _) = run(&mut *world, "print(sorted(n for n in globals() if not n.startswith('__')))");
    assert_eq!(text, "[]");
    assert_eq!(run(&mut *world, "x = 1"), ("[nothing was printed]".to_owned(), false));
}

#[test]
fn files_stay_and_variables_do_not() {
    if !has_sandbox() {
        return;
    }
    let environment = environment("families = [\"tc1\"]");
    let (mut world, task) = begin(&*environment, Split::Train, 0);
    assert!(!run(&mut *world, "x = 1\nopen('kept', 'w').write('here')").1);
    assert_eq!(run(&mut *world, "print(open('kept').read())"), ("here".to_owned(), false));
    assert!(run(&mut *world, "print(x)").0.ends_with("NameError: name 'x' is not defined"));
    world.reset(&task).expect("it begins anew");
    assert!(run(&mut *world, "open('kept')").0.contains("FileNotFoundError"));
    // Longer than any argument of a program may be.
    let long = format!("x = '{}'\nprint(len(x))", "y".repeat(300_000));
    assert_eq!(run(&mut *world, &long), ("300000".to_owned(), false));
}

#[test]
fn an_endless_loop_times_out_and_the_session_goes_on() {
    if !has_sandbox() {
        return;
    }
    let mut world = bench("step_secs = 4");
    run(&mut *world, "open('kept', 'w').write('here')");
    let outcome = world.step(&code("print('begun', flush=True)\nwhile True: pass")).expect("a step");
    assert_eq!(text_of(&result(&outcome).parts), "begun\nEnded: it took too long.");
    assert!(result(&outcome).is_error);
    assert_eq!(outcome.rule.map(|rule| rule.score), Some(-1));
    assert_eq!(run(&mut *world, "print(open('kept').read())"), ("here".to_owned(), false));
}

#[test]
fn an_endless_output_is_cut() {
    if !has_sandbox() {
        return;
    }
    let mut world = bench("step_secs = 4\noutput_bytes = 200");
    let (text, is_error) = run(&mut *world, "while True: print('x' * 79)");
    assert!(is_error && text.len() < 400 && text.contains("bytes left out"), "{text}");
    let (text, is_error) = run(&mut *world, "print('first')\nprint('x' * 5000)\nprint('last')");
    assert!(!is_error && text.starts_with("first\n") && text.ends_with("x\nlast"), "{text}");
}

#[test]
fn what_code_starts_does_not_outlive_its_call() {
    if !has_sandbox() {
        return;
    }
    let mut world = bench("step_secs = 10");
    let marker = format!("86{}.25", std::process::id());
    let started = format!("import os\nos.system('sleep {marker} &')\nprint('started')");
    assert_eq!(run(&mut *world, &started), ("started".to_owned(), false));
    eventually("the sleeper is gone", || with_marker(&marker) == 0);
    let (_, is_error) = run(&mut *world, "import os\nwhile True: os.fork()");
    assert!(is_error, "there is a limit of processes");
    assert_eq!(run(&mut *world, "print(2)"), ("2".to_owned(), false));
}

#[test]
fn memory_has_a_limit() {
    if !has_sandbox() {
        return;
    }
    let mut world = bench("memory_mb = 128");
    let (text, is_error) = run(&mut *world, "x = bytearray(1 << 30)\nprint(len(x))");
    assert!(is_error && text.contains("emory"), "{text}");
    assert_eq!(run(&mut *world, "print(2)"), ("2".to_owned(), false));
}

#[test]
fn a_box_that_a_tool_prints_is_no_answer() {
    if !has_sandbox() {
        return;
    }
    let environment = environment("families = [\"tc1\"]");
    let (mut world, _) = begin(&*environment, Split::Train, 9);
    let right = families::task(Family::Expression, Split::Train, 9, &Knobs::default()).answer;
    let printed = format!("\\boxed{{{right}}}");
    let outcome = world.step(&code(&format!("print({printed:?})"))).expect("a step");
    assert_eq!((text_of(&result(&outcome).parts), outcome.done), (printed, false));
    assert!(!world.evaluate().expect("a verdict").success);
    assert!(!answer(&mut *world, &format!("It is {right}.")).success, "it has to be boxed");
}

#[test]
fn an_interrupt_ends_what_runs_and_the_world_goes_on() {
    if !has_sandbox() {
        return;
    }
    let mut world = bench("step_secs = 600");
    let interrupt = world.interrupt();
    // Nothing runs yet.
    interrupt();
    let marker = format!("loop_{}_{:?}", std::process::id(), thread::current().id());
    let marker = marker.replace(['(', ')'], "_");
    thread::scope(|scope| {
        scope.spawn(|| {
            eventually("the loop runs", || with_marker(&marker) > 0);
            interrupt();
        });
        let text =
            format!("import subprocess\nsubprocess.run(['sh', '-c', 'while :; do :; done', '{marker}'])");
        assert_eq!(world.step(&code(&text)), Err(WorldError::Interrupted));
    });
    assert_eq!(run(&mut *world, "print(2)"), ("2".to_owned(), false));
}

#[test]
fn an_interrupt_at_any_moment_ends_the_step_or_comes_too_late() {
    if !has_sandbox() {
        return;
    }
    let mut world = bench("step_secs = 600");
    for turn in 0..30 {
        let interrupt = world.interrupt();
        thread::scope(|scope| {
            let (begins, begun) = std::sync::mpsc::channel();
            scope.spawn(move || {
                begun.recv().expect("it begins");
                // From the first moment of a step to well within its command.
                (0..turn * 20_000).for_each(|_| std::hint::spin_loop());
                eventually("the step is heard of", || {
                    interrupt();
                    begun.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected)
                });
            });
            begins.send(()).expect("it listens");
            assert_eq!(world.step(&code("while True: pass")), Err(WorldError::Interrupted));
            drop(begins);
        });
    }
}

#[test]
fn rows_of_a_file_are_played() {
    let folder = tempfile::tempdir().expect("a folder");
    let (train, held_out) = (folder.path().join("train.jsonl"), folder.path().join("held-out.jsonl"));
    let row = json!({
        "prompt": [{"role": "user", "content": "What is 6 times 7?"}],
        "reward_model": {"ground_truth": "42", "style": "rule"},
    });
    fs::write(&train, format!("{row}\n{}\n", json!({"prompt": "Half of 1?", "label": "1/2"})))
        .expect("a file");
    fs::write(&held_out, json!({"prompt": "1 + 1?", "label": 2}).to_string()).expect("a file");
    let paths = format!("rows = {train:?}\nheld_out_rows = {held_out:?}");
    let rows = environment(&paths);
    assert_eq!((rows.tasks(Split::Train), rows.tasks(Split::HeldOut)), (Some(2), Some(1)));
    assert_eq!(rows.task(Split::Train, 2).map(|_| ()), Err(WorldError::NoTask("row/train/2".into())));
    let task = rows.task(Split::Train, 0).expect("a task");
    assert_eq!((&*task.id, task.tools.len()), ("row/train/0", 1));
    let said: Vec<_> = task.opening.iter().map(|said| (said.role, text_of(&said.parts))).collect();
    assert!(said[0].0 == "system" && said[0].1.contains("\\boxed{"), "{said:?}");
    assert_eq!(said[1], ("user", "What is 6 times 7?".to_owned()));
    let bare = environment(&format!("system = \"\"\n{paths}")).task(Split::Train, 0).expect("a task");
    assert_eq!(bare.opening.len(), 1);
    let alone = environment(&format!("interpreter = false\n{paths}")).task(Split::Train, 0).expect("a task");
    assert!(!text_of(&alone.opening[0].parts).contains("code_interpreter") && alone.tools.is_empty());

    let (mut world, _) = begin(&*rows, Split::Train, 1);
    let verdict = answer(&mut *world, "It is \\boxed{0.5}");
    assert_eq!((verdict.reward, verdict.success), (1.0, true));
    if has_sandbox() {
        let (mut world, _) = begin(&*rows, Split::Train, 0);
        let outcome = world.step(&code("print(6 * 7)")).expect("a step");
        assert_eq!((text_of(&result(&outcome).parts).as_str(), outcome.rule), ("42", None));
        assert!(answer(&mut *world, "\\boxed{42}").success);
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("train.jsonl");
    let problem = |settings: String| {
        let made = openclaw_environments::registry::make("tool_call", settings.parse().expect("a table"));
        made.map(|_| ()).expect_err("it is refused").to_string()
    };
    let missing = problem(format!("rows = {file:?}"));
    assert!(missing.starts_with("rows: ") && missing.contains("train.jsonl"), "{missing}");
    fs::write(&file, "{\"prompt\": \"a\", \"label\": \"1\"}\n{\"prompt\": \"a\"}\n").expect("a file");
    let line = problem(format!("held_out_rows = {file:?}"));
    assert!(line.starts_with("held_out_rows: ") && line.contains("train.jsonl:2: no key"), "{line}");
    fs::write(&file, "\n").expect("a file");
    assert!(problem(format!("rows = {file:?}")).ends_with("has no rows"));
}

#[test]
fn thirty_two_worlds_at_once() {
    if !has_sandbox() {
        return;
    }
    let environment = environment("");
    thread::scope(|scope| {
        for number in 0..32 {
            let environment = &environment;
            scope.spawn(move || {
                let (mut world, _) = begin(&**environment, Split::Train, number);
                let text = format!("print({number} + 1)");
                assert_eq!(run(&mut *world, &text), ((number + 1).to_string(), false));
            });
        }
    });
}
