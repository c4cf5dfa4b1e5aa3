//! What the model is shown: messages through the chat template, or ids and text as they are.

use std::{collections::BTreeMap, sync::Arc};

use openclaw_model::{ParserConfig, TextError, normalize_messages, unseen_parts};
use serde_json::{Map, Value};
use tracing::warn;

use super::{
    Shared,
    admission::{Admitted, BodyRoom},
    errors::ApiError,
    protocol::{Ask, Asked},
};

/// A rendered request.
pub struct Prompt {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Normalised, and what the template shows of them; of a raw prompt its text as a user's message.
    pub messages: Arc<Vec<Value>>,
    /// The tools that the model is shown.
    pub tools: Arc<Vec<Value>>,
    /// Variables of the template.
    pub kwargs: Arc<Map<String, Value>>,
    /// What to look for in the reply.
    pub parser: ParserConfig,
    /// Parts of the messages that the model is shown a placeholder for, by kind.
    pub unseen: BTreeMap<&'static str, u64>,
}

/// Refuses what people and tools say when it cannot fit, before anything is made of it. What an assistant said may be
/// left out by the template.
pub fn check_length(shared: &Shared, asked: &Asked) -> Result<(), ApiError> {
    let least = match asked {
        Asked::Messages(messages) => {
            let said = messages.iter().filter(|message| message["role"] != "assistant");
            let bytes = said.map(|message| match &message["content"] {
                Value::String(text) => text.len(),
                Value::Array(parts) => {
                    parts.iter().filter_map(|part| part["text"].as_str()).map(str::len).sum()
                }
                _ => 0,
            });
            shared.tokenizer.least_tokens(bytes.sum())
        }
        Asked::Text(text) => shared.tokenizer.least_tokens(text.len()),
        Asked::Ids(ids) => ids.len(),
    };
    if least >= shared.context_length {
        return Err(ApiError::context_length_at_least(least, shared.context_length));
    }
    Ok(())
}

/// The place is held until the work ends, even when the client hangs up meanwhile. `shown` are the messages that the
/// session was told of: those asked with, or what stands for a raw prompt.
pub async fn render(
    shared: &Arc<Shared>,
    asked: Asked,
    shown: Arc<Vec<Value>>,
    ask: &Ask,
    place: Admitted,
    room: BodyRoom,
) -> Result<(Prompt, Admitted), ApiError> {
    let turn = shared.admission.turn().await;
    let field = asked.field();
    let (tools, kwargs) = (ask.shown_tools(), ask.template_kwargs.clone());
    let (most, shared) = (shared.context_length, shared.clone());
    // A long prompt takes its time, and the async threads have streams to serve.
    let rendered = tokio::task::spawn_blocking(move || {
        let _held = (turn, room);
        let prompt = match asked {
            Asked::Messages(_) => of_messages(&shared, shown, tools, kwargs, most),
            Asked::Text(text) => shared.tokenizer.encode(&text).map(|ids| of_ids(ids, shown)),
            Asked::Ids(ids) => Ok(of_ids(ids, shown)),
        };
        (prompt, place)
    });
    match rendered.await {
        Ok((Ok(prompt), _)) if prompt.ids.is_empty() => {
            Err(ApiError::invalid(field, format!("'{field}' makes an empty prompt.")))
        }
        Ok((Ok(prompt), place)) => Ok((prompt, place)),
        Ok((Err(TextError::TooLong { tokens, most }), _)) => {
            Err(ApiError::context_length_at_least(tokens, most))
        }
        Ok((Err(error), _)) => {
            Err(ApiError::invalid(field, format!("The {field} cannot be rendered: {error}.")))
        }
        Err(error) => {
            warn!(%error, "rendering a prompt failed");
            Err(ApiError::internal("The prompt could not be rendered."))
        }
    }
}

fn of_messages(
    shared: &Shared,
    raw: Arc<Vec<Value>>,
    tools: Vec<Value>,
    mut kwargs: Map<String, Value>,
    most: usize,
) -> Result<Prompt, TextError> {
    let unseen = unseen_parts(&raw);
    let mut messages = normalize_messages(&raw)?;
    drop(raw);
    let (tokenizer, template) = (&shared.tokenizer, &shared.template);
    template.keep_shown(&mut messages, &mut kwargs);
    let prompt = openclaw_model::Prompt::within(most, tokenizer, template, &messages, &tools, &kwargs)?;
    let parser = ParserConfig::new(&tools, prompt.ends_in_thinking);
    let (messages, tools, kwargs) = (messages.into(), tools.into(), kwargs.into());
    Ok(Prompt { ids: prompt.ids, messages, tools, kwargs, parser, unseen })
}

fn of_ids(ids: Vec<u32>, shown: Arc<Vec<Value>>) -> Prompt {
    Prompt {
        ids,
        messages: shown,
        tools: Arc::default(),
        kwargs: Arc::default(),
        parser: ParserConfig::default(),
        unseen: BTreeMap::new(),
    }
}
