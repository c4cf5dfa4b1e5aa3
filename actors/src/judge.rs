//! Reads a turn by what followed it: a reward, and hints for the teacher.
//!
//! A person's words on a reply are its hint; the hint writer is asked where they said nothing but their next message.
//! Rules come first, because what a rule can see needs no opinion. Else `votes` samples of the judge (or its probabilities
//! of the three verdicts) and, where the method wants them, as many of the hint writer are drawn at the same time under one deadline; a vote that does
//! not arrive in time, or was cut off before its end, does not count. If not one arrives, the turn goes back into the
//! inbox: for as long as it takes where nobody could be asked, and a few times where the model refused the question or
//! was late, with twice the time at each. What a rule has decided does not wait for that.

use std::time::Duration;

use futures::future::join_all;
use openclaw_journal::{
    Evaluate, Journal, JournalError, NextState, NextStateKind, Record, Recorded, Turn, Verdict, fault,
    inbox::Lease,
};
use openclaw_model::{FinishReason, GenerateEvent, GenerateRequest, SamplingParams};
use serde_json::{Map, json};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{Span, debug, debug_span, field::Empty, warn};

use self::{
    answer::{Answer, Ending, Unread},
    score::Scores,
    screens::Screens,
    votes::{read_votes, word},
};
use crate::{
    chat_client::{ChatClient, ChatReply, ChatRequest},
    conversation,
    engine::{Engine, EngineError},
    hints::{HintSelection, explicit_hint, select_hints},
    pictures::Pictures,
    prompts::{self, Exhibit, PromptStyle},
    worker::{Work, patience},
};

mod answer;
mod founded;
mod memory;
pub mod score;
mod screens;
mod votes;
mod wishes;

pub use memory::RecentVerdicts;
pub use wishes::is_lasting;

/// How a judge votes.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgeConfig {
    /// How a verdict comes about.
    pub votes: Votes,
    /// Sampling temperature of a vote.
    pub temperature: f32,
    /// Most tokens of a vote.
    pub max_new_tokens: usize,
    /// A vote that takes longer does not count. Where none comes in time, the turn uses up an attempt, and has twice
    /// the time at the next.
    pub deadline: Duration,
    /// The wording.
    pub prompt: PromptStyle,
    /// Most messages before the task that the judge is shown.
    pub history_messages: usize,
    /// Which hints go to the teacher; none where the method needs none.
    pub hints: Option<HintSelection>,
    /// A hint of the hint writer that does not follow from what was said is dropped. An embedded one can tell.
    pub hint_check: bool,
    /// What a person explicitly wished for stands for that person, and goes to the teacher with every reply.
    pub remember_hints: bool,
    /// A judge that sees: where the images of screens lie that an outside one is shown with a step.
    pub images: Option<Pictures>,
}

/// How a verdict comes about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Votes {
    /// So many samples, and as many of hints; the majority decides (published).
    Sampled(usize),
    /// By the probabilities of the three verdicts, without a sample: for an embedded model that answers with the verdict
    /// alone. There is one sample of a hint.
    Scored {
        /// A verdict that is not by so many nats likelier than the next is 0.
        margin: f32,
    },
}

impl Votes {
    /// Samples of a hint.
    fn hints(self) -> usize {
        match self {
            Self::Sampled(votes) => votes,
            Self::Scored { .. } => 1,
        }
    }
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
        let Evaluate { turn, next_state, undone } = &*lease;
        let started = Instant::now();
        let deadline = patience(self.config.deadline, lease.attempt());
        let opinion = match self.evaluate(turn, next_state, deadline).await {
            Ok(opinion) => opinion,
            Err(missing) => {
                warn!(turn = %turn.id, attempt = lease.attempt(), ?missing, "no vote arrived");
                metrics::counter!("openclaw_judge_unanswered_total", "reason" => missing.name()).increment(1);
                return match missing {
                    Missing::Refused => lease.fail(),
                    Missing::Failed => lease.postpone(),
                    Missing::Late => lease.fail_for(format!(
                        "slow: no answer within {} s; raise `actors.judge.deadline_secs`, or have less said with \
                         `actors.judge.max_new_tokens`",
                        deadline.as_secs_f32()
                    )),
                };
            }
        };
        metrics::histogram!("openclaw_judge_verdict_seconds").record(started.elapsed());
        match self.record(turn, *undone, opinion).await {
            Ok(recorded) => {
                fault::point("judge.after");
                if recorded == Recorded::Stale {
                    debug!(turn = %turn.id, "judged before, by another next state, or not to be trained on");
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Missing {
    /// The model does not take the question, and never will.
    Refused,
    /// It came after the deadline.
    Late,
    /// The model was away or ended.
    Failed,
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

/// What a person said of a turn on the page.
#[derive(Debug, Default)]
struct PersonsWord {
    rating: Option<i8>,
    hint: Option<String>,
}

/// What a judge made of a turn.
#[derive(Debug, PartialEq)]
struct Opinion {
    verdict: Verdict,
    answers: Vec<Option<String>>,
    hints: Vec<String>,
    hint_answers: Vec<Option<String>>,
    /// What a person wished for, to stand from now on.
    wish: Option<String>,
    /// There is an answer that a hint can be about.
    has_answer: bool,
}

impl Judge {
    async fn record(&self, turn: &Turn, undone: u32, opinion: Opinion) -> Result<Recorded, JournalError> {
        let Opinion { verdict, answers, mut hints, hint_answers, wish, has_answer } = opinion;
        self.recent.remember(&turn.session, turn.index, verdict.reward);
        let wish = wish.filter(|_| self.config.remember_hints);
        if self.config.remember_hints && self.config.hints.is_some() && has_answer {
            let standing = self.journal.wishes(Some(&turn.id)).await?;
            hints = wishes::with_standing(hints, &standing, wish.as_deref());
        }
        let teach = self.teaches && !hints.is_empty();
        let span = Span::current();
        span.record("reward", verdict.reward);
        span.record("votes", verdict.votes.len()).record("hints", hints.len());
        let turn = turn.id.clone();
        self.journal
            .record(Record::Judged { turn, undone, verdict, answers, hints, hint_answers, teach, wish })
            .await
    }

    /// Fails when no vote arrived at all. A verdict that a rule or a person has given does not wait for another try at
    /// hints.
    async fn evaluate(
        &self,
        turn: &Turn,
        next_state: &NextState,
        deadline: Duration,
    ) -> Result<Opinion, Missing> {
        let repeats_a_failure = || {
            let previous =
                turn.index.checked_sub(1).and_then(|index| self.recent.reward(&turn.session, index));
            previous == Some(-1)
        };
        let said = self.said_by_a_person(turn).await;
        let rule = match said.rating {
            Some(rating) => Some(("rating", rating.signum())),
            None => decide_by_rule(turn, next_state, repeats_a_failure),
        };
        // A hint says how to answer better: nothing follows from one about an answer that is not there.
        let has_answer = !matches!(&rule, Some((name, _)) if matches!(*name, "empty" | "truncated"));
        let explicit_hint = said.hint.or_else(|| explicit_hint(next_state.kind, &next_state.text));
        let wants_hint = self.config.hints.is_some()
            && explicit_hint.is_none()
            && has_answer
            && !next_state.text.trim().is_empty();

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
        let screens = self.screens(next_state).await;
        let judge_prompt = screens.beside(prompts::judge_prompt(self.config.prompt, &exhibit));
        let hint_prompt = prompts::hint_prompt(self.config.prompt, &exhibit);
        let hint_votes = if wants_hint { self.config.votes.hints() } else { 0 };
        let verdict = async {
            match self.config.votes {
                _ if rule.is_some() => Vec::new(),
                Votes::Sampled(votes) => self.ask("verdict", &judge_prompt, &screens, votes, deadline).await,
                Votes::Scored { margin } => vec![self.score(&judge_prompt, margin, deadline).await],
            }
        };
        let unseen = Screens::default();
        let (answers, hint_answers) =
            tokio::join!(verdict, self.ask("hint", &hint_prompt, &unseen, hint_votes, deadline));
        let asked = || answers.iter().chain(&hint_answers);
        if rule.is_none() && asked().all(Result::is_err) {
            // What says most of the turn goes first: a refusal lasts, and who is away tells nothing.
            let missing = asked().filter_map(|answer| answer.as_ref().err().copied());
            return Err(missing.min().unwrap_or(Missing::Failed));
        }
        let [answers, hint_answers] =
            [answers, hint_answers].map(|asked| asked.into_iter().map(Result::ok).collect::<Vec<_>>());
        self.report_unread(turn, "verdict", &answers);
        self.report_unread(turn, "hint", &hint_answers);
        let (verdict, by) = match rule {
            Some((name, reward)) => {
                (Verdict { reward: Some(reward), votes: Vec::new(), rule: Some(name.to_owned()) }, name)
            }
            None => (read_votes(&answers), "votes"),
        };
        metrics::counter!("openclaw_judge_verdicts_total", "reward" => word(verdict.reward), "by" => by)
            .increment(1);
        let hints = match (self.config.hints, explicit_hint.clone()) {
            (Some(_), Some(hint)) => vec![hint],
            (Some(selection), None) => {
                let arrived = hint_answers.iter().flatten();
                let readable: Vec<&str> = arrived.filter_map(|answer| answer.readable().ok()).collect();
                select_hints(selection, &self.founded(readable, &exhibit, deadline).await)
            }
            (None, _) => Vec::new(),
        };
        // What was said is kept as it arrived, also where nothing can be read from it.
        let [answers, hint_answers] = [answers, hint_answers]
            .map(|said| said.into_iter().map(|answer| answer.map(|answer| answer.text)).collect());
        let (task, answer) = (history.last().map_or("", |(_, task)| task), exhibit.answer);
        let is_praise = said.rating.or(next_state.rating).is_some_and(|rating| rating > 0);
        let wish = match (&explicit_hint, hints.first()) {
            (Some(words), _) => (!is_praise && is_lasting(words, task, answer)).then_some(words.as_str()),
            (None, Some(hint)) => wishes::of_talk(hint, next_state, task, answer),
            (None, None) => None,
        };
        let wish = wish.filter(|_| has_answer).map(str::to_owned);
        Ok(Opinion { verdict, answers, hints, hint_answers, wish, has_answer })
    }

    /// The answers without those whose hint does not follow from what was said, where that can be told in time.
    async fn founded<'a>(
        &self,
        answers: Vec<&'a str>,
        exhibit: &Exhibit<'_>,
        deadline: Duration,
    ) -> Vec<&'a str> {
        let JudgeEngine::Embedded(engine) = &self.engine else { return answers };
        if !self.config.hint_check {
            return answers;
        }
        let until = Instant::now() + deadline;
        let is_founded = async |answer: &str| {
            let Some(hint) = prompts::parse_hint(answer) else { return true };
            let told =
                timeout_at(until, founded::is_founded(engine, self.config.prompt, exhibit, &hint)).await;
            let told = match told {
                Ok(Ok(told)) => told,
                Ok(Err(error)) => {
                    warn!(%error, "a hint is not checked");
                    true
                }
                Err(_) => {
                    warn!("a hint is not checked in time");
                    true
                }
            };
            if !told {
                debug!("a hint does not follow from what was said");
                metrics::counter!("openclaw_judge_hints_total", "outcome" => "unfounded").increment(1);
            }
            told
        };
        let told = join_all(answers.iter().map(|answer| is_founded(answer))).await;
        answers.into_iter().zip(told).filter(|(_, told)| *told).map(|(answer, _)| answer).collect()
    }

    /// What a step's screen showed, where the judge is to see it.
    async fn screens(&self, next_state: &NextState) -> Screens {
        let (Some(pictures), Some(screen)) = (&self.config.images, &next_state.screen) else {
            return Screens::default();
        };
        let (pictures, screen) = (pictures.clone(), screen.clone());
        // A judge without images is better than none.
        tokio::task::spawn_blocking(move || Screens::read(&pictures, &screen)).await.unwrap_or_default()
    }

    /// What a person may have said since the turn was handed on: nobody else is asked for it then.
    async fn said_by_a_person(&self, turn: &Turn) -> PersonsWord {
        match self.journal.turn(&turn.id).await {
            Ok(Some(row)) => PersonsWord { rating: row.rated, hint: row.corrected },
            Ok(None) => PersonsWord::default(),
            Err(error) => {
                warn!(turn = %turn.id, %error, "what a person said of a turn cannot be read");
                PersonsWord::default()
            }
        }
    }

    /// Counts the answers that arrived and cannot be read, and says what helps.
    fn report_unread(&self, turn: &Turn, what: &'static str, answers: &[Option<Answer>]) {
        let unread: Vec<Unread> =
            answers.iter().flatten().filter_map(|answer| answer.readable().err()).collect();
        for reason in &unread {
            metrics::counter!("openclaw_judge_votes_missing_total", "vote" => what, "reason" => reason.name())
                .increment(1);
        }
        let (id, asked, max_new_tokens) = (&turn.id, answers.len(), self.config.max_new_tokens);
        let count = |reason| unread.iter().filter(|other| **other == reason).count();
        let (cut, unfinished, no_text) = (count(Unread::Cut), count(Unread::Broken), count(Unread::NoText));
        if !unread.is_empty() {
            warn!(
                turn = %id, vote = what, asked, cut, unfinished, no_text, max_new_tokens,
                "answers that say nothing to their end do not count; where they are cut, or think and say no more, \
                 raise `actors.judge.max_new_tokens`"
            );
        }
    }

    async fn ask(
        &self,
        what: &'static str,
        prompt: &str,
        screens: &Screens,
        votes: usize,
        deadline: Duration,
    ) -> Vec<Result<Answer, Missing>> {
        let deadline = Instant::now() + deadline;
        let ask = || async {
            let missing = match self.engine.answer(prompt, screens, &self.config, deadline).await {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => Missing::Late,
                Err(error) => {
                    debug!(%error, vote = what, "a vote failed");
                    Missing::of(&error)
                }
            };
            metrics::counter!("openclaw_judge_votes_missing_total", "vote" => what, "reason" => missing.name())
                .increment(1);
            Err(missing)
        };
        join_all((0..votes).map(|_| ask())).await
    }

    /// The likeliest verdict, said as a judge would say it, with its probabilities behind it.
    async fn score(&self, prompt: &str, margin: f32, deadline: Duration) -> Result<Answer, Missing> {
        let missing = match &self.engine {
            JudgeEngine::Embedded(engine) => match timeout(deadline, Scores::of(engine, prompt)).await {
                Ok(Ok(scores)) => {
                    let text = format!("({}) \\boxed{{{}}}", scores.told(), scores.verdict(margin));
                    return Ok(Answer { text, ending: Ending::Finished });
                }
                Ok(Err(error)) => {
                    debug!(%error, vote = "verdict", "a vote failed");
                    Missing::of(&error)
                }
                Err(_) if engine.status().up => Missing::Late,
                Err(_) => Missing::Failed,
            },
            // A topology has none such.
            JudgeEngine::OpenAi(_) => Missing::Refused,
        };
        metrics::counter!("openclaw_judge_votes_missing_total", "vote" => "verdict", "reason" => missing.name())
            .increment(1);
        Err(missing)
    }
}

impl JudgeEngine {
    /// One sample of what the model says to `prompt`, as one user message; none where it was asked and is late.
    async fn answer(
        &self,
        prompt: &str,
        screens: &Screens,
        config: &JudgeConfig,
        deadline: Instant,
    ) -> Result<Option<Answer>, EngineError> {
        if fault::failure("judge.never_answers").is_some() {
            sleep_until(deadline).await;
            return Ok(None);
        }
        match self {
            Self::Embedded(engine) => {
                let prompt_ids = engine.question_ids(prompt)?;
                let request = GenerateRequest {
                    drawn_ids: Vec::new(),
                    prompt_ids,
                    sampling: SamplingParams { temperature: config.temperature, ..SamplingParams::default() },
                    max_new_tokens: config.max_new_tokens,
                    stop: Vec::new(),
                    top_logprobs: 0,
                    constraint: None,
                };
                match timeout_at(deadline, collect_answer(engine, request, |_| false)).await {
                    Ok(answer) => answer.map(Some),
                    Err(_) if engine.status().up => Ok(None),
                    Err(_) => Err(EngineError::Ended { engine: engine.name().to_owned() }),
                }
            }
            Self::OpenAi(client) => {
                let mut options = Map::new();
                options.insert("temperature".into(), config.temperature.into());
                options.insert("max_tokens".into(), config.max_new_tokens.into());
                let messages = vec![json!({"role": "user", "content": screens.content(prompt)})];
                let request = ChatRequest { messages, options, ..ChatRequest::default() };
                let Some(reply) = client.ask_until(&request, deadline).await else { return Ok(None) };
                let answer = |reply: ChatReply| Answer {
                    ending: Ending::of(&reply.finish_reason),
                    text: reply.content,
                };
                reply.map(|reply| Some(answer(reply))).map_err(|error| {
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

/// The text of an answer, up to where it says enough; else whole or cut.
pub(crate) async fn said_until(
    engine: &Engine,
    request: GenerateRequest,
    is_enough: impl FnMut(&str) -> bool,
) -> Result<String, EngineError> {
    Ok(collect_answer(engine, request, is_enough).await?.text)
}

async fn collect_answer(
    engine: &Engine,
    request: GenerateRequest,
    mut is_enough: impl FnMut(&str) -> bool,
) -> Result<Answer, EngineError> {
    let mut said = String::new();
    if engine.text().opens_a_thought(&request.prompt_ids) {
        said.push_str("<think>\n");
    }
    let mut events = engine.generate(request).await?;
    while let Some(event) = events.recv().await {
        match event {
            GenerateEvent::Token { text, .. } => {
                said.push_str(&text);
                if is_enough(&said) {
                    return Ok(Answer { text: said, ending: Ending::Cut });
                }
            }
            GenerateEvent::Finished { text, reason, .. } => {
                said.push_str(&text);
                let ending = match reason {
                    FinishReason::Stop => Ending::Finished,
                    FinishReason::Length => Ending::Cut,
                    FinishReason::Cancelled => Ending::Broken,
                };
                return Ok(Answer { text: said, ending });
            }
            GenerateEvent::Failed { error, .. } => {
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
        let rule = if next_state.by_rule.is_some() { "environment" } else { "rating" };
        return Some((rule, rating.signum()));
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
