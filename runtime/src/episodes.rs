//! `episodes`: what agents did, step by step, and how it came out. It reads beside a running node, or a run that has
//! ended, and changes nothing.

mod replay;
mod success;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::SystemTime,
};

use clap::Subcommand;
use openclaw_journal::{
    EpisodeId, EpisodeRow, EpisodeState, EpisodeStep, EpisodeStory, JournalReader, TurnRow,
};
use serde_json::{Value, json};

use crate::{
    exit::{EXIT_FAILED, EXIT_NOT_POSSIBLE, EXIT_UNKNOWN},
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
/// Episodes that are read at once.
const AT_ONCE: usize = 256;

/// Examples for `--help`.
pub const EXAMPLES: &str = "\
Reads beside a running node, or a run that has ended; changes nothing there.

Examples:
  openclaw-rl episodes list
  openclaw-rl episodes list --environment shell --limit 200 --json
  openclaw-rl episodes show ep-3f2a
  openclaw-rl episodes success
  openclaw-rl episodes replay sums-17-train-3-0";

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
        /// Only those of this environment.
        #[arg(long, value_name = "NAME")]
        environment: Option<String>,
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
    /// Shows how often tasks were done, by environment, split and version of the policy.
    Success {
        #[command(flatten)]
        run: RunArgs,
        /// Only episodes of this environment.
        #[arg(long, value_name = "NAME")]
        environment: Option<String>,
        /// Prints a JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Takes an episode's actions again in a new world: exits with 0 if all of it comes out as it did, with 1 if not.
    ///
    /// For episodes of the node's own agents. The world is made as the run made it, on this machine.
    Replay {
        /// The episode's id.
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        run: RunArgs,
        /// The topology that has the environment; the run's own, unless given.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
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
    /// No world of this program had it.
    #[error(
        "episode {id} is of an agent outside, which has its own world: only episodes of [[actors.agent]] can be replayed"
    )]
    Outside {
        /// The episode.
        id: String,
    },
    /// Its world cannot be made.
    #[error("episode {id} is of the environment \"{name}\", which is not under [environments] in {path}")]
    NoEnvironment {
        /// The episode.
        id: String,
        /// The environment.
        name: String,
        /// The topology.
        path: String,
    },
    /// The environment has changed since.
    #[error("the task is now {now}, and was {then}: the environment is not the one that the run had")]
    OtherTask {
        /// What it makes now.
        now: String,
        /// What was recorded.
        then: String,
    },
    /// A step of it is not there any more.
    #[error("step {0} has left the journal: the episode cannot be replayed")]
    Pruned(usize),
}

/// The process's exit code for an error of this module.
pub fn exit_code(error: &anyhow::Error) -> Option<u8> {
    error.downcast_ref::<EpisodesError>().map(|error| match error {
        EpisodesError::NoJournal(_) | EpisodesError::Unknown(_) => EXIT_UNKNOWN,
        _ => EXIT_NOT_POSSIBLE,
    })
}

/// Does it.
pub fn run(what: Episodes) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match what {
        Episodes::List { run, limit, environment, json } => {
            let mut episodes = Vec::new();
            if limit > 0 {
                each(&open(&run)?, environment.as_deref(), |row| {
                    episodes.push(row);
                    Ok(episodes.len() < limit)
                })?;
            }
            if json {
                episodes.iter().try_for_each(|row| writeln!(out, "{}", told(row)))?;
            } else if episodes.is_empty() {
                writeln!(out, "{}", none_of(environment.as_deref()))?;
            }
            if !json {
                table(&episodes).into_iter().try_for_each(|line| writeln!(out, "{line}"))?;
            }
        }
        Episodes::Show { id, run, json } => {
            let reader = open(&run)?;
            let (row, steps) = find(&reader, id)?;
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
                writeln!(out, "{told}")?;
            } else {
                page(&row, &shown).into_iter().try_for_each(|line| writeln!(out, "{line}"))?;
            }
        }
        Episodes::Success { run, environment, json } => {
            let rows = success::count(&open(&run)?, environment.as_deref())?;
            if json {
                rows.iter().try_for_each(|row| writeln!(out, "{}", success::told(row)))?;
            } else if rows.is_empty() {
                writeln!(out, "{}", none_of(environment.as_deref()))?;
            } else {
                success::table(&rows).into_iter().try_for_each(|line| writeln!(out, "{line}"))?;
            }
        }
        Episodes::Replay { id, run, config } => {
            let reader = open(&run)?;
            let (row, _) = find(&reader, id)?;
            let turns = turns(&reader, &row)?;
            if !replay::replay(&row, &turns, config, &run.dir()?, &mut out)? {
                return Ok(ExitCode::from(EXIT_FAILED));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn none_of(environment: Option<&str>) -> String {
    match environment {
        Some(name) => format!("no episode of \"{}\"", printable(name)),
        None => "no agent has begun an episode: README, \"Agents that act\"".to_owned(),
    }
}

fn find(reader: &JournalReader, id: String) -> anyhow::Result<EpisodeStory> {
    let found = reader.episode(&EpisodeId(id.as_str().into()))?;
    Ok(found.ok_or(EpisodesError::Unknown(id))?)
}

/// Every turn of the session of one of the node's own episodes: those that no method compares, too.
fn turns(reader: &JournalReader, row: &EpisodeRow) -> anyhow::Result<Vec<TurnRow>> {
    let mut turns: Vec<TurnRow> = Vec::new();
    let mut after = 0;
    loop {
        let page = reader.stories(&row.episode.session, after, AT_ONCE)?;
        let Some(last) = page.last() else { break };
        after = last.place;
        for told in page {
            let row = told.story?.row;
            if row.turn.index as usize != turns.len() + 1 {
                return Err(EpisodesError::Pruned(turns.len() + 1).into());
            }
            turns.push(row);
        }
    }
    if turns.len() < row.steps as usize {
        return Err(EpisodesError::Pruned(turns.len() + 1).into());
    }
    Ok(turns)
}

/// Gives `take` each episode, of this environment if one is named, the latest first, until it has had enough.
fn each(
    reader: &JournalReader,
    environment: Option<&str>,
    mut take: impl FnMut(EpisodeRow) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let mut before = u64::MAX;
    loop {
        let page = reader.episodes(before, AT_ONCE)?;
        let Some(last) = page.last() else { return Ok(()) };
        before = last.no;
        for row in page {
            let meant = environment.is_none_or(|name| *row.episode.environment == *name);
            if meant && !take(row)? {
                return Ok(());
            }
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

    pub fn row(state: EpisodeState) -> EpisodeRow {
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
