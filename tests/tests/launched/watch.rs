//! `status --watch` on a terminal: what it shows of a launched node, what its keys do, and how it leaves.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use openclaw_tests::{Launch, Terminal, binary, eventually};
use serde_json::Value;

struct House {
    _dir: tempfile::TempDir,
    run: PathBuf,
    launch: Launch,
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let run = dir.path().join("run");
        let launch = Launch::new("configs/personal-agent.toml", &run);
        Self { _dir: dir, run, launch }
    }

    fn watch(&self, size: (u16, u16)) -> Terminal {
        Terminal::start(
            &binary(),
            &["status", "--watch"],
            &[("OPENCLAW_RUN", self.run.as_os_str()), ("RUST_LOG", OsStr::new("off"))],
            size,
        )
    }
}

/// What the node's supervisor says of an actor.
fn actor(run: &Path, name: &str) -> Value {
    let output = Command::new(binary()).args(["status", "--json"]).env("OPENCLAW_RUN", run).output();
    let output = output.expect("the binary can be run");
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let actors = status["actors"].as_array().expect("actors");
    actors.iter().find(|actor| actor["name"] == name).expect("it is there").clone()
}

fn chosen(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix('▸')?.split_whitespace().next())
}

#[tokio::test]
async fn an_actor_is_restarted_by_key_and_the_terminal_is_given_back() {
    let house = House::new();
    let _node = house.launch.start();
    let mut watch = house.watch((100, 30));
    let before = watch.settings();
    watch.shows("the actors", |text| text.starts_with("personal-agent") && text.contains("▸admin")).await;
    assert!(watch.look(vt100::Screen::alternate_screen) && watch.look(vt100::Screen::hide_cursor));

    while chosen(&watch.text()) != Some("judge.0") {
        let last = watch.text();
        watch.type_in("j");
        watch.shows("another choice", |text| chosen(text) != chosen(&last)).await;
    }
    watch.type_in("r");
    watch.shows("a question", |text| text.trim_end().ends_with("restart judge.0? y/n")).await;
    assert_eq!(actor(&house.run, "judge.0")["restarts"], 0, "it asks first");
    watch.type_in("y");
    watch.shows("the answer", |text| text.trim_end().ends_with("judge.0 restarted")).await;
    assert_eq!(actor(&house.run, "judge.0")["restarts"], 1);

    watch.type_in("K");
    watch.type_in("y");
    watch.shows("the kill", |text| text.contains("judge.0 killed")).await;
    watch.type_in("\r");
    watch.shows("the detail", |text| text.contains("2 restarts") && text.contains("last error")).await;
    watch.resize(44, 12);
    watch
        .shows("the narrow picture", |text| {
            !text.contains("▸judge.0") && text.contains("2 restarts") && text.contains("r restart")
        })
        .await;

    watch.type_in("q");
    assert_eq!(watch.exit_code().await, 0, "{}", watch.text());
    let is_back = |screen: &vt100::Screen| !screen.alternate_screen() && !screen.hide_cursor();
    assert!(watch.look(is_back), "{}", watch.text());
    assert_eq!(watch.settings(), before);
}

#[tokio::test]
async fn a_node_that_hangs_or_goes_away_is_found_again_and_a_sigterm_gives_the_terminal_back() {
    let house = House::new();
    let node = house.launch.start();
    let mut watch = house.watch((80, 24));
    let before = watch.settings();
    watch.shows("the actors", |text| text.contains("▸admin")).await;

    // One that hangs holds up no key.
    node.signal("STOP");
    watch.shows("its silence", |text| text.contains("NO ANSWER for")).await;
    watch.type_in("j");
    watch.shows("the next choice", |text| text.contains("▸journal")).await;
    node.signal("CONT");
    watch.shows("its voice", |text| !text.contains("NO ANSWER") && !text.contains("GONE")).await;

    node.kill();
    watch.shows("its absence", |text| text.contains("GONE for") && text.contains("openclaw-rl launch")).await;
    let _again = house.launch.start();
    watch.shows("the one that came back", |text| text.contains("▸journal") && !text.contains("GONE")).await;
    watch.signal("TERM");
    assert_eq!(watch.exit_code().await, 0);
    assert!(!watch.look(vt100::Screen::alternate_screen));
    assert_eq!(watch.settings(), before);
}

#[tokio::test]
async fn elsewhere_it_is_the_table_again_and_again() {
    let house = House::new();
    let _node = house.launch.start();
    let variables = [("OPENCLAW_RUN", house.run.as_os_str()), ("TERM", OsStr::new("dumb"))];
    let mut dumb = Terminal::start(&binary(), &["status", "--watch"], &variables, (120, 60));
    let tables = |text: &str| text.lines().filter(|line| line.starts_with("NAME ")).count();
    dumb.shows("a second table", |text| tables(text) > 1).await;
    assert!(!dumb.look(vt100::Screen::alternate_screen));
    dumb.type_in("\x03");
    assert_eq!(dumb.exit_code().await, 0);

    let path = house.run.join("watched");
    let file = std::fs::File::create(&path).expect("the folder is there");
    let mut command = Command::new(binary());
    command.args(["status", "--watch"]).env("OPENCLAW_RUN", &house.run).stdin(Stdio::null()).stdout(file);
    let mut child = command.spawn().expect("the binary can be run");
    let written = || std::fs::read_to_string(&path).expect("it is text");
    let twice = eventually(async || tables(&written()) > 1).await;
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert!(twice.is_ok() && !written().contains('\x1b'), "{}", written());
}
