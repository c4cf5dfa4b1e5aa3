//! The tokens of one reply, from whichever engine is up. One that ends under a reply is waited for, or replaced by
//! another replica, and the reply goes on behind its last token: clients would answer an error with a rewritten message.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use metrics::Histogram;
use openclaw_journal::SessionId;
use openclaw_model::{FinishReason, GenerateEvent, GenerateRequest, ScoreRequest, Scored, TokenLogprob};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};
use tracing::warn;

use super::{Shared, errors::ApiError};
use crate::engine::{Engine, EngineError};

/// Between two looks for an engine that is up.
const LOOK_PERIOD: Duration = Duration::from_millis(10);
/// Between a failure and the next try.
const RETRY_PERIOD: Duration = Duration::from_millis(100);
/// Failures without a token between them after which a reply is given up: it may be what ends the engines.
const MAX_ATTEMPTS: u32 = 3;
/// Failures after which a reply is given up however far it has come in between.
const MAX_INTERRUPTIONS: u32 = 16;

/// See the file's header.
pub struct Generation {
    shared: Arc<Shared>,
    /// Its `drawn_ids` are the reply so far.
    request: GenerateRequest,
    home: usize,
    events: Option<mpsc::Receiver<GenerateEvent>>,
    first: Option<Drawn>,
    policy_version: u64,
    mixed_versions: bool,
    /// Until when the engines may be away; set while a reply waits for one.
    patience: Option<Instant>,
    attempts: u32,
    interruptions: u32,
    /// When the last token came.
    token_at: Option<Instant>,
    inter_token: Histogram,
}

/// What a reply consists of.
pub enum Drawn {
    /// One more token, and the text that became certain with it.
    Token(TokenLogprob, String),
    /// The end, and the text held back until then.
    End(Ending, String),
}

/// How a generation ended.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// Why.
    pub reason: FinishReason,
    /// The version that drew every token, or the last one.
    pub policy_version: u64,
    /// Several versions drew it: no policy would have sampled it as it is, so it cannot be trained on.
    pub mixed_versions: bool,
    /// Prompt tokens that needed no computing.
    pub cached_tokens: usize,
}

impl Generation {
    /// Begins to draw and waits for the first token.
    pub async fn begin(
        shared: Arc<Shared>,
        session: &SessionId,
        request: GenerateRequest,
    ) -> Result<Self, ApiError> {
        let mut hasher = DefaultHasher::new();
        session.hash(&mut hasher);
        let mut generation = Self {
            // A session stays with the engine that has its prefix cached, as long as that engine is up.
            home: (hasher.finish() % shared.engines.len() as u64) as usize,
            shared,
            request,
            events: None,
            first: None,
            policy_version: 0,
            mixed_versions: false,
            patience: None,
            attempts: 0,
            interruptions: 0,
            token_at: None,
            inter_token: metrics::histogram!("openclaw_gateway_inter_token_seconds"),
        };
        generation.first = Some(generation.next().await?);
        Ok(generation)
    }

    /// The version that drew the last token.
    pub fn policy_version(&self) -> u64 {
        self.policy_version
    }

    /// What comes next; an error ends the reply.
    pub async fn next(&mut self) -> Result<Drawn, ApiError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let mut cut = self.shared.cut.subscribe();
        loop {
            let drawn = tokio::select! {
                drawn = self.draw() => drawn?,
                _ = cut.wait_for(|cut| *cut) => return Err(broken("the server is stopping")),
            };
            match drawn {
                Ok(drawn) => return Ok(drawn),
                Err(failure) => {
                    self.events = None;
                    self.interrupted(&failure)?;
                    sleep(RETRY_PERIOD).await;
                }
            }
        }
    }

    /// The outer error ends the reply, the inner one is a failure of an engine.
    async fn draw(&mut self) -> Result<Result<Drawn, String>, ApiError> {
        let events = match &mut self.events {
            Some(events) => events,
            None => match self.ask().await? {
                Ok(events) => self.events.insert(events),
                Err(failure) => return Ok(Err(failure)),
            },
        };
        match events.recv().await {
            Some(GenerateEvent::Token { token, text, policy_version }) => {
                self.drawn_by(policy_version);
                self.request.drawn_ids.push(token.id);
                let now = Instant::now();
                if let Some(before) = self.token_at.replace(now) {
                    self.inter_token.record(now - before);
                }
                (self.attempts, self.patience) = (0, None);
                Ok(Ok(Drawn::Token(token, text)))
            }
            Some(GenerateEvent::Finished { reason: FinishReason::Cancelled, .. }) => {
                Ok(Err("the generation was cancelled".to_owned()))
            }
            Some(GenerateEvent::Finished { reason, text, policy_version, cached_tokens }) => {
                // A late engine that found nothing left to draw has drawn nothing.
                if self.request.drawn_ids.is_empty() {
                    self.drawn_by(policy_version);
                }
                let ending = Ending {
                    reason,
                    policy_version: self.policy_version,
                    mixed_versions: self.mixed_versions,
                    cached_tokens: cached_tokens.min(self.request.prompt_ids.len()),
                };
                Ok(Ok(Drawn::End(ending, text)))
            }
            Some(GenerateEvent::Failed { error, by_request: true }) => Err(ApiError::form(&error)),
            Some(GenerateEvent::Failed { error, .. }) => Ok(Err(error)),
            None => Ok(Err("the model ended".to_owned())),
        }
    }

    async fn ask(&mut self) -> Result<Result<mpsc::Receiver<GenerateEvent>, String>, ApiError> {
        let patience = Duration::from_secs(self.shared.config.engine_wait_secs);
        let until = *self.patience.get_or_insert_with(|| Instant::now() + patience);
        let asked = async {
            let engine = self.engine().await;
            engine.generate(self.request.clone()).await
        };
        match timeout_at(until, asked).await {
            Ok(Ok(events)) => Ok(Ok(events)),
            Ok(Err(EngineError::Refused { reason, .. })) if self.request.drawn_ids.is_empty() => {
                let message = format!("The model cannot take this request: {reason}.");
                Err(ApiError::invalid("messages", message))
            }
            Ok(Err(error)) => Ok(Err(error.to_string())),
            Err(_) => Err(ApiError::unavailable("The model is away: it did not come back in time.")),
        }
    }

    /// An engine that is up: one that serves the version of the reply so far, else the nearest to home.
    async fn engine(&self) -> Engine {
        let engines = &self.shared.engines;
        loop {
            let in_turn = || engines.iter().cycle().skip(self.home).take(engines.len());
            let up = || in_turn().filter(|engine| engine.status().up);
            let same =
                || up().find(|e| !self.request.drawn_ids.is_empty() && e.version() == self.policy_version);
            if let Some(engine) = same().or_else(|| up().next()) {
                return engine.clone();
            }
            sleep(LOOK_PERIOD).await;
        }
    }

    fn drawn_by(&mut self, version: u64) {
        let goes_on = !self.request.drawn_ids.is_empty();
        self.mixed_versions |= goes_on && version != self.policy_version;
        self.policy_version = version;
    }

    fn interrupted(&mut self, failure: &str) -> Result<(), ApiError> {
        self.attempts += 1;
        self.interruptions += 1;
        let tokens = self.request.drawn_ids.len();
        warn!(failure, tokens, attempts = self.attempts, "the model ended under a reply");
        if self.attempts == MAX_ATTEMPTS || self.interruptions == MAX_INTERRUPTIONS {
            return Err(broken(failure));
        }
        let after = if tokens == 0 { "nothing" } else { "tokens" };
        metrics::counter!("openclaw_gateway_generations_repeated_total", "after" => after).increment(1);
        Ok(())
    }
}

fn broken(failure: &str) -> ApiError {
    ApiError::unavailable(format!("The generation broke: {failure}."))
}

/// Log-probabilities of given ids, from whichever engine is up.
pub async fn score(shared: &Shared, request: ScoreRequest) -> Result<Scored, ApiError> {
    let away = || ApiError::unavailable("The model is away: it did not come back in time.");
    let asked = async {
        loop {
            if let Some(engine) = shared.engines.iter().find(|engine| engine.status().up) {
                match engine.score(request.clone()).await {
                    Ok(scored) => return Ok(scored),
                    Err(EngineError::Refused { reason, .. }) => {
                        let message = format!("The model cannot score this prompt: {reason}.");
                        return Err(ApiError::invalid("prompt_logprobs", message));
                    }
                    Err(error) => warn!(%error, "the model ended under a scoring"),
                }
            }
            sleep(RETRY_PERIOD).await;
        }
    };
    let until = Instant::now() + Duration::from_secs(shared.config.engine_wait_secs);
    timeout_at(until, asked).await.unwrap_or_else(|_| Err(away()))
}
