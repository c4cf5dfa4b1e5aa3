//! What `dead`, `versions` and `audit` print.

use std::time::{SystemTime, UNIX_EPOCH};

use super::columns::{Column, lines, short};
use crate::{
    admin::{AuditEntry, DeadTurn, DeadTurnStory, StandingWish},
    measures::span,
    printable::printable,
    versions::VersionStatus,
};

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
    let columns = [
        Column::Left("TURN"),
        Column::Left("STATE"),
        Column::Left("INBOX"),
        Column::Right("TRIES"),
        Column::Right("AGE"),
        Column::Left("WHY"),
    ];
    let row = |dead: &DeadTurn| {
        let (tries, age) = (dead.attempts.to_string(), age(dead.died_unix_secs));
        let why = printable(dead.reason.as_deref().unwrap_or("-")).into_owned();
        [dead.turn.clone(), dead.state.clone(), dead.inbox.clone(), tries, age, why]
    };
    lines(&columns, &all.iter().map(row).collect::<Vec<_>>()).join("\n")
}

/// `dead show`.
pub fn dead_turn(story: &DeadTurnStory) -> String {
    let DeadTurn { turn, state, inbox, attempts, reason, died_unix_secs } = &story.dead;
    let why = printable(reason.as_deref().unwrap_or("not known"));
    let mut told = format!(
        "turn     {turn}\nsession  {}\nstate    {state}\ninbox    {inbox}: {attempts} tries, {} ago\nwhy      {why}\n\
         retry    openclaw-rl dead retry {turn}\ndrop     openclaw-rl dead drop {turn}",
        story.session,
        age(*died_unix_secs)
    );
    let reward = story.reward.map(|reward| format!("{reward:+}"));
    let parts = [
        ("asked", Some(&story.asked)),
        ("thought", Some(&story.thought).filter(|thought| !thought.is_empty())),
        ("replied", Some(&story.replied)),
        ("followed", story.followed.as_ref()),
        ("reward", reward.as_ref()),
    ];
    let hints = story.hints.iter().map(|hint| ("hint", hint));
    for (title, text) in parts.into_iter().filter_map(|(title, text)| Some((title, text?))).chain(hints) {
        told += &format!("\n\n{title}:\n{}", printable(text));
    }
    told
}

/// `versions`.
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
        [
            version.version.map_or_else(|| "-".to_owned(), |number| number.to_string()),
            version.step.to_string(),
            version.state.clone(),
            if version.kept { "yes" } else { "no" }.to_owned(),
            if version.made_unix_secs == 0 { "-".to_owned() } else { age(version.made_unix_secs) },
            version.fingerprint.chars().take(FINGERPRINT_CHARS).collect(),
            short(version.reason.as_deref().unwrap_or_default(), CELL_CHARS),
        ]
    };
    lines(&columns, &all.iter().map(row).collect::<Vec<_>>()).join("\n")
}

/// `wishes list`.
pub fn wishes(all: &[StandingWish]) -> String {
    let columns =
        [Column::Right("WISH"), Column::Right("AGE"), Column::Left("PERSON"), Column::Left("WISHED FOR")];
    let row = |standing: &StandingWish| {
        let person = standing.person.as_deref().unwrap_or("-").chars().take(8).collect();
        let text = short(&standing.text, 2 * CELL_CHARS);
        [standing.wish.to_string(), age(standing.at_unix_secs), person, text]
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
        let reason = Some("slow: raise `a.key`".into());
        DeadTurn {
            turn: id.into(),
            state: "followed".into(),
            inbox: "judge".into(),
            reason,
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
    fn a_dead_turn_is_told_with_what_was_said() {
        let story = DeadTurnStory {
            dead: turn("4be1"),
            asked: "why?\x1b[2J".into(),
            reward: Some(-1),
            hints: vec!["say why".into()],
            ..DeadTurnStory::default()
        };
        let told = dead_turn(&story);
        assert!(told.contains("dead retry 4be1") && told.contains("\nasked:\nwhy?�[2J\n"), "{told}");
        assert!(told.contains("\nreward:\n-1") && told.ends_with("\nhint:\nsay why"), "{told}");
        assert!(!told.contains("followed:") && !told.contains("thought:"), "{told}");
        let told = dead_turn(&DeadTurnStory { thought: "hm".into(), replied: "4".into(), ..story });
        assert!(told.contains("\nthought:\nhm\n\nreplied:\n4\n"), "{told}");
    }

    #[test]
    fn lists_have_a_heading_and_a_line_each() {
        let told = dead(&[turn("4be1"), turn("77c0")]);
        let firsts: Vec<_> = told.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(firsts, ["TURN", "4be1", "77c0"]);
        assert!(told.ends_with("slow: raise `a.key`"), "{told}");
        let withheld = VersionStatus {
            state: "withheld".into(),
            reason: Some("not finite".into()),
            ..VersionStatus::default()
        };
        let base = VersionStatus { version: Some(0), state: "base".into(), ..VersionStatus::default() };
        let line = versions(&[base]);
        let cells: Vec<_> = line.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["0", "0", "base", "no", "-"], "the base model has no age");
        let told = versions(&[
            VersionStatus { version: Some(7), state: "current".into(), ..VersionStatus::default() },
            withheld,
        ]);
        assert!(
            told.lines().nth(1).unwrap().contains("7     0  current") && told.ends_with("not finite"),
            "{told}"
        );
    }
}
