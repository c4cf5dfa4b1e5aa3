//! `episodes`: what agents did, step by step, and how it came out. It reads beside a running node, or a run that has
//! ended, and changes nothing.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use clap::Subcommand;
use openclaw_journal::{EpisodeId, EpisodeRow, EpisodeState, EpisodeStep, JournalReader, TurnRow};
use serde_json::{Value, json};

use crate::{
    exit::EXIT_UNKNOWN,
    measures::span,
    operate::{
        RunArgs,
        columns::{Column, lines, short},
    },
    printable::printable,
};

/// Cells of a name in the table.
const NAME_CELLS: usize = 32;
/// Cells of an action, and of what came of it.
const TOLD_CELLS: usize = 400;

/// Examples for `--help`.
pub const EXAMPLES: &str = "\
Reads beside a running node, or a run that has ended; changes nothing there.

Examples:
  openclaw-rl episodes list
  openclaw-rl episodes list --limit 200 --json
  openclaw-rl episodes show ep-3f2a";

/// What to do with episodes.
#[derive(Debug, Subcommand)]
pub enum Episodes {
    /// Lists the latest episodes: what they were about, their steps, and how they came out.
    List {
        #[command(flatten)]
        run: RunArgs,
        /// Most episodes.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// Prints a JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Shows an episode: each action, what came of it, and what the judge made of it.
    Show {
        /// The episode's id.
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        run: RunArgs,
        /// Prints one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum EpisodesError {
    /// Nothing was ever recorded there.
    #[error("no run has written a journal to {0}")]
    NoJournal(String),
    /// It is none of this run.
    #[error("there is no episode {0}: `openclaw-rl episodes list` has the latest")]
    Unknown(String),
}

/// The process's exit code for an error of this module.
pub fn exit_code(error: &anyhow::Error) -> Option<u8> {
    error.downcast_ref::<EpisodesError>().map(|_| EXIT_UNKNOWN)
}

/// Does it.
pub fn run(what: Episodes) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match what {
        Episodes::List { run, limit, json } => {
            let episodes = open(&run)?.episodes(u64::MAX, limit)?;
            if json {
                return episodes.iter().try_for_each(|row| Ok(writeln!(out, "{}", told(row))?));
            }
            if episodes.is_empty() {
                writeln!(out, "no agent has begun an episode: README, \"Agents that act\"")?;
            }
            Ok(table(&episodes).into_iter().try_for_each(|line| writeln!(out, "{line}"))?)
        }
        Episodes::Show { id, run, json } => {
            let reader = open(&run)?;
            let found = reader.episode(&EpisodeId(id.as_str().into()))?;
            let (row, steps) = found.ok_or(EpisodesError::Unknown(id))?;
            let mut shown = Vec::new();
            for (place, step) in steps {
                // What has left the journal leaves its score.
                let turn = reader.story(&step.turn)?.map(|story| story.row);
                shown.push((place, step, turn));
            }
            if json {
                let steps: Vec<Value> =
                    shown.iter().map(|(place, step, turn)| told_step(*place, step, turn.as_ref())).collect();
                let mut told = told(&row);
                told["steps"] = steps.into();
                return Ok(writeln!(out, "{told}")?);
            }
            Ok(page(&row, &shown).into_iter().try_for_each(|line| writeln!(out, "{line}"))?)
        }
    }
}

fn open(run: &RunArgs) -> anyhow::Result<JournalReader> {
    let dir = run.dir()?;
    JournalReader::open(&dir)?.ok_or_else(|| EpisodesError::NoJournal(dir.display().to_string()).into())
}

/// In a few words.
fn came_out(state: &EpisodeState) -> String {
    match state {
        EpisodeState::Open => "open".to_owned(),
        EpisodeState::Abandoned(reason) => format!("abandoned: {}", short(reason, NAME_CELLS)),
        EpisodeState::Ended(outcome) => {
            let success = match outcome.success {
                Some(true) => ", done",
                Some(false) => ", not done",
                None => "",
            };
            format!("{:+.2}{success}", outcome.reward)
        }
    }
}

fn table(episodes: &[EpisodeRow]) -> Vec<String> {
    if episodes.is_empty() {
        return Vec::new();
    }
    let columns = [
        Column::Left("ID"),
        Column::Left("ENVIRONMENT"),
        Column::Left("TASK"),
        Column::Left("GROUP"),
        Column::Right("STEPS"),
        Column::Right("BEGAN"),
        Column::Left("OUTCOME"),
    ];
    let rows: Vec<_> = episodes
        .iter()
        .map(|row| {
            let EpisodeRow { episode, steps, state, began, .. } = row;
            let group = episode.group.as_ref().map_or("-", |group| &group.name);
            [
                // Whole: it is what `show` takes.
                printable(&episode.id.0).into_owned(),
                short(&episode.environment, NAME_CELLS),
                short(&episode.task, NAME_CELLS),
                short(group, NAME_CELLS),
                steps.to_string(),
                format!("{} ago", span(since(*began))),
                came_out(state),
            ]
        })
        .collect();
    lines(&columns, &rows)
}

fn page(row: &EpisodeRow, steps: &[(u32, EpisodeStep, Option<TurnRow>)]) -> Vec<String> {
    let EpisodeRow { episode, state, .. } = row;
    let group = episode.group.as_ref().map(|group| format!("  group {} of {}", group.name, group.of));
    let seed = episode.seed.map(|seed| format!("  seed {seed}"));
    let head = format!(
        "{}  {}: {}{}{}  session {}",
        episode.id,
        episode.environment,
        episode.task,
        group.unwrap_or_default(),
        seed.unwrap_or_default(),
        episode.session
    );
    let mut page = vec![printable(&head).into_owned(), came_out(state)];
    if let EpisodeState::Ended(outcome) = state {
        page.extend(
            outcome.numbers.iter().map(|(name, value)| printable(&format!("  {name} {value}")).into_owned()),
        );
    }
    for (place, step, turn) in steps {
        let score = step.score.map_or("not judged".to_owned(), |score| format!("{score:+.2}"));
        page.push(String::new());
        let Some(turn) = turn else {
            page.push(format!("step {place}  {score}  {} has left the journal", step.turn));
            continue;
        };
        let version = turn.turn.completion.policy_version;
        page.push(format!("step {place}  {score}  version {version}  {}  {}", turn.state.name(), step.turn));
        page.push(format!("  > {}", short(&turn.turn.completion.text, TOLD_CELLS)));
        if let Some(next) = &turn.next_state {
            page.push(format!("  < {}", short(&next.text, TOLD_CELLS)));
        }
    }
    page
}

fn told(row: &EpisodeRow) -> Value {
    let EpisodeRow { episode, state, steps, began, ended, .. } = row;
    json!({
        "id": episode.id,
        "session": episode.session,
        "environment": episode.environment,
        "task": episode.task,
        "seed": episode.seed,
        "group": episode.group,
        "judged": episode.judged,
        "state": state,
        "steps": steps,
        "began": unix(*began),
        "ended": ended.map(unix),
    })
}

fn told_step(place: u32, step: &EpisodeStep, turn: Option<&TurnRow>) -> Value {
    json!({
        "place": place,
        "turn": step.turn,
        "score": step.score,
        "state": turn.map(|turn| turn.state),
        "version": turn.map(|turn| turn.turn.completion.policy_version),
        "action": turn.map(|turn| &turn.turn.completion.text),
        "next_state": turn.and_then(|turn| turn.next_state.as_ref()),
        "verdict": turn.and_then(|turn| turn.verdict.as_ref()),
    })
}

fn since(time: SystemTime) -> f64 {
    time.elapsed().unwrap_or_default().as_secs_f64()
}

/// Seconds since 1970.
fn unix(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use openclaw_journal::{Episode, Group, Outcome, SessionId, TurnId};

    use super::*;

    fn row(state: EpisodeState) -> EpisodeRow {
        EpisodeRow {
            no: 1,
            episode: Episode {
                id: EpisodeId("ep-1".into()),
                session: SessionId("s".into()),
                environment: "tool_call".into(),
                task: "add\x1b[2J".into(),
                seed: Some(7),
                group: Some(Group { name: "g".into(), of: 8 }),
                judged: true,
            },
            state,
            steps: 2,
            began: SystemTime::now(),
            ended: None,
        }
    }

    #[test]
    fn an_episode_is_told_in_a_line_and_nothing_in_it_reaches_the_terminal() {
        let outcome =
            Outcome { reward: 1.0, success: Some(true), numbers: [("tests".to_owned(), 3.0)].into() };
        let told = table(&[row(EpisodeState::Open), row(EpisodeState::Ended(outcome.clone()))]);
        assert_eq!(told[1], "ep-1  tool_call    add\u{fffd}[2J  g          2  0s ago  open");
        assert!(told[2].ends_with("+1.00, done"), "{told:?}");
        let step = EpisodeStep { turn: TurnId("t".into()), score: Some(1.0 / 3.0), state: 0 };
        let page = page(&row(EpisodeState::Ended(outcome)), &[(0, step, None)]);
        assert_eq!(page[1..3], ["+1.00, done", "  tests 3"]);
        assert_eq!(page[4], "step 0  +0.33  t has left the journal");
        assert!(page.iter().all(|line| !line.contains('\x1b')), "{page:?}");
    }

    #[test]
    fn a_program_reads_where_it_stands() {
        let abandoned = told(&row(EpisodeState::Abandoned("idle".to_owned())));
        assert_eq!(abandoned["state"], json!({"abandoned": "idle"}));
        assert_eq!((&abandoned["group"]["of"], &abandoned["state"]["ended"]), (&json!(8), &Value::Null));
        assert_eq!(told(&row(EpisodeState::Open))["state"], "open");
    }
}
