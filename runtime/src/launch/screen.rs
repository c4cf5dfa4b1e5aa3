//! What a person at a terminal reads of a launch, in place of log lines: where it serves and what happens next, how it
//! ended with the simulated users, and what to type. Pure: `launch` knows when, and who is there.

use std::path::Path;

use crate::{cells::wrap, printable::printable};

/// Cells of a line: a terminal of 80 shows it whole.
const COLUMNS: usize = 78;
/// Changed keys that are shown.
const MOST_CHANGES: usize = 10;
/// Cells of what stands before a fact.
const LABEL: usize = 10;

/// What is shown once it serves.
pub struct Welcome<'a> {
    /// The run's name.
    pub run: &'a str,
    /// The policy's checkpoint folder.
    pub model: &'a Path,
    /// Where tensors live.
    pub device: &'a str,
    /// Where clients connect.
    pub url: &'a str,
    /// The model's name in the API.
    pub served_model: &'a str,
    /// Whether there is a page.
    pub page: bool,
    /// The run's folder.
    pub dir: &'a Path,
    /// The version and the step that it goes on with; 0 for a run that begins.
    pub goes_on: (u64, u64),
    /// Names of the simulated users.
    pub users: &'a [&'a str],
    /// Keys that differ from the run's last launch, each with what it was and is.
    pub changed: &'a [String],
    /// How this program was called.
    pub program: &'a str,
}

/// The first screen.
pub fn welcome(of: &Welcome<'_>) -> String {
    let (version, step) = of.goes_on;
    let run = match version {
        0 => format!("{} (it begins)", of.dir.display()),
        _ => format!("{} (it goes on: version {version}, step {step})", of.dir.display()),
    };
    let mut lines = vec![format!("openclaw-rl: {}", of.run)];
    lines.extend(fact("model", &format!("{} on {}", of.model.display(), of.device)));
    lines.extend(fact("serves", &format!("{} as \"{}\"", of.url, of.served_model)));
    lines.extend(fact("run", &run));
    for changed in of.changed.iter().take(MOST_CHANGES) {
        lines.extend(fact("changed", changed));
    }
    if let Some(more @ 1..) = of.changed.len().checked_sub(MOST_CHANGES) {
        lines.extend(fact("", &format!("and {more} keys more, all in topology.toml of that folder")));
    }
    lines.push(String::new());
    let program = of.program;
    let next = match of.users {
        [] => format!(
            "Nobody talks to it yet: point any OpenAI client at the address above, or type `{program} chat` in \
             another terminal. It learns from what you say next."
        ),
        users => format!(
            "{} talk to it now: {}. Each complains until the first reply is to its taste, and the model learns \
             from that while it serves on. You may join in from another terminal: `{program} chat`{}.",
            people(users.len()),
            list(users),
            if of.page { format!(", or watch: `{program} page`") } else { String::new() },
        ),
    };
    lines.extend(wrap(&next, COLUMNS));
    lines.push("Ctrl-C stops it in order.".to_owned());
    lines.join("\n") + "\n\n"
}

fn fact(label: &str, told: &str) -> Vec<String> {
    let lines = wrap(told, COLUMNS - LABEL).into_iter().enumerate();
    lines.map(|(i, line)| format!("  {:<8}{line}", if i == 0 { label } else { "" })).collect()
}

fn people(count: usize) -> String {
    match count {
        1 => "One simulated user".to_owned(),
        2 => "Two simulated users".to_owned(),
        3 => "Three simulated users".to_owned(),
        _ => format!("{count} simulated users"),
    }
}

/// `a`, `a and b`, `a, b and c`.
fn list(names: &[impl AsRef<str>]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// How it ended with one simulated user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Its conversations until three first replies in a row kept its rule; none when it gave up.
    pub content_after: Option<u64>,
    /// All of its conversations.
    pub conversations: u64,
}

/// One question, answered before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Who asked it.
    pub user: String,
    /// The question.
    pub asked: String,
    /// The version that answered first, and what it said.
    pub before: (u64, String),
    /// The version that answers now, and what it says.
    pub now: (u64, String),
}

/// What is typed next.
pub struct Next<'a> {
    /// Whether the node serves on.
    pub serves_on: bool,
    /// Whether there is a page.
    pub page: bool,
    /// The topology file.
    pub file: &'a Path,
    /// The current version.
    pub version: u64,
    /// How this program was called.
    pub program: &'a str,
}

/// The last screen: who is content, a question before and after, and what to type.
pub fn closing(outcomes: &[Outcome], pair: Option<&Pair>, next: &Next<'_>) -> String {
    let mut lines = vec![String::new()];
    lines.extend(wrap(&contentment(outcomes), COLUMNS));
    if let Some(pair) = pair {
        let asked = format!("The same question before and after. The {} asked:", pair.user);
        lines.extend([String::new(), asked]);
        lines.extend(said(&pair.asked));
        for (when, (version, reply)) in [("before", &pair.before), ("now", &pair.now)] {
            lines.push(format!("{when}, version {version}:"));
            lines.extend(said(reply));
        }
    }
    let Next { program, file, version, .. } = next;
    lines.push(String::new());
    let file = file.display();
    let mut typed = Vec::new();
    if next.serves_on {
        lines.push("It serves on. Type in another terminal:".to_owned());
        typed.push((format!("{program} chat"), "talk to it; it learns from you"));
        if next.page {
            typed.push((format!("{program} page"), "what was said, and what it taught"));
        }
        typed.push((format!("{program} status --watch"), "what each part does"));
    } else {
        lines.push("It ends here, as --exit-when-satisfied asked. Type:".to_owned());
        typed.push((format!("{program} launch {file}"), "it goes on, and serves"));
    }
    let widest = typed.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0);
    let beside = typed.iter().all(|(_, does)| widest + does.len() + 4 <= COLUMNS);
    for (command, does) in typed {
        match beside {
            true => lines.push(format!("  {command:<widest$}  {does}")),
            false => lines.extend([format!("  {command}"), format!("      {does}")]),
        }
    }
    lines.push("For an agent of your own:".to_owned());
    lines.push(format!("  {program} launch configs/personal-agent.toml"));
    if next.serves_on {
        lines.push(format!(
            "Ctrl-C stops it. Launched again it goes on from version {version}; --fresh starts anew."
        ));
    }
    lines.join("\n") + "\n\n"
}

fn contentment(outcomes: &[Outcome]) -> String {
    let after = |name: &str, sessions: u64| format!("{name} after {sessions}");
    let mut content = Vec::new();
    let mut gave_up = Vec::new();
    for Outcome { name, content_after, conversations } in outcomes {
        match content_after {
            Some(sessions) => content.push(after(name, *sessions)),
            None => gave_up.push(after(name, *conversations)),
        }
    }
    let rule = "three first replies in a row were to its taste";
    match (content.len(), gave_up.len()) {
        (1, 0) => format!("The simulated user is content: {} conversations, {rule}.", content[0]),
        (_, 0) => {
            let all =
                if content.len() == 2 { "Both".to_owned() } else { format!("All {}", number(content.len())) };
            format!("{all} are content: {} conversations. For each, {rule}.", list(&content))
        }
        (0, _) => format!("Nobody is content: {} conversations gave up.", list(&gave_up)),
        _ => format!("Content: {} conversations. Gave up: {}.", list(&content), list(&gave_up)),
    }
}

fn number(count: usize) -> String {
    match count {
        3 => "three".to_owned(),
        4 => "four".to_owned(),
        _ => count.to_string(),
    }
}

/// What was said, indented.
fn said(text: &str) -> Vec<String> {
    let lines = wrap(&printable(text), COLUMNS - 4).into_iter();
    lines.map(|line| format!("    {line}").trim_end().to_owned()).collect()
}

/// The last line: it has stopped, and how to go on.
pub fn stopped(program: &str, file: &Path, dir: &Path, version: u64) -> String {
    let kept = format!("Stopped. Version {version} is kept in {}.", dir.display());
    format!("{kept} To go on: {program} launch {}\n", file.display())
}

/// How this program is called from here, for commands that are shown.
pub fn program() -> String {
    let called = std::env::args().next().unwrap_or_default();
    let here = std::env::current_dir().ok();
    let below = here.as_deref().and_then(|here| Path::new(&called).strip_prefix(here).ok());
    match below.map_or(called.clone(), |below| below.display().to_string()) {
        empty if empty.is_empty() => "openclaw-rl".to_owned(),
        called => called,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(name: &str, content_after: Option<u64>, conversations: u64) -> Outcome {
        Outcome { name: name.into(), content_after, conversations }
    }

    #[test]
    fn the_first_screen_says_where_it_serves_and_what_happens() {
        let told = welcome(&Welcome {
            run: "quickstart",
            model: Path::new("configs/models/nano"),
            device: "cpu",
            url: "http://127.0.0.1:30000/v1",
            served_model: "policy",
            page: true,
            dir: Path::new("runs/quickstart"),
            goes_on: (0, 0),
            users: &["student", "ta", "teacher"],
            changed: &[],
            program: "openclaw-rl",
        });
        let expected = "\
openclaw-rl: quickstart
  model   configs/models/nano on cpu
  serves  http://127.0.0.1:30000/v1 as \"policy\"
  run     runs/quickstart (it begins)

Three simulated users talk to it now: student, ta and teacher. Each complains
until the first reply is to its taste, and the model learns from that while it
serves on. You may join in from another terminal: `openclaw-rl chat`, or
watch: `openclaw-rl page`.
Ctrl-C stops it in order.

";
        assert_eq!(told, expected);
    }

    #[test]
    fn the_last_screen_says_who_is_content_what_changed_and_what_to_type() {
        let outcomes =
            [outcome("student", Some(13), 15), outcome("ta", Some(11), 12), outcome("teacher", Some(16), 16)];
        let pair = Pair {
            user: "student".into(),
            asked: "Tom has 12 apples and gets 7 more. How many apples are there now?".into(),
            before: (0, "**Solution**\n1. 12 + 7 = 19\n**Result:** \\boxed{19}".into()),
            now: (5, "We have 12 + 7 = 19, so it is 19 apples.".into()),
        };
        let mut next = Next {
            serves_on: true,
            page: true,
            file: Path::new("configs/quickstart.toml"),
            version: 5,
            program: "openclaw-rl",
        };
        let expected = "
All three are content: student after 13, ta after 11 and teacher after 16
conversations. For each, three first replies in a row were to its taste.

The same question before and after. The student asked:
    Tom has 12 apples and gets 7 more. How many apples are there now?
before, version 0:
    **Solution**
    1. 12 + 7 = 19
    **Result:** \\boxed{19}
now, version 5:
    We have 12 + 7 = 19, so it is 19 apples.

It serves on. Type in another terminal:
  openclaw-rl chat            talk to it; it learns from you
  openclaw-rl page            what was said, and what it taught
  openclaw-rl status --watch  what each part does
For an agent of your own:
  openclaw-rl launch configs/personal-agent.toml
Ctrl-C stops it. Launched again it goes on from version 5; --fresh starts anew.

";
        assert_eq!(closing(&outcomes, Some(&pair), &next), expected);
        next.serves_on = false;
        let told = closing(&outcomes, None, &next);
        assert!(
            told.contains("openclaw-rl launch configs/quickstart.toml") && !told.contains("before"),
            "{told}"
        );
    }

    #[test]
    fn who_gave_up_is_said() {
        let told = |outcomes: &[Outcome]| contentment(outcomes);
        let both = [outcome("student", Some(9), 9), outcome("ta", None, 72)];
        assert_eq!(told(&both), "Content: student after 9 conversations. Gave up: ta after 72.");
        assert!(told(&both[1..]).starts_with("Nobody is content: ta after 72"));
        assert!(told(&both[..1]).starts_with("The simulated user is content: student after 9"));
    }

    #[test]
    fn what_a_model_says_does_not_steer_the_terminal() {
        let lines = said("a\x1b[2Jb");
        assert_eq!(lines, ["    a�[2Jb"]);
    }
}
