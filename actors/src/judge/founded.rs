//! Whether a hint follows from what was said: a hint writer that invents one gives it whatever was said.

use openclaw_model::ScoreRequest;

use crate::{
    engine::{Engine, EngineError},
    prompts::{self, Exhibit, PromptStyle},
};

/// A message from which no hint follows.
const SAYS_NOTHING: &str = "ok";
/// A hint is likelier after what was said than after nothing by so many nats per token.
const FOUNDED_NATS: f32 = 0.2;

/// Whether this hint is an answer to what was said: its mean log-probability per token, as the hint writer's answer, beside
/// the one had nothing been said.
pub(super) async fn is_founded(
    engine: &Engine,
    style: PromptStyle,
    exhibit: &Exhibit<'_>,
    hint: &str,
) -> Result<bool, EngineError> {
    let answer = engine.text_ids(&prompts::hint_answer(Some(hint)))?;
    let score = async |exhibit: &Exhibit<'_>| -> Result<f32, EngineError> {
        let prompt = engine.question_ids(&prompts::hint_prompt(style, exhibit))?;
        let start = prompt.len();
        let ids = [prompt, answer.clone()].concat();
        let scored =
            engine.score(ScoreRequest { ids, start, temperature: 1.0, ..ScoreRequest::default() }).await?;
        Ok(scored.logprobs.iter().sum::<f32>() / answer.len().max(1) as f32)
    };
    let nothing = Exhibit { next_state: SAYS_NOTHING, next_role: "user", ..exhibit.clone() };
    let (after, before) = (score(exhibit).await?, score(&nothing).await?);
    Ok(after - before >= FOUNDED_NATS)
}
