//! `episodes replay`: takes an episode's recorded actions again in a new world, and says whether it answers as it did.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use openclaw_actors::agents::{Likeness, Replay, Taken};
use openclaw_environments::world::{Action, Split, Verdict};
use openclaw_journal::{EpisodeRow, EpisodeState, OWN_SESSIONS, Outcome, TurnRow};

use super::{EpisodesError, TOLD_CELLS, came_out};
use crate::{
    operate::columns::short,
    printable::printable,
    topology::{Environment, RESOLVED_FILE, Topology},
};

/// What is told of an episode that was taken again.
struct Telling<'a, W> {
    out: &'a mut W,
    /// All was as recorded so far.
    same: bool,
}

/// Replays it; true where all of it came out as it did.
pub(super) fn replay(
    row: &EpisodeRow,
    turns: &[TurnRow],
    config: Option<PathBuf>,
    run: &Path,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let episode = &row.episode;
    let path = config.unwrap_or_else(|| run.join(RESOLVED_FILE));
    let topology = Topology::load(&path, &[])?;
    let environment = world_of(&topology, row, &path)?.make()?;
    let split = if episode.group.is_some() { Split::Train } else { Split::HeldOut };
    let mut replay = Replay::begin(&*environment, split, episode.seed.unwrap_or_default())?;
    if replay.task().id != episode.task {
        let (now, then) = (replay.task().id.to_string(), episode.task.to_string());
        return Err(EpisodesError::OtherTask { now, then }.into());
    }
    let mut telling = Telling { out, same: true };
    telling.line(format!("{}  {}: {}  {split}", episode.id, episode.environment, episode.task))?;
    let opening = turns.first().is_none_or(|first| *first.turn.messages == replay.opening());
    if !opening {
        telling.differs("the task is told otherwise than it was".to_owned())?;
    }
    for (at, row) in turns.iter().enumerate() {
        if replay.is_done() {
            telling.differs(format!(
                "the task is over here, and {} steps more were recorded",
                turns.len() - at
            ))?;
            break;
        }
        let taken = replay.step(&row.turn)?;
        let next = turns.get(at + 1).map(|next| &*next.turn);
        telling.step(at + 1, &taken, taken.likeness(row.next_state.as_ref(), next))?;
    }
    telling.outcome(&replay.outcome()?, &row.state)?;
    Ok(telling.same)
}

/// What the episode's environment is made by; refused where this run makes no such world.
fn world_of<'a>(
    topology: &'a Topology,
    row: &EpisodeRow,
    path: &Path,
) -> Result<&'a Environment, EpisodesError> {
    let (episode, id) = (&row.episode, row.episode.id.to_string());
    if !episode.session.0.starts_with(OWN_SESSIONS) || episode.seed.is_none() {
        return Err(EpisodesError::Outside { id });
    }
    topology.environments.get(&*episode.environment).ok_or_else(|| EpisodesError::NoEnvironment {
        id,
        name: episode.environment.to_string(),
        path: path.display().to_string(),
    })
}

impl<W: Write> Telling<'_, W> {
    fn line(&mut self, line: String) -> anyhow::Result<()> {
        Ok(writeln!(self.out, "{}", printable(&line))?)
    }

    fn differs(&mut self, line: String) -> anyhow::Result<()> {
        self.same = false;
        Ok(writeln!(self.out, "  ! {}", short(&line, TOLD_CELLS))?)
    }

    fn step(&mut self, number: usize, taken: &Taken, likeness: Likeness) -> anyhow::Result<()> {
        let rule = taken.now.as_ref().and_then(|now| Some((now.rating?, now.by_rule.as_ref()?)));
        let rule = rule.map_or("no rule".to_owned(), |(score, reason)| format!("{score:+}: {reason}"));
        let like = match &likeness {
            Likeness::Same => "same",
            Likeness::Other(_) => "OTHERWISE",
            Likeness::Unrecorded => "nothing is recorded of it",
        };
        let done = if taken.done { "  the end" } else { "" };
        writeln!(self.out)?;
        self.line(format!("step {number}  {rule}  {like}{done}"))?;
        writeln!(self.out, "  > {}", short(&action(&taken.action), TOLD_CELLS))?;
        if let Some(now) = &taken.now {
            writeln!(self.out, "  < {}", short(&now.text, TOLD_CELLS))?;
        }
        match likeness {
            Likeness::Other(recorded) => self.differs(format!("recorded: {recorded}")),
            Likeness::Same | Likeness::Unrecorded => Ok(()),
        }
    }

    fn outcome(&mut self, now: &Verdict, state: &EpisodeState) -> anyhow::Result<()> {
        let now = Outcome { reward: now.reward, success: Some(now.success), numbers: now.numbers.clone() };
        writeln!(self.out)?;
        self.line(format!("now       {}", told(&now)))?;
        match state {
            EpisodeState::Ended(recorded) => {
                self.line(format!("recorded  {}", told(recorded)))?;
                if *recorded != now {
                    self.differs("the outcome is another".to_owned())?;
                }
                Ok(())
            }
            state => self.line(format!("recorded  {}", came_out(state))),
        }
    }
}

fn told(outcome: &Outcome) -> String {
    let numbers: Vec<String> =
        outcome.numbers.iter().map(|(name, value)| format!("  {name} {value}")).collect();
    format!("{}{}", came_out(&EpisodeState::Ended(outcome.clone())), numbers.concat())
}

/// In a line.
fn action(action: &Action) -> String {
    match action {
        Action::Text(text) => text.clone(),
        Action::Malformed => "(cannot be read)".to_owned(),
        Action::Calls(calls) => {
            let told = calls.iter().map(|call| {
                let arguments = serde_json::to_string(&call.arguments).unwrap_or_default();
                format!("{} {arguments}", call.name)
            });
            told.collect::<Vec<_>>().join("; ")
        }
    }
}
