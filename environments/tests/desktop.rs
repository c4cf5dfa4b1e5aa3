//! Desktops with real programs: families by their oracles, what breaks, and what is left.

mod machine;

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use machine::{can, eventually, has_sandbox, with_marker};
use openclaw_environments::{
    desktop::{
        DesktopEnvironment, Settings,
        families::{self, Family, FamilyTask, Move},
    },
    world::{Action, Call, Environment, Observation, Outcome, Split, Task, World, WorldError, text_of},
};
use openclaw_sandbox::{Backend, Bubblewrap};
use serde_json::{Map, Value, json};

/// None, with the reason told, where this machine has no desktop.
fn desktop(settings: Settings) -> Option<DesktopEnvironment> {
    desktop_in(settings, Bubblewrap::default())
}

fn desktop_in(settings: Settings, backend: Bubblewrap) -> Option<DesktopEnvironment> {
    if !has_sandbox() {
        return None;
    }
    let environment = DesktopEnvironment::new(Settings { changes: true, ..settings }, Box::new(backend))
        .expect("its settings are right");
    let ready = environment.ready();
    can("no desktop can be made here", ready.is_ok(), &format!("{ready:?}")).then_some(environment)
}

fn of_family(family: Family) -> Option<DesktopEnvironment> {
    desktop(Settings { families: Some(vec![family]), ..Settings::default() })
}

fn call(name: &str, arguments: Value) -> Action {
    let arguments: Map<String, Value> = arguments.as_object().cloned().unwrap_or_default();
    Action::Calls(vec![Call { id: "c".into(), name: name.into(), arguments }])
}

fn done() -> Action {
    call("done", json!({}))
}

/// What is seen.
fn list(observation: &Observation) -> String {
    text_of(&observation.parts)
}

/// The number of the first element of a role with a name.
fn number_of(list: &str, role: &str, name: &str) -> u64 {
    let wanted = if name.is_empty() { role.to_owned() } else { format!("{role} \"{name}\"") };
    let found = list.lines().find_map(|line| {
        let (number, rest) = line.strip_prefix('[')?.split_once("] ")?;
        let fits = rest.strip_prefix(&wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        fits.then(|| number.parse().ok()).flatten()
    });
    found.unwrap_or_else(|| panic!("there is no {wanted} in\n{list}"))
}

/// Does a task by what the list says.
fn play(world: &mut dyn World, task: &FamilyTask, mut seen: String) -> Outcome {
    for step in &task.plan {
        let action = match step {
            Move::Click(role, name) => call("click", json!({"id": number_of(&seen, role, name)})),
            Move::Type(role, name, text) => {
                call("type", json!({"id": number_of(&seen, role, name), "text": text}))
            }
        };
        let outcome = world.step(&action).unwrap_or_else(|error| panic!("{step:?}: {error}"));
        assert!(!outcome.done && !outcome.observation.results[0].is_error, "{step:?}: {outcome:?}");
        seen = list(&outcome.observation);
    }
    let outcome = world.step(&done()).expect("it can be said");
    assert!(outcome.done, "{outcome:?}");
    outcome
}

/// By its plan each task is done, by nothing it is not; and each begins with the same list.
fn oracle(family: Family, numbers: std::ops::Range<u64>) {
    let Some(environment) = of_family(family) else { return };
    let mut world = environment.open().expect("it opens");
    for number in numbers {
        let split = if number % 2 == 0 { Split::Train } else { Split::HeldOut };
        let task = environment.task(split, number).expect("a task");
        let made = families::task(family, split, number);
        let first = world.reset(&task).expect("it begins");
        assert!(!world.images().is_empty() && first.shot.is_some(), "there is a screenshot");
        play(world.as_mut(), &made, list(&first));
        let verdict = world.evaluate().expect("a verdict");
        assert_eq!((verdict.reward, verdict.success), (1.0, true), "{made:?}");
        assert_eq!(world.evaluate(), Ok(verdict));

        let again = world.reset(&task).expect("it begins anew");
        assert_eq!((list(&again), again.state), (list(&first), first.state));
        world.step(&done()).expect("it can be said");
        let verdict = world.evaluate().expect("a verdict");
        assert_eq!((verdict.reward, verdict.success), (-1.0, false), "{made:?}");
    }
}

#[test]
fn forms_are_filled_in() {
    oracle(Family::Form, 0..2);
}

#[test]
fn sums_are_calculated_and_written_down() {
    oracle(Family::Calculator, 0..2);
}

#[test]
fn commands_are_typed_into_a_terminal() {
    oracle(Family::Terminal, 0..2);
}

#[test]
fn things_are_chosen_from_a_list() {
    oracle(Family::Chooser, 0..2);
}

#[test]
fn files_are_renamed_and_deleted() {
    oracle(Family::Files, 0..4);
}

#[test]
fn a_text_is_changed_and_saved() {
    oracle(Family::Editor, 0..3);
}

/// A terminal in which an episode has begun, and what is seen.
fn at_terminal(environment: &DesktopEnvironment) -> (Box<dyn World>, String) {
    let mut world = environment.open().expect("it opens");
    let first = world.reset(&environment.task(Split::Train, 0).expect("a task")).expect("it begins");
    (world, list(&first))
}

fn types(seen: &str, command: &str) -> Action {
    call("type", json!({"id": number_of(seen, "terminal", "Terminal"), "text": format!("{command}\n")}))
}

/// Ends processes by their name, in a terminal.
fn kills(name: &str, signal: &str) -> String {
    format!("kill -{signal} $(grep -lx {name} /proc/[0-9]*/comm | cut -d/ -f3)")
}

#[test]
fn a_desktop_that_breaks_is_no_verdict() {
    let settings = Settings { families: Some(vec![Family::Terminal]), ..Settings::default() };
    let Some(environment) = desktop(settings) else { return };
    for name in ["Xvfb", "openbox", "dbus-daemon", "at-spi2-registr"] {
        let (mut world, seen) = at_terminal(&environment);
        let told = world.step(&types(&seen, &kills(name, "KILL")));
        // It may be gone at this look or at the next.
        let told = told.and_then(|_| world.step(&call("wait", json!({}))));
        assert!(matches!(told, Err(WorldError::Broken(_))), "{name}: {told:?}");
        let verdict = world.evaluate();
        assert!(matches!(verdict, Err(WorldError::Invalid(_))), "{name}: {verdict:?}");
        assert_eq!(world.evaluate(), verdict);
    }
}

#[test]
fn a_desktop_that_hangs_is_waited_for_no_longer_than_a_step() {
    let settings = Settings { families: Some(vec![Family::Terminal]), step_secs: 8, ..Settings::default() };
    let Some(environment) = desktop(settings) else { return };
    let (mut world, seen) = at_terminal(&environment);
    let told = world.step(&types(&seen, &kills("Xvfb", "STOP")));
    assert!(matches!(told, Err(WorldError::Broken(_))), "{told:?}");
}

#[test]
fn a_step_is_interrupted_from_another_thread() {
    let settings = Settings { families: Some(vec![Family::Terminal]), step_secs: 600, ..Settings::default() };
    let Some(environment) = desktop(settings) else { return };
    let (mut world, seen) = at_terminal(&environment);
    let interrupt = world.interrupt();
    let told = thread::scope(|scope| {
        let stepping = scope.spawn(|| world.step(&types(&seen, &kills("Xvfb", "STOP"))));
        eventually("it is interrupted", || {
            interrupt();
            stepping.is_finished()
        });
        stepping.join().expect("it comes back")
    });
    assert_eq!(told.map(|_| ()), Err(WorldError::Interrupted));
    world.close();
}

#[test]
fn nothing_of_a_desktop_is_left() {
    let dir = tempfile::tempdir().expect("a folder");
    readable(dir.path());
    let backend = Bubblewrap::new(65534, dir.path());
    let settings = Settings { families: Some(vec![Family::Terminal]), ..Settings::default() };
    let Some(environment) = desktop_in(settings, backend) else { return };
    let (mut world, seen) = at_terminal(&environment);
    world.step(&types(&seen, "(setsid sleep 8301.5 &)")).expect("a step");
    eventually("it runs", || with_marker("sleep\x008301.5") == 1);
    world.close();
    assert_eq!(with_marker("8301.5"), 0);
    assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 0);
}

fn readable(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

const DIR: &str = "OPENCLAW_DESKTOP_TEST_DIR";

#[test]
#[ignore = "it is started, and killed, by the next one"]
fn a_supervisor() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let settings = Settings { families: Some(vec![Family::Terminal]), ..Settings::default() };
    let backend = Bubblewrap::new(65534, &dir);
    let environment = DesktopEnvironment::new(Settings { changes: true, ..settings }, Box::new(backend))
        .expect("its settings are right");
    let (mut world, seen) = at_terminal(&environment);
    world.step(&types(&seen, "(setsid sleep 8302.5 &)")).expect("a step");
    // Until it is killed.
    loop {
        thread::park();
    }
}

#[test]
fn a_killed_supervisor_takes_its_desktop_along() {
    let dir = tempfile::tempdir().expect("a folder");
    readable(dir.path());
    let backend = Bubblewrap::new(65534, dir.path());
    if desktop(Settings::default()).is_none() {
        return;
    }
    let mut supervisor = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "a_supervisor", "--ignored"])
        .env(DIR, dir.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    eventually("its desktop runs", || with_marker("sleep\x008302.5") == 1);
    supervisor.kill().expect("it is ours");
    supervisor.wait().expect("it ends");
    eventually("its desktop is gone", || with_marker("8302.5") == 0);
    eventually("it is swept", || {
        backend.sweep();
        fs::read_dir(dir.path()).expect("it is there").next().is_none()
    });
}

/// Writes a task into a folder.
fn write(folder: &Path, id: &str, config: Value, evaluator: Value) {
    let task = json!({
        "id": id, "snapshot": "os", "instruction": format!("Do {id}."), "source": "here",
        "config": config, "related_apps": ["os"], "evaluator": evaluator, "proxy": false,
    });
    fs::write(folder.join(format!("{id}.json")), task.to_string()).expect("it is written");
}

/// A world in which the task of this name has begun.
fn begun(environment: &DesktopEnvironment, id: &str) -> (Box<dyn World>, Task) {
    let count = environment.tasks(Split::Train).expect("a folder has an end");
    let mut tasks = (0..count).map(|number| environment.task(Split::Train, number).expect("a task"));
    let task = tasks.find(|task| *task.id == *id).expect("it is there");
    let mut world = environment.open().expect("it opens");
    world.reset(&task).expect("it begins");
    (world, task)
}

#[test]
fn tasks_of_a_folder_are_prepared_and_judged_as_they_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let rule = |rules: Value| json!({"type": "rule", "rules": rules});
    let script = "import pyautogui; import time; pyautogui.click({SCREEN_WIDTH_HALF}, {SCREEN_HEIGHT_HALF}); time.sleep(0.1); \
                  pyautogui.hotkey('ctrl', 'alt', 't')";
    let typed = "import pyautogui; pyautogui.write('echo a-$((40+2))'); pyautogui.press('enter')";
    write(
        folder.path(),
        "terminal",
        json!([
            {"type": "execute", "parameters": {"command": ["python", "-c", script]}},
            {"type": "activate_window", "parameters": {"window_name": "Terminal"}},
        ]),
        json!({
            "postconfig": [
                {"type": "execute", "parameters": {"command": ["python", "-c", typed]}},
                {"type": "sleep", "parameters": {"seconds": 3}},
            ],
            "func": ["check_include_exclude", "exact_match"],
            "conj": "and",
            "result": [{"type": "vm_terminal_output"}, {"type": "vm_screen_size"}],
            "expected": [
                rule(json!({"include": ["a-42"], "exclude": ["nothing"]})),
                rule(json!({"expected": {"width": 1024, "height": 768}})),
            ],
        }),
    );
    write(
        folder.path(),
        "files",
        json!([{"type": "execute", "parameters": {"command": "echo one > ~/Desktop/a.jpg; cp ~/Desktop/a.jpg /tmp/b.jpg", "shell": true}}]),
        json!({
            "func": ["check_moved_jpgs", "compare_text_file", "exact_match"],
            "result": [
                {"type": "list_directory", "path": "/home/user/Desktop"},
                {"type": "vm_file", "path": "/home/user/Desktop/a.jpg", "dest": "a"},
                {"type": "vm_command_error", "command": "echo no >&2", "shell": true},
            ],
            "expected": [
                rule(json!({"expected": ["a.jpg"]})),
                {"type": "vm_file", "path": "/tmp/b.jpg", "dest": "b"},
                rule(json!({"expected": "no\n"})),
            ],
        }),
    );
    write(folder.path(), "impossible", json!([]), json!({"func": "infeasible"}));
    write(
        folder.path(),
        "foreign",
        json!([{"type": "download", "parameters": {"files": []}}]),
        json!({"func": "compare_table", "result": {"type": "vm_file", "path": "/a", "dest": "a"}}),
    );
    let settings = Settings { tasks: Some(folder.path().to_owned()), held_out: 0, ..Settings::default() };
    let Some(environment) = desktop(settings) else { return };
    assert_eq!(environment.tasks(Split::Train), Some(3), "one lacks something");
    for (id, ending, success) in [
        ("terminal", "done", true),
        ("files", "done", true),
        ("files", "fail", false),
        ("impossible", "fail", true),
        ("impossible", "done", false),
    ] {
        let (mut world, _) = begun(&environment, id);
        let outcome = world.step(&call(ending, json!({}))).expect("a step");
        assert!(outcome.done, "{outcome:?}");
        let verdict = world.evaluate().expect("a verdict");
        assert_eq!(verdict.success, success, "{id} {ending}: {verdict:?}");
    }
}

#[test]
#[ignore = "it measures: run it by name, alone"]
fn what_a_desktop_costs() {
    let Some(environment) = of_family(Family::Form) else { return };
    let mut world = environment.open().expect("it opens");
    let task = environment.task(Split::Train, 0).expect("a task");
    let (mut starts, mut steps) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let began = Instant::now();
        let first = world.reset(&task).expect("it begins");
        starts.push(began.elapsed());
        let number = number_of(&list(&first), "textbox", "");
        for text in ["one", "two", "three"] {
            let began = Instant::now();
            world.step(&call("type", json!({"id": number, "text": text}))).expect("a step");
            steps.push(began.elapsed());
        }
    }
    starts.sort();
    steps.sort();
    eprintln!(
        "start {:?}, a step that types {:?} (medians)",
        starts[starts.len() / 2],
        steps[steps.len() / 2]
    );
    let names: HashSet<&str> =
        ["Xvfb", "openbox", "dbus-daemon", "at-spi2-registr", "zenity"].into_iter().collect();
    for (name, kib) in shares(&names) {
        eprintln!("{name}: {} MiB", kib / 1024);
    }
}

/// Proportional shares of memory of processes with these names, in KiB.
fn shares(names: &HashSet<&str>) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default().trim().to_owned();
        if names.contains(name.as_str()) {
            let rollup = fs::read_to_string(entry.path().join("smaps_rollup")).unwrap_or_default();
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok());
            all.extend(kib.map(|kib| (name, kib)));
        }
    }
    all
}

#[test]
fn a_program_that_crashes_is_no_verdict_and_one_that_ends_is() {
    let folder = tempfile::tempdir().expect("a folder");
    for signal in ["SEGV", "TERM"] {
        let program = json!({"command": format!("kill -{signal} $$"), "shell": true});
        let there = json!({"command": "ls /tmp/desktop/crashed", "shell": true, "until": {"returncode": 0}});
        write(
            folder.path(),
            signal,
            json!([{"type": "launch", "parameters": program}, {"type": "execute", "parameters": there}]),
            json!({
                "func": "exact_match",
                "result": {"type": "vm_screen_size"},
                "expected": {"type": "rule", "rules": {"expected": {"width": 1024, "height": 768}}},
            }),
        );
    }
    let settings = Settings { tasks: Some(folder.path().to_owned()), held_out: 0, ..Settings::default() };
    let Some(environment) = desktop(settings) else { return };
    for (signal, valid) in [("SEGV", false), ("TERM", true)] {
        let (mut world, _) = begun(&environment, signal);
        world.step(&done()).expect("it can be said");
        let verdict = world.evaluate();
        assert_eq!(verdict.is_ok(), valid, "{signal}: {verdict:?}");
        assert_eq!(verdict.is_err(), matches!(verdict, Err(WorldError::Invalid(_))), "{verdict:?}");
    }
}
