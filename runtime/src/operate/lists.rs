//! What `dead`, `versions` and `audit` print.

use std::time::{SystemTime, UNIX_EPOCH};

use super::columns::{Column, lines, short, span};
use crate::admin::{AuditEntry, DeadTurn, VersionStatus};

/// Characters of a reason or a message that a list shows.
const CELL_CHARS: usize = 60;
/// Characters of a fingerprint that tell versions apart.
const FINGERPRINT_CHARS: usize = 12;

/// An id that means none of the dead turns, or several.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum NoSuchTurn {
    /// None.
    #[error("no dead turn begins with `{0}`; `openclaw-rl dead list` lists them")]
    None(String),
    /// Several.
    #[error("{1} dead turns begin with `{0}`")]
    Several(String, usize),
}

/// The dead turn whose id is or begins with `id`.
pub fn find<'a>(all: &'a [DeadTurn], id: &str) -> Result<&'a DeadTurn, NoSuchTurn> {
    if let Some(exact) = all.iter().find(|dead| dead.turn == id) {
        return Ok(exact);
    }
    let mut found = all.iter().filter(|dead| !id.is_empty() && dead.turn.starts_with(id));
    match (found.next(), found.count()) {
        (None, _) => Err(NoSuchTurn::None(id.to_owned())),
        (Some(dead), 0) => Ok(dead),
        (Some(_), more) => Err(NoSuchTurn::Several(id.to_owned(), more + 1)),
    }
}

/// `dead list`.
pub fn dead(all: &[DeadTurn]) -> String {
    let columns =
        [Column::Left("TURN"), Column::Left("INBOX"), Column::Left("REASON"), Column::Left("ASKED")];
    let row = |dead: &DeadTurn| {
        let (reason, asked) = (short(&dead.reason, CELL_CHARS), short(&dead.asked, CELL_CHARS));
        [dead.turn.clone(), dead.inbox.clone(), reason, asked]
    };
    lines(&columns, &all.iter().map(row).collect::<Vec<_>>()).join("\n")
}

/// `dead show`.
pub fn dead_turn(dead: &DeadTurn) -> String {
    let DeadTurn { turn, session, inbox, reason, asked, replied } = dead;
    format!(
        "turn     {turn}\nsession  {session}\ninbox    {inbox}\nreason   {reason}\n\nasked:\n{asked}\n\nreplied:\n{replied}"
    )
}

/// `versions`, the current one marked.
pub fn versions(all: &[VersionStatus]) -> String {
    let columns = [
        Column::Right("VERSION"),
        Column::Right("STEP"),
        Column::Left("STATE"),
        Column::Left("KEPT"),
        Column::Right("AGE"),
        Column::Left("FINGERPRINT"),
        Column::Left("REASON"),
    ];
    let row = |version: &VersionStatus| {
        let mark = if version.current { "*" } else { "" };
        [
            format!("{mark}{}", version.version),
            version.step.to_string(),
            version.state.clone(),
            if version.kept { "yes" } else { "no" }.to_owned(),
            age(version.made_unix_secs),
            version.fingerprint.chars().take(FINGERPRINT_CHARS).collect(),
            short(version.reason.as_deref().unwrap_or_default(), CELL_CHARS),
        ]
    };
    lines(&columns, &all.iter().map(row).collect::<Vec<_>>()).join("\n")
}

/// `audit`.
pub fn audit(all: &[AuditEntry]) -> String {
    let columns =
        [Column::Right("AGE"), Column::Left("VERB"), Column::Left("TARGET"), Column::Left("OUTCOME")];
    let row = |entry: &AuditEntry| {
        let target = short(&entry.target, CELL_CHARS);
        [age(entry.at_unix_secs), entry.verb.clone(), target, short(&entry.outcome, 2 * CELL_CHARS)]
    };
    lines(&columns, &all.iter().map(row).collect::<Vec<_>>()).join("\n")
}

fn age(unix_secs: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    span(now.as_secs_f64() - unix_secs as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(id: &str) -> DeadTurn {
        DeadTurn {
            turn: id.into(),
            inbox: "judge".into(),
            reason: "gave up\nafter 3".into(),
            ..DeadTurn::default()
        }
    }

    #[test]
    fn a_turn_is_found_by_how_it_begins_when_no_other_begins_so() {
        let all = [turn("4be1"), turn("4b"), turn("77c0")];
        assert_eq!(find(&all, "7").unwrap().turn, "77c0");
        assert_eq!(find(&all, "4b").unwrap().turn, "4b");
        assert_eq!(find(&all, "4"), Err(NoSuchTurn::Several("4".into(), 2)));
        assert_eq!(find(&all, "x"), Err(NoSuchTurn::None("x".into())));
        assert!(find(&all, "").is_err());
    }

    #[test]
    fn lists_have_a_line_each_and_mark_what_serves() {
        assert_eq!(
            dead(&[turn("4be1")]),
            "TURN  INBOX  REASON           ASKED\n4be1  judge  gave up after 3"
        );
        let serving = VersionStatus { version: 7, current: true, kept: true, ..VersionStatus::default() };
        let told = versions(&[serving]);
        assert!(told.lines().nth(1).unwrap().trim_start().starts_with("*7 "), "{told}");
    }
}
