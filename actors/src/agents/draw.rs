//! One reply of the policy, from whichever engine is up. Nobody reads along: where an engine ends under a reply, it is drawn
//! anew, by one version.

use std::time::Duration;

use openclaw_journal::{Completion, TurnId};
use openclaw_model::{Dialogue, FinishReason, GenerateEvent, GenerateRequest, ParserConfig, SamplingParams};
use serde_json::Value;
use tokio::time::sleep;
use tracing::warn;

use crate::{
    engine::{Engine, EngineError},
    gateway::{
        draft::{Draft, Part},
        protocol::chat::message,
    },
};

/// Tries after which the reply is given up: it may be what ends the engines.
const MOST_TRIES: u32 = 5;
/// Between two.
const RETRY_PERIOD: Duration = Duration::from_millis(100);

/// How replies are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Temperature.
    pub temperature: f32,
    /// Most tokens of a reply.
    pub max_new_tokens: usize,
}

/// A reply.
pub struct Drawn {
    /// Its tokens.
    pub completion: Completion,
    /// What it consists of.
    pub parts: Vec<Part>,
    /// As an assistant's message.
    pub message: Value,
}

/// The reply that a dialogue asks for.
pub async fn draw(
    engines: &[Engine],
    home: usize,
    turn: &TurnId,
    dialogue: &Dialogue,
    sampling: Sampling,
) -> Result<Drawn, EngineError> {
    let request = GenerateRequest {
        prompt_ids: dialogue.ids().to_vec(),
        drawn_ids: Vec::new(),
        sampling: SamplingParams { temperature: sampling.temperature, ..SamplingParams::default() },
        max_new_tokens: sampling.max_new_tokens,
        stop: Vec::new(),
        top_logprobs: 0,
        constraint: None,
    };
    let mut tries = 0;
    loop {
        tries += 1;
        // An episode stays with the engine that has its prompt cached, as long as that is up.
        let in_turn = engines.iter().cycle().skip(home).take(engines.len());
        let Some(engine) = in_turn.clone().find(|engine| engine.status().up).or(in_turn.clone().next())
        else {
            return Err(EngineError::Ended { engine: "no engine".to_owned() });
        };
        let parser = ParserConfig::new(dialogue.tools(), dialogue.ends_in_thinking());
        match once(engine, turn, parser, request.clone()).await {
            Err(error) if tries < MOST_TRIES && !matches!(error, EngineError::Refused { .. }) => {
                warn!(%turn, %error, tries, "the model ended under a step");
                sleep(RETRY_PERIOD).await;
            }
            drawn => return drawn,
        }
    }
}

async fn once(
    engine: &Engine,
    turn: &TurnId,
    parser: ParserConfig,
    request: GenerateRequest,
) -> Result<Drawn, EngineError> {
    let ended = || EngineError::Ended { engine: engine.name().to_owned() };
    let (prompt_ids, temperature) = (request.prompt_ids.clone(), request.sampling.temperature);
    let mut draft = Draft::new(turn, parser, false);
    let mut events = engine.generate(request).await?;
    loop {
        match events.recv().await.ok_or_else(ended)? {
            GenerateEvent::Token { token, text, .. } => drop(draft.push(token, &text)),
            GenerateEvent::Finished { reason: FinishReason::Cancelled, .. } => return Err(ended()),
            GenerateEvent::Finished { reason, text, policy_version, .. } => {
                draft.close(&text);
                let parts = draft.parts().to_vec();
                let message = message(&parts);
                let completion = draft.into_completion(prompt_ids, policy_version, temperature, reason);
                return Ok(Drawn { completion, parts, message });
            }
            GenerateEvent::Failed { error, by_request } if by_request => {
                return Err(EngineError::Refused { engine: engine.name().to_owned(), reason: error });
            }
            GenerateEvent::Failed { .. } => return Err(ended()),
        }
    }
}
