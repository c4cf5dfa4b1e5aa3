//! Before and after: two versions answer the same prompt, greedily, so that only their weights differ.
//!
//! They answer on an engine of its own, one comparison at a time and one version after the other, with one thread and
//! a small cache: what serves and what trains keeps its own. The version that serves is not loaded a second time; one
//! that is not in memory is read from its folder, if the machine has room for it.

use std::time::Duration;

use openclaw_actors::{
    engine::{Engine, EngineError, EngineLimits, EngineText},
    policy::BuildModel,
    publisher::Version,
    rollback::{Rollback, RollbackError},
};
use openclaw_journal::{JournalError, TurnId};
use openclaw_model::{
    FinishReason, GenerateEvent, GenerateRequest, ParserConfig, ReplySplit, SamplingParams,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{Text, reply::ReplyParts};
use crate::{doctor::available_memory, measures::size};

/// Tokens of a prompt and its reply together.
pub const CONTEXT_TOKENS: usize = 8192;
/// Tokens of a reply.
const REPLY_TOKENS: usize = 256;
/// A version that has not answered by then is given up.
const DEADLINE: Duration = Duration::from_secs(60);
/// Characters of a typed prompt.
const PROMPT_CHARS: usize = 8000;
/// Characters that are shown of each part of a reply, and of what was asked.
const SHOWN_CHARS: usize = 8000;

/// Has versions answer. One at a time.
pub struct Comparison {
    pub(super) rollback: Rollback,
    pub(super) text: EngineText,
    build: BuildModel,
    busy: Mutex<()>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    /// The turn whose prompt is asked again, or
    #[serde(default)]
    pub turn: Option<String>,
    /// a user's message to begin with.
    #[serde(default)]
    pub prompt: Option<String>,
    /// The version before.
    pub old: u64,
    /// The version after.
    pub new: u64,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Compared {
    /// The last message of the prompt.
    asked: Text,
    prompt_tokens: usize,
    /// What was replied then, if the prompt is a turn's.
    recorded: Option<Recorded>,
    /// Drawn greedily now.
    old: Drawn,
    new: Drawn,
}

/// The reply in the journal.
#[derive(Debug, Serialize)]
struct Recorded {
    version: u64,
    temperature: f32,
    reply: ReplyParts,
}

/// A reply that was drawn now.
#[derive(Debug, Serialize)]
struct Drawn {
    version: u64,
    reply: ReplyParts,
    tokens: usize,
    /// Why it ended.
    finish: FinishReason,
    /// How long it took, its version's start included.
    secs: f64,
}

/// A prompt that is asked again.
struct Asked {
    /// Its last message.
    asked: Text,
    prompt_ids: Vec<u32>,
    /// How replies to it divide.
    parser: ParserConfig,
    recorded: Option<Recorded>,
}

/// Why versions were not compared.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompareError {
    /// Neither or both.
    #[error("send either `turn` or `prompt`")]
    Which,
    /// It is empty or too long.
    #[error("the prompt has {chars} characters; 1 to {PROMPT_CHARS} are asked")]
    Prompt {
        /// Its length.
        chars: usize,
    },
    /// There is no such turn.
    #[error("no turn `{turn}`")]
    Unknown {
        /// The turn.
        turn: String,
    },
    /// Longer than what is compared.
    #[error("the prompt has {tokens} tokens; up to {limit} are compared")]
    TooLong {
        /// Its length.
        tokens: usize,
        /// The most.
        limit: usize,
    },
    /// One at a time.
    #[error("another comparison is under way")]
    Busy,
    /// A version would not fit beside what runs.
    #[error("a version takes {} beside what runs, and {} are free", size(*needed), size(*free))]
    Memory {
        /// What it takes.
        needed: u64,
        /// What is there.
        free: u64,
    },
    /// It took too long.
    #[error("version {version} has not answered within {} s", DEADLINE.as_secs())]
    Late {
        /// Which.
        version: u64,
    },
    /// It could not go on.
    #[error("version {version} could not answer: {reason}")]
    Cut {
        /// Which.
        version: u64,
        /// Why.
        reason: String,
    },
    /// The version cannot be had.
    #[error(transparent)]
    Version(#[from] RollbackError),
    /// It refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The turn cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Comparison {
    /// Of the versions that `rollback` knows; `build` makes a model that speaks `text`, on threads of its own.
    pub fn new(rollback: Rollback, text: EngineText, build: BuildModel) -> Self {
        Self { rollback, text, build, busy: Mutex::default() }
    }

    /// Asks both.
    pub(super) async fn compare(&self, question: Question) -> Result<Compared, CompareError> {
        let _alone = self.busy.try_lock().map_err(|_| CompareError::Busy)?;
        let Asked { asked, prompt_ids, parser, recorded } = match (question.turn, question.prompt) {
            (Some(turn), None) => self.of_turn(turn).await?,
            (None, Some(prompt)) => self.of_prompt(&prompt)?,
            _ => return Err(CompareError::Which),
        };
        let limit = CONTEXT_TOKENS.min(self.text.context_tokens).saturating_sub(REPLY_TOKENS);
        if prompt_ids.len() > limit {
            return Err(CompareError::TooLong { tokens: prompt_ids.len(), limit });
        }
        let prompt_tokens = prompt_ids.len();
        let old = self.reply(question.old, prompt_ids.clone(), parser.clone()).await?;
        let new = self.reply(question.new, prompt_ids, parser).await?;
        Ok(Compared { asked, prompt_tokens, recorded, old, new })
    }

    async fn of_turn(&self, turn: String) -> Result<Asked, CompareError> {
        let row = self.rollback.journal.turn(&TurnId(turn.as_str().into())).await?;
        let row = row.ok_or(CompareError::Unknown { turn })?;
        let completion = &row.turn.completion;
        let asked = row.turn.messages.last().and_then(|message| message["content"].as_str());
        let recorded = Recorded {
            version: completion.policy_version,
            temperature: completion.temperature,
            reply: ReplyParts::cut(&completion.text, &completion.split, SHOWN_CHARS),
        };
        Ok(Asked {
            asked: Text::cut(asked.unwrap_or_default(), SHOWN_CHARS),
            prompt_ids: completion.prompt_ids.clone(),
            parser: ParserConfig::new(&row.turn.tools, completion.split.starts_in_thinking),
            recorded: Some(recorded),
        })
    }

    fn of_prompt(&self, prompt: &str) -> Result<Asked, CompareError> {
        let chars = prompt.chars().count();
        if prompt.trim().is_empty() || chars > PROMPT_CHARS {
            return Err(CompareError::Prompt { chars });
        }
        let messages = [json!({"role": "user", "content": prompt})];
        let refused = |error: openclaw_model::TextError| EngineError::Prompt {
            engine: "page".to_owned(),
            reason: error.to_string(),
        };
        let prompt_ids = self.text.prompt_ids(&messages, &[], &Map::new()).map_err(refused)?;
        let parser = ParserConfig::new(&[], self.text.opens_a_thought(&prompt_ids));
        Ok(Asked { asked: Text::cut(prompt, SHOWN_CHARS), prompt_ids, parser, recorded: None })
    }

    async fn reply(
        &self,
        version: u64,
        prompt_ids: Vec<u32>,
        parser: ParserConfig,
    ) -> Result<Drawn, CompareError> {
        let started = Instant::now();
        let drawn = timeout(DEADLINE, self.draw(version, prompt_ids)).await;
        let (text, tokens, finish) = drawn.map_err(|_| CompareError::Late { version })??;
        let secs = started.elapsed().as_secs_f64();
        let reply = ReplyParts::cut(&text, &ReplySplit::of(&text, parser), SHOWN_CHARS);
        Ok(Drawn { version, reply, tokens, finish, secs })
    }

    async fn draw(
        &self,
        version: u64,
        prompt_ids: Vec<u32>,
    ) -> Result<(String, usize, FinishReason), CompareError> {
        let current = self.rollback.versions.current();
        let weights = if version == current.number {
            current.weights
        } else {
            self.must_fit(version)?;
            self.rollback.weights(version).await?
        };
        let engine = Engine::new("page", EngineLimits::default(), self.text.clone());
        let build = self.build.clone();
        // The thread ends with the handle, however this ends.
        let _exited = engine.start(move || build(Version { number: version, weights })).await?;
        let request = GenerateRequest {
            prompt_ids,
            drawn_ids: Vec::new(),
            sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
            max_new_tokens: REPLY_TOKENS,
            stop: Vec::new(),
            top_logprobs: 0,
            constraint: None,
        };
        let mut events = engine.generate(request).await?;
        let (mut said, mut tokens) = (String::new(), 0);
        let cut = |reason: String| CompareError::Cut { version, reason };
        while let Some(event) = events.recv().await {
            match event {
                GenerateEvent::Token { text, .. } => {
                    said.push_str(&text);
                    tokens += 1;
                }
                GenerateEvent::Finished { reason, text, .. } => {
                    said.push_str(&text);
                    return Ok((said, tokens, reason));
                }
                GenerateEvent::Failed { error, .. } => return Err(cut(error)),
            }
        }
        Err(cut("its thread ended".to_owned()))
    }

    /// A folder is read whole: weights, and the optimizer's state of twice their size; then the weights are copied
    /// to where they are used.
    fn must_fit(&self, version: u64) -> Result<(), CompareError> {
        let weights = 4 * self.rollback.transformer.layout.len() as u64;
        let needed = if version == 0 { weights } else { 8 * weights };
        match available_memory() {
            Some(free) if free < needed => Err(CompareError::Memory { needed, free }),
            _ => Ok(()),
        }
    }
}
