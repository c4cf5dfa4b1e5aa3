//! What the model is shown: messages through the chat template, or ids and text as they are.

use std::{collections::BTreeMap, sync::Arc};

use openclaw_model::{ParserConfig, TextError, normalize_messages, unseen_parts};
use serde_json::{Map, Value, json};
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

impl Prompt {
    fn of(
        ids: Vec<u32>,
        parser: ParserConfig,
        messages: Vec<Value>,
        tools: Vec<Value>,
        kwargs: Map<String, Value>,
        unseen: BTreeMap<&'static str, u64>,
    ) -> Self {
        let (messages, tools, kwargs) = (messages.into(), tools.into(), kwargs.into());
        Self { ids, messages, tools, kwargs, parser, unseen }
    }
}

/// Refuses what people and tools say when it cannot fit, before anything is made of it, and ids of no token. What an
/// assistant said may be left out by the template.
pub fn check(shared: &Shared, asked: &Asked) -> Result<(), ApiError> {
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
        Asked::Ids(ids) => {
            let limit = shared.tokenizer.id_limit();
            if let Some(id) = ids.iter().find(|id| **id as usize >= limit) {
                let field = asked.field();
                let message = format!("'{field}' holds {id}, which is no token: ids are below {limit}.");
                return Err(ApiError::invalid(field, message));
            }
            ids.len()
        }
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
    let (tools, kwargs, begun) = (ask.shown_tools(), ask.template_kwargs.clone(), ask.begun.clone());
    let (most, shared) = (shared.context_length, shared.clone());
    // A long prompt takes its time, and the async threads have streams to serve.
    let rendered = tokio::task::spawn_blocking(move || {
        let _held = (turn, room);
        let prompt = match asked {
            Asked::Messages(_) => of_messages(&shared, shown, tools, kwargs, begun, most),
            Asked::Text(text) => openclaw_model::Prompt::of_text(most, &shared.tokenizer, &text)
                .map(|prompt| of_ids(prompt.ids, shown)),
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
    begun: Option<String>,
    most: usize,
) -> Result<Prompt, TextError> {
    let unseen = unseen_parts(&raw);
    let mut messages = normalize_messages(&raw)?;
    drop(raw);
    let (tokenizer, template) = (&shared.tokenizer, &shared.template);
    template.keep_shown(&mut messages, &mut kwargs);
    let Some(begun) = begun else {
        let prompt = openclaw_model::Prompt::within(most, tokenizer, template, &messages, &tools, &kwargs)?;
        let parser = ParserConfig::new(&tools, prompt.ends_in_thinking);
        return Ok(Prompt::of(prompt.ids, parser, messages, tools, kwargs, unseen));
    };
    messages.push(json!({"role": "assistant", "content": begun}));
    let prompt = openclaw_model::Prompt::continued(most, tokenizer, template, &messages, &tools, &kwargs)?;
    messages.pop();
    // Its thinking, if it has any, lies behind it.
    let parser = ParserConfig { thinking: false, ..ParserConfig::new(&tools, prompt.ends_in_thinking) };
    Ok(Prompt::of(prompt.ids, parser, messages, tools, kwargs, unseen))
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
