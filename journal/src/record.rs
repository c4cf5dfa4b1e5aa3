//! What is recorded of a run, and what is read back.

use std::{fmt, sync::Arc, time::SystemTime};

use openclaw_model::StepReport;
use rusqlite::{
    ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde::{Deserialize, Serialize};

use crate::{
    episode::{Episode, EpisodeId, Outcome},
    signals::{TeacherSignal, Verdict},
    turn::{NextState, SessionId, Turn, TurnId, TurnKind},
};

/// One fact. A transition that finds its turn in another state than it expects changes nothing and is
/// [`Recorded::Stale`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Record {
    /// The policy answered: `waiting` for its next state, or `answered` where it may not be trained on.
    TurnCompleted {
        /// The turn.
        turn: Arc<Turn>,
        /// How a later request recognises it.
        mark: TurnMark,
    },
    /// Something followed a turn: `waiting` to `followed`.
    NextStateSeen {
        /// The turn.
        turn: TurnId,
        /// What followed.
        next_state: NextState,
        /// It may still be taken back: until it is settled, no batch has the turn.
        #[serde(default)]
        provisional: bool,
    },
    /// A turn's next state will not be taken back. Stale when it is not provisional.
    NextStateSettled {
        /// The turn.
        turn: TurnId,
    },
    /// What had followed a turn was no answer to it: `followed`, `judged` or `ready` back to `waiting`, without what a
    /// judge and a teacher made of it. What a person said of the turn stays. Stale once a batch has it.
    NextStateUndone {
        /// The turn.
        turn: TurnId,
    },
    /// A turn was judged: `followed` to `judged` if it goes to a teacher or a person wrote its hint, else to `ready`.
    Judged {
        /// The turn.
        turn: TurnId,
        /// Next states that were taken back before the one that was judged. Stale where the turn has another by now.
        #[serde(default)]
        undone: u32,
        /// The majority and its votes.
        verdict: Verdict,
        /// What the judge said, vote by vote; none where a vote did not arrive.
        answers: Vec<Option<String>>,
        /// The hints that were kept, the most promising first.
        hints: Vec<String>,
        /// What the hint writer said, vote by vote; none where a vote did not arrive.
        hint_answers: Vec<Option<String>>,
        /// A teacher scores it before it is trained on.
        teach: bool,
        /// What a person wished for, to stand as by [`Record::WishVoiced`].
        #[serde(default)]
        wish: Option<String>,
    },
    /// A teacher scored a turn: `judged` to `ready`. Stale when it was shown another hint than a person has written.
    Taught {
        /// The turn.
        turn: TurnId,
        /// As in [`Record::Judged`].
        #[serde(default)]
        undone: u32,
        /// What it said; none where no hint could be shown to it.
        signal: Option<TeacherSignal>,
    },
    /// A turn will not be trained on: any open state to `dropped`.
    TurnDropped {
        /// The turn.
        turn: TurnId,
        /// Why; also the label of the counter.
        #[serde(deserialize_with = "reason")]
        reason: Reason,
    },
    /// A person took a turn out before a batch had it: `waiting`, `followed`, `judged` or `ready` to `dropped`, for
    /// the reason `operator`.
    TurnWithdrawn {
        /// The turn.
        turn: TurnId,
    },
    /// A person rated a turn that something had followed, before a batch had it: from now on that is its verdict,
    /// whatever a judge says. It stays `followed`, `judged` or `ready`; a dead turn takes no rating.
    Rated {
        /// The turn.
        turn: TurnId,
        /// +1 or -1.
        rating: i8,
    },
    /// A person wrote a turn's hint, before a batch had it: from now on it is the only one, and a teacher is shown it
    /// as it is. It stays `waiting`, `followed` or `judged`, and goes from `ready` back to `judged`, without what a
    /// teacher said of another hint. A dead turn takes none.
    HintCorrected {
        /// The turn.
        turn: TurnId,
        /// The person's words.
        hint: String,
    },
    /// A person wished for something that is to stand. What they wished for before about the same, or of the same turn, is
    /// withdrawn, and the oldest where there are [`MOST_WISHES`](crate::MOST_WISHES). It goes with its turn when that is
    /// withdrawn, or its next state taken back. Stale when the turn is unknown or a step of an episode, the wish stands, or
    /// one about the same was voiced of a later turn.
    WishVoiced {
        /// The turn that it was voiced about.
        turn: TurnId,
        /// The wish.
        wish: String,
    },
    /// A wish stands no longer. Stale when it does not.
    WishWithdrawn {
        /// Its number.
        wish: u64,
    },
    /// A turn killed its reader too often: it keeps its state and is handed out no more.
    TurnDied {
        /// The turn.
        turn: TurnId,
        /// Whose inbox gave it up.
        inbox: String,
        /// How often it was tried.
        attempts: u32,
        /// Why it failed last, where that is known.
        reason: Option<String>,
    },
    /// A dead turn is handed out again.
    TurnRetried {
        /// The turn.
        turn: TurnId,
    },
    /// A batch is about to be trained on: `ready` to `leased`, all of them or none. What is leased already may be
    /// leased again, by an optimizer that was restarted.
    BatchLeased {
        /// The step that will learn from it.
        step: u64,
        /// The batch.
        turns: Vec<TurnId>,
    },
    /// The policy was updated: `leased` to `trained`. Stale when its version is known already.
    StepCompleted(StepCommit),
    /// A version that lived in memory alone got its folder, without another step: `leased` to `trained`. Stale when
    /// it has one, or is unknown.
    VersionKept {
        /// The version.
        version: u64,
        /// Every turn learnt from since the last checkpoint.
        turns: Vec<TurnId>,
    },
    /// Versions after `base` were lost with the process, and their numbers were seen: the weights of `base`, 0 being
    /// the base model, go on under a new one. Stale when it is known already.
    VersionRestored {
        /// The new number.
        version: u64,
        /// Whose weights they are.
        base: u64,
    },
    /// Folders of these versions are torn: what they learnt is lost, and their turns go from `trained` to `ready`.
    VersionsUndone {
        /// The versions.
        versions: Vec<u64>,
        /// The version that training goes on from; 0 is the base model.
        to: u64,
    },
    /// A step was not applied: `leased` to `quarantined`.
    StepWithheld {
        /// Number of the step.
        step: u64,
        /// The turns it would have learnt from.
        turns: Vec<TurnId>,
        /// Why.
        reason: String,
        /// What the step did.
        report: StepReport,
        /// Names the weights it made.
        fingerprint: String,
    },
    /// A version was announced. Stale when it was before, or was never committed.
    VersionPublished {
        /// Its number.
        version: u64,
    },
    /// An earlier version was returned to; 0 is the base. Stale when it is unknown.
    RolledBack {
        /// The version left.
        from: u64,
        /// The version served and trained from now on.
        to: u64,
    },
    /// A client ended a conversation: no later request answers a turn that it has by now. Stale when it has none that
    /// is not ended already.
    SessionEnded {
        /// The conversation.
        session: SessionId,
    },
    /// An agent begins to act: from now on the main turns of its session are steps of this episode. Stale when it is
    /// known, or its session has another that is open.
    EpisodeBegan {
        /// The episode.
        episode: Episode,
    },
    /// It came out: what waited for that is for the rest of its group from now on. Stale when it is not open.
    EpisodeEnded {
        /// The episode.
        episode: EpisodeId,
        /// How.
        outcome: Outcome,
    },
    /// It has no outcome: its turns are `dropped`, and its group does not wait for it. Stale when it is not open.
    EpisodeAbandoned {
        /// The episode.
        episode: EpisodeId,
        /// Why.
        reason: String,
    },
    /// No further episode of a group begins, however many it was to have. Stale when it has one that is open, or no turn
    /// that waits.
    GroupClosed {
        /// Its name.
        group: String,
    },
    /// An operator asked for something.
    Operated {
        /// What was asked: `restart`, `rollback`, ..
        verb: String,
        /// Of whom.
        target: String,
        /// What came of it.
        outcome: String,
    },
}

/// Why a turn is dropped. By this name, because serde would borrow a reference from what it reads.
pub type Reason = &'static str;

/// Read back from a spill, once in a process: there are few reasons.
fn reason<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Reason, D::Error> {
    Ok(String::deserialize(from)?.leak())
}

impl Record {
    /// The turn that it is about, where it is one.
    pub(crate) fn turn(&self) -> Option<&TurnId> {
        match self {
            Self::TurnCompleted { turn, .. } => Some(&turn.id),
            Self::NextStateSeen { turn, .. }
            | Self::NextStateSettled { turn }
            | Self::NextStateUndone { turn }
            | Self::Judged { turn, .. }
            | Self::Taught { turn, .. }
            | Self::TurnDropped { turn, .. }
            | Self::TurnWithdrawn { turn }
            | Self::Rated { turn, .. }
            | Self::HintCorrected { turn, .. }
            | Self::WishVoiced { turn, .. }
            | Self::TurnDied { turn, .. }
            | Self::TurnRetried { turn } => Some(turn),
            _ => None,
        }
    }
}

/// Why a turn that a person took out is dropped.
pub(super) const WITHDRAWN: &str = "operator";

/// What happened, and to which: fit for a log, which nothing of a conversation may reach.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TurnCompleted { turn, .. } => write!(f, "turn {} completed", turn.id),
            Self::NextStateSeen { turn, .. } => write!(f, "turn {turn} followed"),
            Self::NextStateSettled { turn } => write!(f, "what followed turn {turn} settled"),
            Self::NextStateUndone { turn } => write!(f, "what followed turn {turn} taken back"),
            Self::Judged { turn, .. } => write!(f, "turn {turn} judged"),
            Self::Taught { turn, .. } => write!(f, "turn {turn} taught"),
            Self::TurnDropped { turn, reason } => write!(f, "turn {turn} dropped: {reason}"),
            Self::TurnWithdrawn { turn } => write!(f, "turn {turn} withdrawn"),
            Self::Rated { turn, .. } => write!(f, "turn {turn} rated"),
            Self::HintCorrected { turn, .. } => write!(f, "hint of turn {turn} corrected"),
            Self::WishVoiced { turn, .. } => write!(f, "wish voiced about turn {turn}"),
            Self::WishWithdrawn { wish } => write!(f, "wish {wish} withdrawn"),
            Self::TurnDied { turn, inbox, attempts, .. } => {
                write!(f, "turn {turn} given up by {inbox} after {attempts} attempts")
            }
            Self::TurnRetried { turn } => write!(f, "turn {turn} retried"),
            Self::BatchLeased { step, turns } => write!(f, "{} turns leased by step {step}", turns.len()),
            Self::StepCompleted(commit) => write!(f, "step {} made version {}", commit.step, commit.version),
            Self::VersionKept { version, .. } => write!(f, "version {version} kept"),
            Self::VersionRestored { version, base } => write!(f, "version {version} restored from {base}"),
            Self::VersionsUndone { versions, to } => write!(f, "versions {versions:?} undone to {to}"),
            Self::StepWithheld { step, .. } => write!(f, "step {step} withheld"),
            Self::VersionPublished { version } => write!(f, "version {version} published"),
            Self::RolledBack { from, to } => write!(f, "rolled back from version {from} to {to}"),
            Self::SessionEnded { session } => write!(f, "session {session} ended"),
            Self::EpisodeBegan { episode } => write!(f, "episode {} began", episode.id),
            Self::EpisodeEnded { episode, .. } => write!(f, "episode {episode} ended"),
            Self::EpisodeAbandoned { episode, .. } => write!(f, "episode {episode} abandoned"),
            Self::GroupClosed { group } => write!(f, "group {group} closed"),
            Self::Operated { verb, target, .. } => write!(f, "operated: {verb} {target}"),
        }
    }
}

/// A step that was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepCommit {
    /// Number of the step, from 1.
    pub step: u64,
    /// The version it made.
    pub version: u64,
    /// The version it started from; 0 is the base model.
    pub base: u64,
    /// With a checkpoint: every turn learnt from since the last one. Without: those of this step, which stay leased.
    pub turns: Vec<TurnId>,
    /// Turns of this step's own batch.
    pub batch: u64,
    /// What the step did.
    pub report: StepReport,
    /// Names the version's weights.
    pub fingerprint: String,
    /// The version's folder is complete. Without one the step lives in memory alone and is lost with the process.
    pub checkpoint: bool,
}

/// How a later request recognises a turn as part of its history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnMark {
    /// Names of the request's prefixes, the empty one first, the whole request last.
    pub chain: Arc<[u64]>,
    /// The session gave its name.
    pub named: bool,
    /// The request ended its session, or its client did later.
    pub last: bool,
    /// Name of the reply.
    pub reply: u64,
    /// The reply holds words or a tool call.
    pub says_anything: bool,
    /// Whose conversation it is; 0 where the client does not say.
    pub person: u64,
    /// Name of the last message before the reply that is not the system's.
    pub before: u64,
    /// Letters and digits of the reply.
    pub words: u32,
    /// The first [`MARK_OPENING`] of them.
    pub opening: Arc<str>,
}

/// So much of a reply is kept in its mark as it was written.
pub const MARK_OPENING: usize = 64;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is committed.
    Done,
    /// It came too late or twice: nothing changed.
    Stale,
}

/// Where a turn stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnState {
    /// Answered, and never trained on.
    Answered,
    /// For its next state.
    Waiting,
    /// For a judge.
    Followed,
    /// For a teacher.
    Judged,
    /// For the end of its episode, and of the others of its group.
    Held,
    /// For the optimizer.
    Ready,
    /// In a batch.
    Leased,
    /// Learnt from.
    Trained,
    /// Given up.
    Dropped,
    /// Of a step that was withheld.
    Quarantined,
}

impl TurnState {
    /// Every state.
    pub const ALL: [Self; 10] = [
        Self::Answered,
        Self::Waiting,
        Self::Followed,
        Self::Judged,
        Self::Held,
        Self::Ready,
        Self::Leased,
        Self::Trained,
        Self::Dropped,
        Self::Quarantined,
    ];

    /// Its name, as it is kept.
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Waiting => "waiting",
            Self::Followed => "followed",
            Self::Judged => "judged",
            Self::Held => "held",
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Trained => "trained",
            Self::Dropped => "dropped",
            Self::Quarantined => "quarantined",
        }
    }

    /// Something followed it, and no batch has it yet.
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Followed | Self::Judged | Self::Held | Self::Ready)
    }

    /// More is to be done with it.
    pub fn is_open(self) -> bool {
        matches!(
            self,
            Self::Waiting | Self::Followed | Self::Judged | Self::Held | Self::Ready | Self::Leased
        )
    }
}

impl ToSql for TurnState {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.name().into())
    }
}

impl FromSql for TurnState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let name = value.as_str()?;
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or(FromSqlError::InvalidType)
    }
}

/// Counts since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Conversations, by their first main turn.
    pub sessions: u64,
    /// Turns answered.
    pub turns: u64,
    /// Turns that something followed; once more where that was taken back, as with what was made of it.
    pub next_states: u64,
    /// Verdicts of +1.
    pub approved: u64,
    /// Verdicts of -1.
    pub rejected: u64,
    /// Verdicts of 0, and turns whose votes could not be read.
    pub neutral: u64,
    /// Turns with at least one hint.
    pub hinted: u64,
    /// Turns that a teacher scored.
    pub taught: u64,
    /// Samples made ready for the optimizer; once more where a hint was corrected after that.
    pub samples: u64,
    /// Ratings that a person gave in the place of a verdict.
    pub rated: u64,
    /// Hints that a person wrote.
    pub corrected: u64,
    /// Turns given up, for whatever reason.
    pub dropped: u64,
    /// Turns whose step was withheld.
    pub quarantined: u64,
    /// Optimizer steps applied.
    pub steps: u64,
    /// Optimizer steps withheld.
    pub withheld: u64,
    /// Turns trained on.
    pub trained: u64,
    /// The version announced or returned to last.
    pub version: u64,
}

/// Turns that are not settled, by where they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Backlog {
    /// Waiting for their next state.
    pub waiting: u64,
    /// For a judge.
    pub to_judge: u64,
    /// For a teacher.
    pub to_teach: u64,
    /// For the end of their episodes and groups.
    pub held: u64,
    /// For the optimizer.
    pub ready: u64,
    /// For the optimizer once their next state is settled.
    pub provisional: u64,
    /// In a batch.
    pub leased: u64,
    /// Handed out to nobody until an operator retries them; not counted above.
    pub dead: u64,
    /// The number of the last change; work that a reader has not seen has a higher one.
    pub last_seq: u64,
}

/// A turn as sessions remember it.
#[derive(Clone, Debug)]
pub struct RecordedTurn {
    /// The turn.
    pub turn: TurnId,
    /// Its conversation.
    pub session: SessionId,
    /// Its number in it.
    pub index: u32,
    /// Whether it is part of it.
    pub kind: TurnKind,
    /// Whether it may be trained on.
    pub trainable: bool,
    /// How a later request recognises it. Where it waits for nothing, its chain names the whole request alone.
    pub mark: TurnMark,
    /// Its next state has not come.
    pub waiting: bool,
    /// What a person rated it.
    pub rated: Option<i8>,
    /// When it was recorded.
    pub completed: SystemTime,
}

/// All that is known of a turn.
#[derive(Clone, Debug)]
pub struct TurnRow {
    /// The turn.
    pub turn: Arc<Turn>,
    /// Where it stands.
    pub state: TurnState,
    /// It is handed out to nobody.
    pub dead: bool,
    /// Why it was dropped or quarantined, or is dead.
    pub reason: Option<String>,
    /// The step that leased it last.
    pub step: Option<u64>,
    /// The version whose folder holds what was learnt from it.
    pub version: Option<u64>,
    /// What followed it.
    pub next_state: Option<NextState>,
    /// That may still be taken back.
    pub provisional: bool,
    /// What is learnt from: a person's rating, or what the judge made of it.
    pub verdict: Option<Verdict>,
    /// What the judge said, vote by vote; none where a vote did not arrive.
    pub answers: Vec<Option<String>>,
    /// The hints that were kept, or the one that a person wrote.
    pub hints: Vec<String>,
    /// The rating that a person gave in the place of a verdict.
    pub rated: Option<i8>,
    /// The hint that a person wrote.
    pub corrected: Option<String>,
    /// What the hint writer said, vote by vote; none where a vote did not arrive.
    pub hint_answers: Vec<Option<String>>,
    /// What the teacher said.
    pub signal: Option<TeacherSignal>,
    /// When it was recorded.
    pub completed: SystemTime,
}

/// A version of the policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VersionRow {
    /// Its number; only grows.
    pub number: u64,
    /// The step that made it.
    pub step: u64,
    /// The version it was trained from, or whose weights it has; 0 is the base model.
    pub base: u64,
    /// Names its weights.
    pub fingerprint: String,
    /// It has a folder.
    pub checkpoint: bool,
    /// It was announced.
    pub published: bool,
    /// When it was committed.
    pub when: SystemTime,
}

/// A step of the optimizer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepRow {
    /// Its number.
    pub step: u64,
    /// The version it made; none where it was withheld.
    pub version: Option<u64>,
    /// Why it was withheld.
    pub withheld: Option<String>,
    /// Turns of its batch.
    pub turns: u64,
    /// What it did.
    pub report: StepReport,
    /// Names the weights it made.
    pub fingerprint: String,
    /// When it was recorded.
    pub when: SystemTime,
}

/// A turn that is handed out to nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadTurn {
    /// The turn.
    pub turn: TurnId,
    /// The state it waits in.
    pub state: TurnState,
    /// Whose inbox gave it up.
    pub inbox: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it failed last, where that is known.
    pub reason: Option<String>,
    /// When it was given up.
    pub when: SystemTime,
}

/// What an operator asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditRow {
    /// When.
    pub when: SystemTime,
    /// What was asked.
    pub verb: String,
    /// Of whom.
    pub target: String,
    /// What came of it.
    pub outcome: String,
}
