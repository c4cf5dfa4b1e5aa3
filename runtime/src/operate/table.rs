//! What `status` prints.

use super::columns::{Column, lines, short};
use crate::{
    admin::{ActorStatus, NodeStatus},
    measures::span,
};

/// Characters of a reason that the table shows; `--json` has all of them.
const REASON_CHARS: usize = 120;

/// What stands above the columns.
pub const HEADINGS: [&str; 7] = ["NAME", "STATE", "VERSION", "UP", "RESTARTS", "INBOX", "DETAIL"];

/// A line about the node, an empty one, and the table; without a line break at the end.
pub fn render(status: &NodeStatus, colours: bool) -> String {
    let mut out = vec![header(status), String::new()];
    if status.actors.is_empty() {
        out.push("it is starting".to_owned());
        return out.join("\n");
    }
    let [name, state, version, up, restarts, inbox, detail] = HEADINGS;
    let columns = [
        Column::Left(name),
        Column::Left(state),
        Column::Right(version),
        Column::Right(up),
        Column::Right(restarts),
        Column::Right(inbox),
        Column::Left(detail),
    ];
    let rows: Vec<_> = status.actors.iter().map(row).collect();
    let mut table = lines(&columns, &rows).into_iter();
    out.extend(table.next());
    for (line, actor) in table.zip(&status.actors) {
        out.push(if colours { coloured(&line, &actor.state) } else { line });
    }
    out.join("\n")
}

fn header(status: &NodeStatus) -> String {
    let NodeStatus { run, node, version, sessions, journal, .. } = status;
    let up = span(status.uptime_secs);
    let journal = match (journal.healthy, journal.detail.as_str()) {
        (true, "") => "journal ok".to_owned(),
        (true, detail) => format!("journal ok, {detail}"),
        (false, detail) => format!("journal FAILING: {}", short(detail, REASON_CHARS)),
    };
    let stopping = if status.stopping { "  STOPPING" } else { "" };
    format!("{run} on {node}  version {version}  {sessions} sessions  up {up}  {journal}{stopping}")
}

/// An actor's cells.
pub fn row(actor: &ActorStatus) -> [String; 7] {
    let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
    [
        actor.name.clone(),
        actor.state.clone(),
        or_dash(actor.version.map(|version| version.to_string())),
        or_dash(actor.up_secs.map(span)),
        actor.restarts.to_string(),
        or_dash(actor.inbox.as_ref().map(|inbox| (inbox.waiting + inbox.leased).to_string())),
        detail(actor),
    ]
}

/// What the role says; for one that is not well, why, and what brings it back.
fn detail(actor: &ActorStatus) -> String {
    let (name, role) = (&actor.name, &actor.role);
    let said =
        actor.advice.as_ref().map_or_else(|| actor.detail.clone(), |advice| join(&actor.detail, advice));
    let reason = actor.last_error.as_deref().map(|reason| {
        let ago = span(actor.last_error_secs.unwrap_or_default());
        format!("{} ({ago} ago)", short(reason, REASON_CHARS))
    });
    let reason = reason.as_deref();
    match actor.state.as_str() {
        "failed" => join(reason.unwrap_or("ended"), &format!("`openclaw-rl restart {name}`")),
        "stuck" => join(reason.unwrap_or("does not answer"), &format!("`openclaw-rl restart {name}`")),
        "paused" => join(&said, &format!("`openclaw-rl resume {role}`")),
        _ => match reason {
            Some(reason) => join(&said, &format!("last: {reason}")),
            None => said,
        },
    }
}

fn join(first: &str, second: &str) -> String {
    if first.is_empty() { second.to_owned() } else { format!("{first}; {second}") }
}

fn coloured(line: &str, state: &str) -> String {
    let colour = match state {
        "running" => "32",
        "failed" | "stuck" => "1;31",
        "stopped" => "2",
        _ => "33",
    };
    // The state is the second word: no name holds a blank.
    let start = line.find("  ").map_or(0, |end| end + line[end..].len() - line[end..].trim_start().len());
    let (before, rest) = line.split_at(start);
    let after = rest.strip_prefix(state).unwrap_or(rest);
    format!("{before}\x1b[{colour}m{state}\x1b[0m{after}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{InboxView, JournalStatus};

    fn node() -> NodeStatus {
        let actor = |name: &str, state: &str| ActorStatus {
            name: name.into(),
            role: name.split('.').next().unwrap().into(),
            state: state.into(),
            up_secs: Some(7384.0).filter(|_| state != "failed"),
            ..ActorStatus::default()
        };
        let inbox = |waiting, leased| Some(InboxView { waiting, leased, ..InboxView::default() });
        NodeStatus {
            run: "personal-agent".into(),
            node: "local".into(),
            version: 118,
            sessions: 412,
            uptime_secs: 7384.0,
            journal: JournalStatus { healthy: true, detail: "12 MiB".into() },
            actors: vec![
                ActorStatus {
                    version: Some(118),
                    inbox: inbox(2, 0),
                    detail: "2 sequences".into(),
                    ..actor("policy.0", "running")
                },
                ActorStatus {
                    restarts: 5,
                    inbox: inbox(37, 4),
                    last_error: Some("engine ended: out of\nmemory".into()),
                    last_error_secs: Some(12.0),
                    ..actor("judge.0", "failed")
                },
                ActorStatus {
                    detail: "0 in flight".into(),
                    inbox: inbox(1, 0),
                    ..actor("teacher.0", "paused")
                },
            ],
            ..NodeStatus::default()
        }
    }

    #[test]
    fn a_node_is_a_line_and_a_table_and_what_failed_says_how_it_comes_back() {
        let expected = "\
personal-agent on local  version 118  412 sessions  up 2h03m  journal ok, 12 MiB

NAME       STATE    VERSION     UP  RESTARTS  INBOX  DETAIL
policy.0   running      118  2h03m         0      2  2 sequences
judge.0    failed         -      -         5     41  engine ended: out of memory (12s ago); `openclaw-rl restart judge.0`
teacher.0  paused         -  2h03m         0      1  0 in flight; `openclaw-rl resume teacher`";
        assert_eq!(render(&node(), false), expected);
    }

    #[test]
    fn colours_change_nothing_but_the_colour() {
        let coloured = render(&node(), true);
        assert!(coloured.contains("\x1b[32mrunning\x1b[0m") && coloured.contains("\x1b[1;31mfailed\x1b[0m"));
        let plain = ["\x1b[32m", "\x1b[1;31m", "\x1b[33m", "\x1b[0m"];
        assert_eq!(plain.iter().fold(coloured, |text, code| text.replace(code, "")), render(&node(), false));
    }

    #[test]
    fn a_sick_journal_and_a_stop_are_in_the_first_line() {
        let journal = JournalStatus { healthy: false, detail: "disk full".into() };
        let told = render(&NodeStatus { journal, stopping: true, ..node() }, false);
        let first = told.lines().next().unwrap();
        assert!(first.ends_with("journal FAILING: disk full  STOPPING"), "{first}");
    }
}
