//! Reads a turn by what followed it: a reward, and hints for the teacher.
//!
//! Rules come first, because what a rule can see needs no opinion. Else `votes` samples of the judge and, where the
//! method wants them, as many of the hint writer are drawn at the same time under one deadline; a vote that does
//! not arrive in time does not count. If not one arrives, the turn goes back into the inbox: for as long as it takes
//! where nobody could be asked, and a few times where the model refused the question.

use std::time::Duration;

use futures::future::join_all;
use openclaw_journal::{
    Evaluate, Journal, JournalError, NextState, NextStateKind, Record, Recorded, Turn, Verdict, fault,
    inbox::Lease,
};
use openclaw_model::{FinishReason, GenerateEvent, GenerateRequest, SamplingParams};
use serde_json::{Map, json};
use tokio::time::{Instant, timeout_at};
use tracing::{Span, debug, debug_span, field::Empty, warn};

use self::votes::{read_votes, word};
use crate::{
    chat_client::{ChatClient, ChatRequest},
    conversation,
    engine::{Engine, EngineError},
    hints::{HintSelection, select_hints},
    prompts::{self, Exhibit, PromptStyle},
    worker::Work,
};

mod memory;
mod votes;

pub use memory::RecentVerdicts;

/// How a judge votes.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgeConfig {
    /// Samples per turn; the majority decides.
    pub votes: usize,
    /// Sampling temperature of a vote.
    pub temperature: f32,
    /// Most tokens of a vote.
    pub max_new_tokens: usize,
    /// A vote that takes longer does not count.
    pub deadline: Duration,
    /// The wording.
    pub prompt: PromptStyle,
    /// Most messages before the task that the judge is shown.
    pub history_messages: usize,
    /// Which hints go to the teacher; none where the method needs none.
    pub hints: Option<HintSelection>,
}

/// What a judge runs on.
#[derive(Clone)]
pub enum JudgeEngine {
    /// A model of this process.
    Embedded(Engine),
    /// A chat endpoint.
    OpenAi(ChatClient),
}

/// The work of `judge.N`.
pub struct Judge {
    /// How it votes.
    pub config: JudgeConfig,
    /// What it runs on.
    pub engine: JudgeEngine,
    /// Shared by all judges: what each session's last verdict was.
    pub recent: RecentVerdicts,
    /// Whether turns with hints go to a teacher.
    pub teaches: bool,
    /// Where verdicts and hints are recorded.
    pub journal: Journal,
}

impl Work for Judge {
    type Message = Evaluate;
    const ROLE: &'static str = "judge";

    fn span(message: &Evaluate) -> Span {
        debug_span!("judge", turn = %message.turn.id, reward = Empty, votes = Empty, hints = Empty)
    }

    async fn handle(&self, lease: Lease<Evaluate>) {
        fault::point("judge.before");
        let Evaluate { turn, next_state } = &*lease;
        let started = Instant::now();
        let opinion = match self.evaluate(turn, next_state).await {
            Ok(opinion) => opinion,
            Err(missing) => {
                warn!(turn = %turn.id, attempt = lease.attempt(), ?missing, "no vote arrived");
                metrics::counter!("openclaw_judge_unanswered_total", "reason" => missing.name()).increment(1);
                return match missing {
                    Missing::Refused => lease.fail(),
                    Missing::Failed | Missing::Late => lease.postpone(),
                };
            }
        };
        metrics::histogram!("openclaw_judge_verdict_seconds").record(started.elapsed());
        match self.record(turn, opinion).await {
            Ok(recorded) => {
                fault::point("judge.after");
                if recorded == Recorded::Stale {
                    debug!(turn = %turn.id, "judged before, or not to be trained on");
                }
                lease.ack();
            }
            Err(error) => {
                warn!(turn = %turn.id, %error, "a verdict was not recorded");
                lease.postpone();
            }
        }
    }
}

/// Why a vote is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// The model does not take the question, and never will.
    Refused,
    /// The model was away or ended.
    Failed,
    /// It came after the deadline.
    Late,
}

impl Missing {
    fn of(error: &EngineError) -> Self {
        match error {
            EngineError::Refused { .. } | EngineError::Prompt { .. } => Self::Refused,
            EngineError::Ended { .. } | EngineError::Start { .. } | EngineError::Remote { .. } => {
                Self::Failed
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Failed => "error",
            Self::Late => "deadline",
        }
    }
}

/// What a judge made of a turn.
#[derive(Debug, PartialEq)]
struct Opinion {
    verdict: Verdict,
    answers: Vec<Option<String>>,
    hints: Vec<String>,
    hint_answers: Vec<Option<String>>,
}

impl Judge {
    async fn record(&self, turn: &Turn, opinion: Opinion) -> Result<Recorded, JournalError> {
        let Opinion { verdict, answers, hints, hint_answers } = opinion;
        self.recent.remember(&turn.session, turn.index, verdict.reward);
        let teach = self.teaches && !hints.is_empty();
        let span = Span::current();
        span.record("reward", verdict.reward);
        span.record("votes", verdict.votes.len()).record("hints", hints.len());
        let turn = turn.id.clone();
        self.journal.record(Record::Judged { turn, verdict, answers, hints, hint_answers, teach }).await
    }

    /// Fails when no vote arrived at all.
    async fn evaluate(&self, turn: &Turn, next_state: &NextState) -> Result<Opinion, Missing> {
        let repeats_a_failure = || {
            let previous =
                turn.index.checked_sub(1).and_then(|index| self.recent.reward(&turn.session, index));
            previous == Some(-1)
        };
        let rule = decide_by_rule(turn, next_state, repeats_a_failure);
        // A hint says how to answer better: nothing follows from one about an answer that is not there.
        let has_answer = !matches!(&rule, Some((name, _)) if matches!(*name, "empty" | "truncated"));
        let wants_hint = self.config.hints.is_some() && has_answer && !next_state.text.trim().is_empty();

        let history = conversation::history(&turn.messages, self.config.history_messages);
        let exhibit = Exhibit {
            history: &history,
            answer: conversation::answer(turn),
            next_state: &next_state.text,
            next_role: match next_state.kind {
                NextStateKind::User => "user",
                NextStateKind::Tool => "tool",
                NextStateKind::Feedback => "feedback",
            },
        };
        let judge_prompt = prompts::judge_prompt(self.config.prompt, &exhibit);
        let hint_prompt = prompts::hint_prompt(self.config.prompt, &exhibit);
        let votes = if rule.is_some() { 0 } else { self.config.votes };
        let hint_votes = if wants_hint { self.config.votes } else { 0 };
        let (answers, hint_answers) = tokio::join!(
            self.ask("verdict", &judge_prompt, votes),
            self.ask("hint", &hint_prompt, hint_votes)
        );
        let asked = || answers.iter().chain(&hint_answers);
        if let Some(missing) = asked().find_map(|answer| answer.as_ref().err())
            && asked().all(Result::is_err)
        {
            let refused = asked().any(|answer| *answer == Err(Missing::Refused));
            return Err(if refused { Missing::Refused } else { *missing });
        }
        let [answers, hint_answers] =
            [answers, hint_answers].map(|asked| asked.into_iter().map(Result::ok).collect::<Vec<_>>());
        let (verdict, by) = match rule {
            Some((name, reward)) => {
                (Verdict { reward: Some(reward), votes: Vec::new(), rule: Some(name.to_owned()) }, name)
            }
            None => (read_votes(&answers), "votes"),
        };
        metrics::counter!("openclaw_judge_verdicts_total", "reward" => word(verdict.reward), "by" => by)
            .increment(1);
        let hints = match self.config.hints {
            Some(selection) => select_hints(selection, &hint_answers),
            None => Vec::new(),
        };
        Ok(Opinion { verdict, answers, hints, hint_answers })
    }

    async fn ask(&self, what: &'static str, prompt: &str, votes: usize) -> Vec<Result<String, Missing>> {
        let deadline = Instant::now() + self.config.deadline;
        let ask = || async {
            let missing = match timeout_at(deadline, self.engine.answer(prompt, &self.config)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => {
                    debug!(%error, vote = what, "a vote failed");
                    Missing::of(&error)
                }
                Err(_) => Missing::Late,
            };
            metrics::counter!("openclaw_judge_votes_missing_total", "vote" => what, "reason" => missing.name())
                .increment(1);
            Err(missing)
        };
        join_all((0..votes).map(|_| ask())).await
    }
}

impl JudgeEngine {
    /// One sample of what the model says to `prompt`, as one user message.
    async fn answer(&self, prompt: &str, config: &JudgeConfig) -> Result<String, EngineError> {
        let message = json!({"role": "user", "content": prompt});
        if fault::failure("judge.never_answers").is_some() {
            std::future::pending::<()>().await;
        }
        match self {
            Self::Embedded(engine) => {
                let prompt_ids = engine.prompt_ids(&[message], &[], &Map::new())?;
                let request = GenerateRequest {
                    drawn_ids: Vec::new(),
                    prompt_ids,
                    sampling: SamplingParams { temperature: config.temperature, ..SamplingParams::default() },
                    max_new_tokens: config.max_new_tokens,
                    stop: Vec::new(),
                    top_logprobs: 0,
                };
                collect_text(engine, request).await
            }
            Self::OpenAi(client) => {
                let mut options = Map::new();
                options.insert("temperature".into(), config.temperature.into());
                options.insert("max_tokens".into(), config.max_new_tokens.into());
                let request = ChatRequest { messages: vec![message], options, ..ChatRequest::default() };
                let reply = client.ask_until_answered(&request).await;
                reply.map(|reply| reply.content).map_err(|error| {
                    let (engine, reason) = (client.url().to_owned(), error.to_string());
                    if error.is_about_the_request() {
                        EngineError::Refused { engine, reason }
                    } else {
                        EngineError::Remote { engine, reason }
                    }
                })
            }
        }
    }
}

async fn collect_text(engine: &Engine, request: GenerateRequest) -> Result<String, EngineError> {
    let mut events = engine.generate(request).await?;
    let mut answer = String::new();
    while let Some(event) = events.recv().await {
        match event {
            GenerateEvent::Token { text, .. } => answer.push_str(&text),
            GenerateEvent::Finished { text, .. } => {
                answer.push_str(&text);
                return Ok(answer);
            }
            GenerateEvent::Failed { error } => {
                return Err(EngineError::Remote { engine: engine.name().to_owned(), reason: error });
            }
        }
    }
    Err(EngineError::Ended { engine: engine.name().to_owned() })
}

/// What needs no opinion: the rule's name and the reward.
fn decide_by_rule(
    turn: &Turn,
    next_state: &NextState,
    repeats_a_failure: impl FnOnce() -> bool,
) -> Option<(&'static str, i8)> {
    let answer = conversation::answer(turn);
    if let Some(rating) = next_state.rating {
        return Some(("rating", rating.signum()));
    }
    if turn.completion.finish_reason == FinishReason::Length {
        return Some(("truncated", -1));
    }
    if answer.is_empty() {
        return Some(("empty", -1));
    }
    if next_state.kind == NextStateKind::Tool && next_state.is_error {
        return Some(("tool_error", -1));
    }
    // The same words again after they failed; the same words to another question may be right.
    if conversation::previous_answer(&turn.messages) == Some(answer) && repeats_a_failure() {
        return Some(("repeat", -1));
    }
    None
}

#[cfg(test)]
mod tests;
