//! Log-probabilities as clients are told them: the model's own, before temperature and truncation, which is what OpenAI
//! reports and what the alternatives are measured in. Training compares with the whole distribution at the temperature
//! of the request.

use openclaw_model::{TokenLogprob, Tokenizer};
use serde_json::{Map, Value, json};

use super::{Head, PromptLogprobs};

/// JSON has no infinity; this is how OpenAI writes "never".
const LEAST_LOGPROB: f32 = -9999.0;

/// What JSON can write of it.
pub fn finite(logprob: f32) -> f32 {
    logprob.max(LEAST_LOGPROB)
}

/// An entry of `logprobs.content`.
pub fn token_entry(token: &TokenLogprob, tokenizer: &Tokenizer) -> Value {
    let named = |id: u32, logprob: f32| {
        let bytes = tokenizer.token_bytes(id);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        json!({"token": text, "logprob": finite(logprob), "bytes": bytes})
    };
    let mut entry = named(token.id, token.raw_logprob);
    entry["top_logprobs"] = token.top.iter().map(|&(id, logprob)| named(id, logprob)).collect();
    entry
}

/// vLLM's `prompt_logprobs`: per token of the prompt its own entry and those of the likeliest, by id; null for the
/// first, which nothing precedes.
pub fn prompt_entries(head: &Head, prompt: &PromptLogprobs) -> Value {
    let entry = |id: u32, logprob: f32, rank: Option<usize>| {
        let text = String::from_utf8_lossy(&head.tokenizer.token_bytes(id)).into_owned();
        (id.to_string(), json!({"logprob": finite(logprob), "rank": rank, "decoded_token": text}))
    };
    let places = head.prompt_ids.iter().skip(1).zip(&prompt.logprobs).zip(&prompt.top);
    let told = places.map(|((id, logprob), top)| {
        let rank = top.iter().position(|(other, _)| other == id).map(|at| at + 1);
        let mut entries = Map::from_iter([entry(*id, *logprob, rank)]);
        let others = top.iter().enumerate().filter(|(_, (other, _))| other != id);
        entries.extend(others.map(|(at, (other, logprob))| entry(*other, *logprob, Some(at + 1))));
        Value::Object(entries)
    });
    std::iter::once(Value::Null).chain(told).collect()
}
