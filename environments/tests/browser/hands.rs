//! What these tests do on pages, and with the processes of browsers.

pub mod wob;

use std::{fs, path::Path};

use openclaw_environments::{
    browser::{Browsers, Settings, families::Move},
    world::{Action, Call, Observation, Task, World, text_of},
};
use serde_json::{Value, json};

use crate::machine::{can, has_sandbox};

const BROWSER: &str = "/usr/lib/chromium/chromium";

/// The environment, where there is a sandbox and a browser.
pub fn browsers(settings: Settings) -> Option<Browsers> {
    let has_browser = Path::new(BROWSER).exists();
    if !has_sandbox() || !can("no browser", has_browser, "install chromium") {
        return None;
    }
    Some(Browsers::new(Settings { changes: true, ..settings }).unwrap())
}

/// With browsers that no other test has: a path that says the same in other words.
pub fn marked(number: usize, settings: Settings) -> Option<(Browsers, String)> {
    let path = BROWSER.replace("/lib/", &format!("/lib/{}", "./".repeat(number)));
    // The slash in front makes one path no part of another.
    let marker = format!("/usr/lib/{}chromium/", "./".repeat(number));
    let browsers = browsers(Settings { browser: Some(path.into()), ..settings })?;
    Some((browsers, marker))
}

/// The browsers themselves, without what they have started.
pub fn browsers_with(marker: &str) -> Vec<i32> {
    let is_browser = |line: &str| line.starts_with(marker) && !line.contains("--type=");
    processes().into_iter().filter(|(_, _, line)| is_browser(line)).map(|(pid, ..)| pid).collect()
}

/// Processes of pages below a browser.
pub fn renderers_of(browser: i32) -> Vec<i32> {
    let all = processes();
    let mut below = vec![browser];
    let mut at = 0;
    while at < below.len() {
        let one = below[at];
        below.extend(all.iter().filter(|(_, parent, _)| *parent == one).map(|(pid, ..)| *pid));
        at += 1;
    }
    let is_renderer =
        |(pid, _, line): &&(i32, i32, String)| below.contains(pid) && line.contains("--type=renderer");
    all.iter().filter(is_renderer).map(|(pid, ..)| *pid).collect()
}

/// By number: its parent, and its arguments with zeros between them.
fn processes() -> Vec<(i32, i32, String)> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let of = |entry: fs::DirEntry| {
        let pid: i32 = entry.file_name().to_string_lossy().parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
        Some((pid, parent, String::from_utf8_lossy(&line).into_owned()))
    };
    entries.filter_map(of).collect()
}

pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process");
    // One that has ended meanwhile needs none.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

pub fn call(name: &str, arguments: Value) -> Action {
    let arguments = arguments.as_object().expect("an object").clone();
    Action::Calls(vec![Call { id: "c".into(), name: name.into(), arguments }])
}

pub fn click(id: u64) -> Action {
    call("click", json!({"id": id}))
}

pub fn type_in(id: u64, text: &str) -> Action {
    call("type", json!({"id": id, "text": text}))
}

pub fn done() -> Action {
    call("done", json!({}))
}

pub fn computer(action: &str, x: u32, y: u32) -> Action {
    call("computer_use", json!({"action": action, "coordinate": [x, y]}))
}

pub fn seen(observation: &Observation) -> String {
    text_of(&observation.parts)
}

/// The number of the first line of a list that has this.
#[track_caller]
pub fn numbered(list: &str, what: &str) -> u64 {
    find(list, what).unwrap_or_else(|| panic!("no {what} in\n{list}"))
}

pub fn find(list: &str, what: &str) -> Option<u64> {
    let numbers = list.lines().filter_map(|line| {
        let (number, rest) = line.strip_prefix('[')?.split_once("] ")?;
        Some((number.parse::<u64>().ok()?, rest))
    });
    let mut fitting = numbers.filter(|(_, rest)| rest.contains(what));
    fitting.next().map(|(number, _)| number)
}

/// What does a move of an oracle.
pub fn doing(act: &Move, list: &str) -> Action {
    match act {
        Move::Click(name) => {
            let roles = ["button", "checkbox", "radio"];
            let number = roles.iter().find_map(|role| find(list, &format!("{role} \"{name}\"")));
            click(number.unwrap_or_else(|| panic!("no {name} in\n{list}")))
        }
        Move::Type(name, text) => {
            let roles = ["textbox", "combobox"];
            let number = roles.iter().find_map(|role| find(list, &format!("{role} \"{name}\"")));
            type_in(number.unwrap_or_else(|| panic!("no {name} in\n{list}")), text)
        }
    }
}

/// An episode, by the words of its list.
pub struct Hands<'a> {
    world: &'a mut dyn World,
    pub list: String,
}

impl<'a> Hands<'a> {
    pub fn begin(world: &'a mut dyn World, task: &Task) -> Self {
        let list = seen(&world.reset(task).unwrap());
        Self { world, list }
    }

    #[track_caller]
    pub fn act(&mut self, action: Action) -> String {
        let outcome = self.world.step(&action).unwrap();
        let results = &outcome.observation.results;
        assert!(results.iter().all(|result| !result.is_error), "{action:?}: {results:?}");
        self.list = seen(&outcome.observation);
        results.iter().map(|result| text_of(&result.parts)).collect()
    }

    #[track_caller]
    pub fn click(&mut self, what: &str) -> String {
        self.act(click(numbered(&self.list, what)))
    }

    #[track_caller]
    pub fn type_into(&mut self, what: &str, text: &str) {
        self.act(type_in(numbered(&self.list, what), text));
    }

    /// What is said of an action that is refused.
    #[track_caller]
    pub fn refused(&mut self, action: Action) -> String {
        let outcome = self.world.step(&action).unwrap();
        let result = &outcome.observation.results[0];
        assert!(result.is_error && outcome.rule.is_some_and(|rule| rule.score == -1), "{outcome:?}");
        text_of(&result.parts)
    }
}
