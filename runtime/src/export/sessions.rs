//! Which sessions and replies are exported, and how a session's turns make conversations. Turns are read twice, a few
//! at a time, so that neither a long session nor a large journal has to fit into memory.

use std::{collections::BTreeSet, fmt, time::SystemTime};

use anyhow::Context;
use clap::{Args, ValueEnum, builder::PossibleValuesParser};
use openclaw_actors::{
    conversation,
    sessions::{Branches, Placed},
};
use openclaw_journal::{JournalReader, SessionId, Story, Told, TurnId, TurnKind, TurnState};

use super::{ExportError, Progress, when::When};

/// Sessions whose names are read at once.
const SESSIONS_AT_ONCE: usize = 256;
/// Turns that are in memory at once.
const TURNS_AT_ONCE: usize = 8;

/// Which replies. A conversation in which no reply is meant is left out; the others are whole.
#[derive(Clone, Debug, Default, Args)]
pub struct Picks {
    /// Only this session; can be repeated.
    #[arg(long = "session", value_name = "ID")]
    pub sessions: Vec<String>,
    /// Only replies since then: 2026-11-23T08:30:00Z, or 45s, 30m, 2h or 7d back from now.
    #[arg(long, value_name = "WHEN")]
    pub since: Option<When>,
    /// Only replies until then.
    #[arg(long, value_name = "WHEN")]
    pub until: Option<When>,
    /// Turns of the conversation, or side requests (titles, compactions, heartbeats), or both.
    #[arg(long, value_enum, default_value_t)]
    pub kind: Kind,
    /// Only replies that were judged, and not worse than this: -1, 0 or 1.
    #[arg(long, value_name = "REWARD", allow_negative_numbers = true, value_parser = clap::value_parser!(i8).range(-1..=1))]
    pub min_reward: Option<i8>,
    /// Only replies that stand there; can be repeated.
    #[arg(long = "fate", value_name = "STATE", value_parser = PossibleValuesParser::new(TurnState::ALL.map(TurnState::name)))]
    pub fates: Vec<String>,
}

/// Kinds of turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Those of the conversation.
    #[default]
    Main,
    /// Titles, compactions, heartbeats: never trained on.
    Side,
    /// Both.
    All,
}

impl Picks {
    fn takes_kind(&self, kind: TurnKind) -> bool {
        match self.kind {
            Kind::Main => kind == TurnKind::Main,
            Kind::Side => kind == TurnKind::Side,
            Kind::All => true,
        }
    }

    fn takes(&self, story: &Story) -> bool {
        let row = &story.row;
        let reward = row.verdict.as_ref().and_then(|verdict| verdict.reward);
        within(row.completed, self.since, self.until)
            && self.min_reward.is_none_or(|least| reward.is_some_and(|reward| reward >= least))
            && (self.fates.is_empty() || self.fates.iter().any(|fate| fate == row.state.name()))
    }
}

/// Whether a moment lies in a span.
pub fn within(time: SystemTime, since: Option<When>, until: Option<When>) -> bool {
    since.is_none_or(|since| time >= since.0) && until.is_none_or(|until| time <= until.0)
}

/// A turn of a conversation, to be read when its time comes.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Which.
    pub turn: TurnId,
    /// Where its request goes on.
    pub placed: Placed,
    /// It is meant.
    pub picked: bool,
    /// Its client did not keep it from training.
    pub trainable: bool,
}

impl Planned {
    /// Whether someone may learn from it.
    pub fn is_learnt(&self) -> bool {
        self.picked && self.trainable
    }
}

/// A conversation of a session, by its turns.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// From 1, in the order in which they began; a session has several where a client rewrote its history.
    pub number: usize,
    /// At least one.
    pub turns: Vec<Planned>,
    /// The next one began when this one was over.
    pub goes_on: bool,
}

/// What was written and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions with a turn that was written.
    pub sessions: u64,
    /// Turns that were written.
    pub turns: u64,
    /// Turns of another kind.
    pub other_kind: u64,
    /// Turns that the filters do not ask for.
    pub not_asked: u64,
    /// Turns that only clients kept from being written.
    pub untrainable: u64,
    /// Turns that could not be read.
    pub unreadable: u64,
}

impl Counts {
    /// Counts a turn that was left out.
    pub fn leave_out(&mut self, turn: &Planned) {
        if turn.picked {
            self.untrainable += 1;
        } else {
            self.not_asked += 1;
        }
    }

    /// The line at the end.
    pub fn summary(&self, kind: Kind) -> String {
        let other = if kind == Kind::Side { "main" } else { "side" };
        let left_out = [
            (self.other_kind, format!("{other} {}", plural(self.other_kind, "turn"))),
            (self.not_asked, "not asked for".to_owned()),
            (self.untrainable, "not to be trained on".to_owned()),
            (self.unreadable, "unreadable".to_owned()),
        ];
        let left_out: Vec<_> = left_out
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        let (sessions, turns) = (plural(self.sessions, "session"), plural(self.turns, "turn"));
        let wrote = format!("wrote {} {sessions}, {} {turns}", self.sessions, self.turns);
        if left_out.is_empty() { wrote } else { format!("{wrote}; left out {}", left_out.join(", ")) }
    }
}

fn plural(count: u64, noun: &str) -> impl fmt::Display {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

/// Gives `write` each session that has a reply that is meant, the oldest first.
pub fn each_session(
    reader: &JournalReader,
    picks: &Picks,
    progress: &mut Progress,
    mut write: impl FnMut(&SessionId, &[Conversation], &mut Progress) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut export = |session: &SessionId, progress: &mut Progress| {
        let conversations = conversations(reader, picks, session, progress)?;
        let written = progress.counts.turns;
        if !conversations.is_empty() {
            write(session, &conversations, progress)?;
        }
        progress.counts.sessions += u64::from(progress.counts.turns > written);
        progress.bar.inc(1);
        anyhow::Ok(())
    };
    if !picks.sessions.is_empty() {
        // Asked for twice, it is written once.
        let names: BTreeSet<&str> = picks.sessions.iter().map(String::as_str).collect();
        let sessions: Vec<_> = names.into_iter().map(|id| SessionId(id.into())).collect();
        for session in &sessions {
            if !reader.has_session(session)? {
                return Err(ExportError::UnknownSession { session: session.to_string() }.into());
            }
        }
        progress.bar.set_length(sessions.len() as u64);
        return sessions.iter().try_for_each(|session| export(session, progress));
    }
    progress.bar.set_length(reader.count_sessions()?);
    let mut after = 0;
    loop {
        let sessions = reader.sessions(after, SESSIONS_AT_ONCE)?;
        let Some((last, _)) = sessions.last() else { return Ok(()) };
        after = *last;
        for (_, session) in &sessions {
            export(session, progress)?;
        }
    }
}

fn conversations(
    reader: &JournalReader,
    picks: &Picks,
    session: &SessionId,
    progress: &mut Progress,
) -> anyhow::Result<Vec<Conversation>> {
    let mut branches = Branches::default();
    let mut found: Vec<Conversation> = Vec::new();
    // By place: when each conversation began, and when it ended.
    let mut spans: Vec<(u64, u64)> = Vec::new();
    let mut after = 0;
    loop {
        let page = reader.stories(session, after, TURNS_AT_ONCE)?;
        let Some(last) = page.last() else { break };
        after = last.place;
        for Told { place, turn: id, story } in page {
            let story = match story {
                Ok(story) => story,
                Err(error) => {
                    progress.unreadable(&id, &error.line());
                    continue;
                }
            };
            let turn = &story.row.turn;
            if !picks.takes_kind(turn.kind) {
                progress.counts.other_kind += 1;
                continue;
            }
            let placed = branches.place(&turn.messages, &conversation::reply(turn));
            if placed.conversation == found.len() {
                found.push(Conversation { number: found.len() + 1, ..Conversation::default() });
                spans.push((place, place));
            }
            spans[placed.conversation].1 = place;
            let (picked, trainable) = (picks.takes(&story), turn.trainable);
            found[placed.conversation].turns.push(Planned { turn: id, placed, picked, trainable });
        }
    }
    for index in 1..found.len() {
        found[index - 1].goes_on = spans[index - 1].1 < spans[index].0;
    }
    found.retain(|conversation| {
        let is_meant = conversation.turns.iter().any(|turn| turn.picked);
        if !is_meant {
            conversation.turns.iter().for_each(|turn| progress.counts.leave_out(turn));
        }
        is_meant
    });
    Ok(found)
}

/// Reads a planned turn; none where it cannot be, or left the journal meanwhile.
pub fn read(
    reader: &JournalReader,
    planned: &Planned,
    progress: &mut Progress,
) -> anyhow::Result<Option<Story>> {
    match reader.story(&planned.turn) {
        Ok(Some(story)) => Ok(Some(story)),
        Ok(None) => {
            progress.unreadable(&planned.turn, "it left the journal meanwhile");
            Ok(None)
        }
        Err(error) if error.is_of_one_turn() => {
            progress.unreadable(&planned.turn, &error.line());
            Ok(None)
        }
        Err(error) => Err(error).context("the journal cannot be read any more"),
    }
}
