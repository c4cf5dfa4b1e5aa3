//! What an agent did to reach an end: the turns of one session, and how it came out.

use std::{collections::BTreeMap, fmt, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::turn::{SessionId, TurnId};

/// Sessions whose names begin so are of the node's own agents: their turns are recorded by whoever plays them, and no
/// client can name one.
pub const OWN_SESSIONS: &str = "own:";

/// Names an episode for good.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EpisodeId(pub Arc<str>);

impl fmt::Display for EpisodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Episodes of one task whose outcomes are compared with one another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: Arc<str>,
    /// How many episodes it has.
    pub of: u32,
}

/// An episode, as it begins. The main turns of its session are its steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    /// Its name.
    pub id: EpisodeId,
    /// Its conversation.
    pub session: SessionId,
    /// What the agent acts in.
    pub environment: Arc<str>,
    /// What it is to do.
    pub task: Arc<str>,
    /// What the task was made from.
    pub seed: Option<u64>,
    /// Those that it is compared with; without one it is by itself.
    pub group: Option<Group>,
    /// Each step is judged by what follows it. Else the outcome alone says how good it was.
    pub judged: bool,
}

/// How an episode came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// How good it is; a finite number.
    pub reward: f32,
    /// Whether the task was done.
    pub success: Option<bool>,
    /// What else was measured.
    pub numbers: BTreeMap<String, f64>,
}

/// Where an episode stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpisodeState {
    /// It goes on.
    Open,
    /// It came out.
    Ended(Outcome),
    /// It has no outcome, and nothing is learnt from it.
    Abandoned(String),
}

/// An action of an episode, as methods see it.
#[derive(Clone, Debug, PartialEq)]
pub struct EpisodeStep {
    /// Its turn.
    pub turn: TurnId,
    /// The mean of the judge's votes, what a rule said, or a person's rating: in [-1, 1]. None where nobody said anything.
    pub score: Option<f32>,
    /// Names what the agent saw before it acted.
    pub state: u64,
}

/// An episode of a group that came out.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupEpisode {
    /// The episode.
    pub id: EpisodeId,
    /// How it came out.
    pub outcome: Outcome,
    /// By their place in the episode, which some that were dropped have left.
    pub steps: BTreeMap<u32, EpisodeStep>,
}

/// Where a sample stands in its group.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Its episode.
    pub episode: Arc<Episode>,
    /// The place of its turn among the episode's steps.
    pub step: u32,
    /// The episodes that came out, its own among them, by their names.
    pub group: Arc<Vec<GroupEpisode>>,
}

impl Standing {
    /// Its episode's outcome.
    pub fn own(&self) -> Option<&GroupEpisode> {
        self.group.iter().find(|one| one.id == self.episode.id)
    }
}

/// All that is known of an episode but its turns.
#[derive(Clone, Debug, PartialEq)]
pub struct EpisodeRow {
    /// Its place in the journal.
    pub no: u64,
    /// The episode.
    pub episode: Episode,
    /// Where it stands.
    pub state: EpisodeState,
    /// Its steps.
    pub steps: u32,
    /// When it began.
    pub began: SystemTime,
    /// When it came out or was abandoned.
    pub ended: Option<SystemTime>,
}

/// An episode, and its steps by their places.
pub type EpisodeStory = (EpisodeRow, Vec<(u32, EpisodeStep)>);
