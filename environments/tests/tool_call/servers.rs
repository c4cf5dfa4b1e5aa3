//! Tools of servers, beside the code tool and alone.

use std::{fs, path::PathBuf, process::Command, thread};

use openclaw_environments::world::{Environment, Split, World, WorldError, text_of};
use serde_json::json;

use super::{
    host::{answer, begin, call, code, environment, has_python, has_sandbox, result},
    machine::{eventually, with_marker},
};

/// The fixture.
fn server() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tool_call/server.py")
}

/// Settings with a server whose process can be told by `marker`.
fn settings(marker: &str) -> String {
    format!("[[mcp]]\nname = \"sums\"\ncommand = [\"python3\", \"-X\", \"{marker}\", {:?}]\n", server())
}

fn marker(name: &str) -> String {
    format!("{name}{}", std::process::id())
}

fn names(environment: &dyn Environment) -> Vec<String> {
    let task = environment.task(Split::Train, 0).expect("a task");
    task.tools.into_iter().map(|tool| tool.name).collect()
}

fn called(world: &mut dyn World, name: &str) -> (String, bool) {
    let outcome = world.step(&call(name, json!({"a": 2, "b": 40}))).expect("a step");
    (text_of(&result(&outcome).parts), result(&outcome).is_error)
}

#[test]
fn tools_of_a_server_are_offered_and_called_and_it_ends_with_its_world() {
    if !has_python() {
        return;
    }
    let marker = marker("ends");
    let alone = environment(&format!(
        "families = [\"tc1\"]\ninterpreter = false\ndecoy_tools = 0\n{}",
        settings(&marker)
    ));
    assert_eq!(names(&*alone), ["add", "draw", "fail", "hang", "quit"]);
    assert_eq!(with_marker(&marker), 0, "it was only asked");

    let (mut world, task) = begin(&*alone, Split::Train, 0);
    assert_eq!(with_marker(&marker), 1);
    assert_eq!(called(&mut *world, "add"), ("{\"sum\":42}".to_owned(), false));
    assert_eq!(called(&mut *world, "fail"), ("it failed".to_owned(), true));
    let (text, is_error) = called(&mut *world, "draw");
    assert!(
        !is_error && text.starts_with("a cat\n[image]\nxxx") && text.contains("bytes left out"),
        "{text}"
    );
    let outcome = world.step(&code("print(1)")).expect("a step");
    assert_eq!(text_of(&result(&outcome).parts), "There is no tool code_interpreter.");
    assert_eq!(outcome.rule, None, "the rule is of the code tool");
    assert_eq!(answer(&mut *world, "\\boxed{none}").numbers["calls"], 3.0);

    world.reset(&task).expect("it begins anew");
    assert_eq!(with_marker(&marker), 1, "the one of before has ended");
    world.close();
    world.close();
    assert_eq!(with_marker(&marker), 0);
    world.reset(&task).expect("it begins anew");
    drop(world);
    assert_eq!(with_marker(&marker), 0);
}

#[test]
fn a_server_that_hangs_or_ends_is_no_fault_of_the_agent_for_ever() {
    if !has_python() {
        return;
    }
    let marker = marker("hangs");
    let short = environment(&format!("step_secs = 4\n{}", settings(&marker)));
    let (mut world, task) = begin(&*short, Split::Train, 0);
    assert_eq!(called(&mut *world, "hang"), ("Ended: it took too long.".to_owned(), true));
    world.reset(&task).expect("it begins anew");
    let quit = world.step(&call("quit", json!({})));
    assert!(matches!(&quit, Err(WorldError::Broken(why)) if why.starts_with("mcp: sums: ")), "{quit:?}");
    world.reset(&task).expect("it begins anew");
    assert_eq!(called(&mut *world, "add").0, "{\"sum\":42}");
}

#[test]
fn an_interrupt_ends_a_call_of_a_server() {
    if !has_python() {
        return;
    }
    let marker = marker("waits");
    let long = environment(&format!("step_secs = 600\n{}", settings(&marker)));
    let (mut world, _) = begin(&*long, Split::Train, 0);
    let interrupt = world.interrupt();
    let (begins, begun) = std::sync::mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            eventually("the step is heard of", || {
                interrupt();
                begun.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected)
            });
        });
        assert_eq!(world.step(&call("hang", json!({}))), Err(WorldError::Interrupted));
        drop(begins);
    });
}

#[test]
fn both_kinds_of_tools_stand_side_by_side() {
    if !has_sandbox() {
        return;
    }
    let both = environment(&format!("families = [\"tc2\"]\ndecoy_tools = 0\n{}", settings(&marker("both"))));
    assert_eq!(names(&*both)[..2], ["code_interpreter", "add"]);
    let (mut world, _) = begin(&*both, Split::Train, 0);
    assert_eq!(called(&mut *world, "add").0, "{\"sum\":42}");
    let outcome = world.step(&code("print(40 + 2)")).expect("a step");
    assert_eq!(text_of(&result(&outcome).parts), "42");
}

#[test]
fn a_server_is_reached_by_http() {
    if !has_python() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let port = folder.path().join("port");
    let mut served = Command::new("python3").arg(server()).arg(&port).spawn().expect("it starts");
    eventually("it listens", || port.exists());
    let url = format!("http://127.0.0.1:{}/mcp", fs::read_to_string(&port).expect("a port"));
    let remote = environment(&format!("[[mcp]]\nname = \"sums\"\nurl = {url:?}"));
    let (mut world, _) = begin(&*remote, Split::Train, 0);
    assert_eq!(called(&mut *world, "add"), ("{\"sum\":42}".to_owned(), false));
    assert_eq!(called(&mut *world, "fail"), ("it failed".to_owned(), true));
    drop(world);
    served.kill().expect("it ends");
    served.wait().expect("it has ended");
}

#[test]
fn what_servers_cannot_be_is_told() {
    if !has_python() {
        return;
    }
    let problem = |settings: String| environment(&settings).task(Split::Train, 0).expect_err("it is refused");
    let twice = settings(&marker("twice"));
    let other = twice.replace("sums", "more");
    let same = WorldError::Settings("mcp: sums and more both offer add".into());
    assert_eq!(problem(format!("{twice}{other}")), same);
    let none = problem("[[mcp]]\nname = \"none\"\ncommand = [\"/there/is/none\"]".into());
    assert!(matches!(&none, WorldError::Refused(why) if why.contains("/there/is/none")), "{none:?}");
    let silent = problem("[[mcp]]\nname = \"silent\"\ncommand = [\"true\"]".into());
    assert!(matches!(&silent, WorldError::Broken(why) if why.starts_with("mcp: silent: ")), "{silent:?}");
}
