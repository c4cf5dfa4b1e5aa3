//! Worlds in containers: a family of each kind that runs code is played to its end, as a config asks for it.

#[path = "../../sandbox/tests/host/daemon.rs"]
#[allow(dead_code, reason = "the suites of sandboxes use the rest of it")]
mod daemon;
mod docker_image;
#[allow(dead_code, reason = "not every suite looks")]
mod machine;

use docker_image as image;
use machine::{can, eventually};
use openclaw_environments::{
    registry::make,
    terminal::families::{self, Family, Knobs},
    world::{Action, Call, Split, World, text_of},
};
use serde_json::json;

/// A world of a kind, at its first task; none, with the reason told, where no daemon can run.
fn begun(kind: &str, family: &str) -> Option<Box<dyn World>> {
    if let Some(why) = std::env::var_os("OPENCLAW_WITHOUT_DOCKER") {
        eprintln!("skipped, {}", why.display());
        return None;
    }
    let socket = match daemon::socket() {
        Ok(socket) => socket,
        Err(why) => {
            can("no daemon of docker runs here", false, &why);
            return None;
        }
    };
    let settings = format!(
        "families = [\"{family}\"]\nsandbox = \"docker\"\nimage = \"{}\"\nsocket = \"{}\"",
        daemon::IMAGE,
        socket.display()
    );
    let environment = make(kind, settings.parse().unwrap()).unwrap();
    environment.ready().unwrap();
    let mut world = environment.open().unwrap();
    world.reset(&environment.task(Split::Train, 0).unwrap()).unwrap();
    Some(world)
}

fn call(tool: &str, argument: &str, value: &str) -> Action {
    let arguments = [(argument.to_owned(), json!(value))].into_iter().collect();
    Action::Calls(vec![Call { id: "c".into(), name: tool.into(), arguments }])
}

#[test]
fn a_terminal_is_a_container_and_its_plan_is_right_there() {
    let Some(mut world) = begun("terminal", "te1") else { return };
    for command in &families::task(Family::Moves, Split::Train, 0, &Knobs::default()).plan {
        let outcome = world.step(&call("bash", "command", command)).unwrap();
        assert_eq!(outcome.rule.map(|rule| rule.score), Some(1), "{command}: {outcome:?}");
    }
    assert!(world.step(&Action::Text("Done.".into())).unwrap().done);
    assert!(world.evaluate().unwrap().success);
}

#[test]
fn python_runs_in_a_container() {
    let Some(mut world) = begun("tool_call", "tc1") else { return };
    let code = "import json, os\nopen('kept', 'w').write('7')\nprint(json.dumps(6 * 7), os.path.exists('/.dockerenv'))";
    let outcome = world.step(&call("code_interpreter", "code", code)).unwrap();
    assert_eq!(text_of(&outcome.observation.results[0].parts).trim(), "42 True", "{outcome:?}");
    let outcome = world.step(&call("code_interpreter", "code", "print(open('kept').read())")).unwrap();
    assert_eq!(text_of(&outcome.observation.results[0].parts).trim(), "7", "{outcome:?}");
}
