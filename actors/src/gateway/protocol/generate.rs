//! vLLM's `POST /inference/v1/generate`: ids in, ids and log-probabilities out, for trainers that keep tokens as they
//! were drawn. Never trained on here.

use serde_json::{Value, json};

use super::{
    super::errors::ApiError,
    Ask, Asked, Event, Head, Piece, Protocol, Reply, Writer,
    chat::{choices, prompt_logprobs, usage},
    completions::ids_of,
    fields::{Fields, boolean, given, integer, object, wrong},
    logprobs::{prompt_entries, token_entry},
};

const MAX_LOGPROBS: i64 = 20;

/// See the file's header.
#[derive(Debug)]
pub struct Generate;

impl Protocol for Generate {
    const NAME: &'static str = "generate";
    const ID_PREFIX: &'static str = "generate-";
    type Writer = GenerateWriter;

    fn read(fields: &mut Fields) -> Result<(Ask, GenerateWriter), ApiError> {
        let Some(value) = given(fields, "token_ids") else {
            return Err(ApiError::invalid("token_ids", "Missing required parameter: 'token_ids'."));
        };
        let ids = value.as_array().ok_or_else(|| wrong("token_ids", "an array of token ids", value))?;
        let ids = ids_of(ids, "token_ids")?;
        if boolean(fields, "stream")?.unwrap_or(false) {
            return Err(ApiError::invalid("stream", "'stream' is not supported here."));
        }
        if let Some(sampling) = object(fields, "sampling_params")?.cloned() {
            fields.extend(sampling);
        }
        let logprobs = integer(fields, "logprobs", 0, MAX_LOGPROBS)?.map(|count| count as usize);
        let max_tokens = integer(fields, "max_tokens", 1, i64::MAX)?;
        let ask = Ask {
            asked: Asked::Ids(ids),
            choices: choices(fields)?,
            max_tokens: max_tokens.map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX)),
            wants_tokens: true,
            top_logprobs: logprobs.unwrap_or(0),
            prompt_logprobs: prompt_logprobs(fields)?,
            ..Ask::read(fields)?
        };
        Ok((ask, GenerateWriter { logprobs: logprobs.is_some() }))
    }
}

/// Writes what vLLM writes.
#[derive(Debug)]
pub struct GenerateWriter {
    logprobs: bool,
}

impl Writer for GenerateWriter {
    fn begin(&mut self, _: &Head) -> Vec<Event> {
        Vec::new()
    }

    fn piece(&mut self, _: &Head, _: Piece) -> Vec<Event> {
        Vec::new()
    }

    fn end(&mut self, _: &Head, _: &Reply) -> Vec<Event> {
        Vec::new()
    }

    fn close(&mut self, _: &Head, _: &[Reply]) -> Vec<Event> {
        Vec::new()
    }

    fn broken(&mut self, error: &ApiError) -> Event {
        Event::of(&error.body())
    }

    fn whole(&mut self, head: &Head, replies: Vec<Reply>) -> Value {
        let choices = replies.iter().map(|reply| {
            let entries = || -> Value {
                let entries = reply.tokens.iter().map(|token| token_entry(token, &head.tokenizer));
                json!({"content": entries.collect::<Vec<_>>()})
            };
            let length = reply.reason == openclaw_model::FinishReason::Length;
            json!({"index": reply.choice, "finish_reason": if length { "length" } else { "stop" },
                "token_ids": reply.tokens.iter().map(|token| token.id).collect::<Vec<_>>(),
                "logprobs": self.logprobs.then(entries)})
        });
        let choices: Vec<Value> = choices.collect();
        json!({"request_id": head.id.0, "choices": choices, "policy_version": head.policy_version,
            "prompt_logprobs": head.prompt_logprobs.as_ref().map(|prompt| prompt_entries(head, prompt)),
            "usage": usage(head, &replies)})
    }
}
