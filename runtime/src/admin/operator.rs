//! The operator's verbs and what they answer: the JSON that the command line and the HTTP port speak.

use std::{future::Future, path::PathBuf};

use openclaw_journal::TurnRow;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    progress::Recent,
    refusal::Refusal,
    versions::{Reception, VersionStatus},
};

/// What a node does for its operator. Every command can be given again: what is done already stays done.
pub trait Operator: Send + Sync + 'static {
    /// The node and its actors.
    fn status(&self) -> impl Future<Output = Result<NodeStatus, Refusal>> + Send;
    /// Turns that were given up on, until somebody decides.
    fn dead(&self) -> impl Future<Output = Result<Vec<DeadTurn>, Refusal>> + Send;
    /// One of them, with what was said.
    fn dead_turn(&self, turn: String) -> impl Future<Output = Result<DeadTurnStory, Refusal>> + Send;
    /// Versions of the policy, oldest first.
    fn versions(&self) -> impl Future<Output = Result<Vec<VersionStatus>, Refusal>> + Send;
    /// What operators did, latest last.
    fn audit(&self) -> impl Future<Output = Result<Vec<AuditEntry>, Refusal>> + Send;
    /// What people wished for, to stand until it is withdrawn, oldest first.
    fn wishes(&self) -> impl Future<Output = Result<Vec<StandingWish>, Refusal>> + Send;
    /// Does it, and says what was done.
    fn operate(&self, command: Command) -> impl Future<Output = Result<Done, Refusal>> + Send;
}

/// What an operator tells a node to do. As JSON, the variant's name is the path and its fields are the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Gives an actor, or each of a role, a new incarnation.
    Restart {
        /// An actor or a role.
        name: String,
        /// Lets it finish what it has under way first.
        #[serde(default)]
        drain: bool,
    },
    /// Ends an actor at once, as a crash would; its supervisor brings it back.
    Kill {
        /// An actor or a role.
        name: String,
    },
    /// Hands a role no further work; what it has under way is finished.
    Pause {
        /// A role, or its only actor.
        name: String,
    },
    /// Ends a pause, and starts what was drained.
    Resume {
        /// An actor or a role.
        name: String,
    },
    /// Lets an actor finish what it has under way, and keeps it down.
    Drain {
        /// An actor or a role.
        name: String,
    },
    /// Makes a role this many actors.
    Scale {
        /// The role.
        role: String,
        /// How many.
        count: usize,
    },
    /// Gives dead turns another try.
    #[serde(rename = "dead/retry")]
    RetryDead {
        /// Which.
        turns: Vec<String>,
    },
    /// Gives dead turns up for good.
    #[serde(rename = "dead/drop")]
    DropDead {
        /// Which.
        turns: Vec<String>,
    },
    /// Says whether a reply was good: its next state, or what counts in the place of a judge's verdict.
    #[serde(rename = "turn/rate")]
    Rate {
        /// Which.
        turn: String,
        /// How it was.
        rating: Rating,
    },
    /// Writes the hint that a teacher is shown for a turn.
    #[serde(rename = "turn/hint")]
    CorrectHint {
        /// Which.
        turn: String,
        /// Shown as it is.
        hint: String,
    },
    /// Keeps a turn from ever being trained on.
    #[serde(rename = "turn/drop")]
    DropTurn {
        /// Which.
        turn: String,
    },
    /// Withdraws a wish that stands.
    #[serde(rename = "wish/forget")]
    ForgetWish {
        /// Its number.
        wish: u64,
    },
    /// Writes the policy and the optimizer's state now.
    Checkpoint {},
    /// Serves an earlier version from now on, and trains from it.
    Rollback {
        /// Its number.
        version: u64,
    },
    /// Ends the node.
    Stop {
        /// At once, rather than in order.
        #[serde(default)]
        now: bool,
    },
}

impl Command {
    /// Every verb that changes something.
    pub const VERBS: [&'static str; 15] = [
        "restart",
        "kill",
        "pause",
        "resume",
        "drain",
        "scale",
        "dead/retry",
        "dead/drop",
        "turn/rate",
        "turn/hint",
        "turn/drop",
        "wish/forget",
        "checkpoint",
        "rollback",
        "stop",
    ];

    /// Its verb.
    pub fn verb(&self) -> String {
        self.clone().into_request().0
    }

    /// The verb and its fields.
    pub fn into_request(self) -> (String, Value) {
        let Ok(Value::Object(request)) = serde_json::to_value(self) else {
            unreachable!("a struct variant is an object of one entry")
        };
        request.into_iter().next().expect("a struct variant is an object of one entry")
    }

    /// Reads what [`Command::into_request`] wrote; fields that have a default may be missing.
    pub fn from_request(verb: &str, body: Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(Value::Object(Map::from_iter([(verb.to_owned(), body)])))
    }

    /// What it is done to, for the audit.
    pub fn target(&self) -> String {
        match self {
            Self::Restart { name, .. }
            | Self::Kill { name }
            | Self::Pause { name }
            | Self::Resume { name }
            | Self::Drain { name } => name.clone(),
            Self::Scale { role, count } => format!("{role} {count}"),
            Self::RetryDead { turns } | Self::DropDead { turns } => turns.join(" "),
            Self::Rate { turn, .. } | Self::CorrectHint { turn, .. } | Self::DropTurn { turn } => {
                turn.clone()
            }
            Self::ForgetWish { wish } => wish.to_string(),
            Self::Rollback { version } => version.to_string(),
            Self::Checkpoint {} | Self::Stop { .. } => String::new(),
        }
    }
}

/// What a person makes of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rating {
    /// Good.
    Up,
    /// Bad.
    Down,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// In words, such as `judge.0 restarted`.
    pub message: String,
}

impl Done {
    /// With this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// A node, as `status --json` prints it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// `run.name`.
    pub run: String,
    /// `run.dir`, absolute.
    pub dir: PathBuf,
    /// The node's name in the topology.
    pub node: String,
    /// Its process.
    pub pid: u32,
    /// It is ending.
    pub stopping: bool,
    /// Since its start.
    pub uptime_secs: f64,
    /// Where clients connect, once they can.
    pub gateway: Option<String>,
    /// Where a browser is shown the run, if the node has an operator's port. It asks for the port's token.
    pub page: Option<String>,
    /// The current version of the policy.
    pub version: u64,
    /// Conversations since the run began.
    pub sessions: u64,
    /// How the journal is.
    pub journal: JournalStatus,
    /// Whether it learns.
    #[serde(default)]
    pub learning: LearningStatus,
    /// How busy it is.
    #[serde(default)]
    pub serving: ServingStatus,
    /// Every actor, in starting order.
    pub actors: Vec<ActorStatus>,
}

/// Whether a run learns. Everything but `versions` and `loss` is counted since the run began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LearningStatus {
    /// Optimizer steps applied.
    pub steps: u64,
    /// Steps withheld, because their numbers left their band.
    pub withheld: u64,
    /// Turns trained on in versions that are on the disk.
    pub trained: u64,
    /// Loss of the last step of this process.
    pub loss: Option<f64>,
    /// Verdicts of +1.
    pub approved: u64,
    /// Verdicts of -1.
    pub rejected: u64,
    /// Verdicts of 0, and turns whose votes could not be read.
    pub neutral: u64,
    /// Turns with a hint.
    pub hinted: u64,
    /// How the latest replies were received, by the version that drew them, oldest first.
    pub versions: Vec<Reception>,
}

/// How busy a node is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServingStatus {
    /// Tokens drawn per second, by all engines of the policy.
    pub tokens_per_sec: f64,
    /// Requests being answered.
    pub in_flight: usize,
    /// The same over the last minutes.
    pub recent: Recent,
}

/// How the journal is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JournalStatus {
    /// It takes records.
    pub healthy: bool,
    /// In words.
    pub detail: String,
}

/// An actor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActorStatus {
    /// Such as `judge.0`.
    pub name: String,
    /// Such as `judge`.
    pub role: String,
    /// `starting`, `running`, `stuck`, `restarting`, `paused`, `draining`, `failed` or `stopped`.
    pub state: String,
    /// How long it has been up; nothing while it is down.
    pub up_secs: Option<f64>,
    /// How often it was started again.
    pub restarts: u64,
    /// What last went wrong, if anything did.
    pub last_error: Option<String>,
    /// How long ago.
    pub last_error_secs: Option<f64>,
    /// The version that it serves or trains.
    pub version: Option<u64>,
    /// Where its work waits.
    pub inbox: Option<InboxView>,
    /// What its role has to say.
    pub detail: String,
    /// What an operator should look into, although nothing has failed.
    #[serde(default)]
    pub advice: Option<String>,
}

/// An inbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InboxView {
    /// Messages nobody reads yet.
    pub waiting: usize,
    /// Messages being worked on.
    pub leased: usize,
    /// Most of both together.
    pub capacity: usize,
    /// How long the next message has waited.
    pub oldest_wait_secs: f64,
    /// Messages given up on since the node started.
    pub dead_letters: u64,
    /// Nothing is handed out.
    pub paused: bool,
}

/// A turn that failed too often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadTurn {
    /// Its id.
    pub turn: String,
    /// Where it stands in its life: `followed`, `judged` or `ready`.
    pub state: String,
    /// The inbox that gave it up.
    pub inbox: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it failed last, where that is known.
    #[serde(default)]
    pub reason: Option<String>,
    /// When it was given up, in seconds since 1970.
    pub died_unix_secs: u64,
}

/// A dead turn, with what was said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadTurnStory {
    /// Which.
    pub dead: DeadTurn,
    /// Its conversation.
    pub session: String,
    /// The last message of the request.
    pub asked: String,
    /// What the policy thought before it replied; empty where it did not.
    pub thought: String,
    /// What it replied, tool calls included.
    pub replied: String,
    /// What followed.
    pub followed: Option<String>,
    /// What the judge made of it.
    pub reward: Option<i8>,
    /// The hints that were kept.
    pub hints: Vec<String>,
}

impl DeadTurnStory {
    /// Of a turn as its journal has it.
    pub fn new(dead: DeadTurn, row: TurnRow) -> Self {
        let completion = &row.turn.completion;
        let asked = row.turn.messages.last().and_then(|message| message["content"].as_str());
        Self {
            dead,
            session: row.turn.session.to_string(),
            asked: asked.unwrap_or_default().to_owned(),
            thought: completion.split.thinking(&completion.text).to_owned(),
            replied: completion.answer().trim_matches('\n').to_owned(),
            followed: row.next_state.map(|next| next.text),
            reward: row.verdict.and_then(|verdict| verdict.reward),
            hints: row.hints,
        }
    }
}

/// A wish that stands, as `wishes` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingWish {
    /// Its number.
    pub wish: u64,
    /// Whose it is, in hexadecimal digits that name them; none where the client did not say.
    pub person: Option<String>,
    /// The wish.
    pub text: String,
    /// The turn that it was voiced about.
    pub turn: String,
    /// When, in seconds since 1970.
    pub at_unix_secs: u64,
}

/// Something an operator did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When, in seconds since 1970.
    pub at_unix_secs: u64,
    /// The verb.
    pub verb: String,
    /// What it was done to.
    pub target: String,
    /// What came of it.
    pub outcome: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_is_a_path_and_a_body_and_reads_back() {
        let name = || "judge.0".to_owned();
        let commands = [
            Command::Restart { name: name(), drain: true },
            Command::Kill { name: name() },
            Command::Pause { name: name() },
            Command::Resume { name: name() },
            Command::Drain { name: name() },
            Command::Scale { role: name(), count: 2 },
            Command::RetryDead { turns: vec![name()] },
            Command::DropDead { turns: vec![name()] },
            Command::Rate { turn: name(), rating: Rating::Down },
            Command::CorrectHint { turn: name(), hint: "Be brief.".into() },
            Command::DropTurn { turn: name() },
            Command::ForgetWish { wish: 3 },
            Command::Checkpoint {},
            Command::Rollback { version: 3 },
            Command::Stop { now: true },
        ];
        let mut verbs = Vec::new();
        for command in commands {
            let (verb, body) = command.clone().into_request();
            assert_eq!(Command::from_request(&verb, body).unwrap(), command);
            verbs.push(verb);
        }
        assert_eq!(verbs, Command::VERBS);
        let restart = Command::from_request("restart", json!({"name": "judge"})).unwrap();
        assert_eq!(restart, Command::Restart { name: "judge".into(), drain: false });
        assert!(Command::from_request("restart", json!({"name": "judge", "drian": true})).is_err());
        assert!(Command::from_request("restart", json!({})).is_err());
    }
}
