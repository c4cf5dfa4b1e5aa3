//! OpenAI's completions: a text or ids that are the whole prompt. Never trained on, as nobody can tell what of it is
//! whose.

use openclaw_model::{FinishReason, OutputDelta, TokenLogprob};
use serde_json::{Map, Value, json};

use super::{
    super::errors::ApiError,
    Ask, Asked, Event, Head, Piece, Protocol, Reply, Writer,
    chat::{choices, envelope, include_usage, prompt_logprobs, usage},
    fields::{Fields, boolean, given, integer, wrong},
    logprobs::{finite, prompt_entries},
};

/// OpenAI's.
const DEFAULT_MAX_TOKENS: i64 = 16;
const MAX_LOGPROBS: i64 = 20;

/// `POST /v1/completions`.
#[derive(Debug)]
pub struct Completions;

impl Protocol for Completions {
    const NAME: &'static str = "completions";
    const ID_PREFIX: &'static str = "cmpl-";
    type Writer = CompletionsWriter;

    fn read(fields: &mut Fields) -> Result<(Ask, CompletionsWriter), ApiError> {
        if given(fields, "suffix").is_some() {
            return Err(ApiError::invalid("suffix", "'suffix' is not supported."));
        }
        let logprobs = integer(fields, "logprobs", 0, MAX_LOGPROBS)?.map(|count| count as usize);
        let token_ids = boolean(fields, "return_token_ids")?.unwrap_or(false);
        let echo = boolean(fields, "echo")?.unwrap_or(false);
        let prompt_logprobs = prompt_logprobs(fields)?;
        let max_tokens = integer(fields, "max_tokens", 0, i64::MAX)?.unwrap_or(DEFAULT_MAX_TOKENS);
        let ask = Ask {
            asked: prompt(fields)?,
            choices: choices(fields)?,
            max_tokens: Some(max_tokens as usize),
            wants_tokens: logprobs.is_some() || token_ids,
            top_logprobs: logprobs.unwrap_or(0),
            prompt_logprobs: prompt_logprobs.or(logprobs.filter(|_| echo)),
            ..Ask::read(fields)?
        };
        if max_tokens == 0 && !echo {
            return Err(ApiError::invalid("max_tokens", "'max_tokens' is 0: there is nothing to say."));
        }
        for (name, set) in [("echo", echo), ("prompt_logprobs", ask.prompt_logprobs.is_some())] {
            if ask.stream && set {
                return Err(ApiError::invalid(name, format!("'{name}' cannot be streamed.")));
            }
        }
        let writer = CompletionsWriter {
            include_usage: include_usage(fields)?,
            logprobs,
            token_ids,
            echo,
            told_prompt: prompt_logprobs.is_some(),
            offsets: vec![0; ask.choices],
        };
        Ok((ask, writer))
    }
}

/// A text, ids, or a list of one of these.
fn prompt(fields: &mut Fields) -> Result<Asked, ApiError> {
    let missing = || ApiError::invalid("prompt", "Missing required parameter: 'prompt'.");
    match fields.remove("prompt").filter(|prompt| !prompt.is_null()).ok_or_else(missing)? {
        Value::String(text) => Ok(Asked::Text(text)),
        Value::Array(mut items) => match items.first() {
            None => Err(ApiError::invalid("prompt", "'prompt' is empty.")),
            Some(Value::Number(_)) => ids_of(&items, "prompt").map(Asked::Ids),
            Some(_) if items.len() > 1 => {
                Err(ApiError::invalid("prompt", "Only one prompt is supported: send several requests."))
            }
            Some(_) => match items.remove(0) {
                Value::String(text) => Ok(Asked::Text(text)),
                Value::Array(ids) => ids_of(&ids, "prompt[0]").map(Asked::Ids),
                other => Err(wrong("prompt[0]", "a string or an array of token ids", &other)),
            },
        },
        other => Err(wrong("prompt", "a string or an array", &other)),
    }
}

/// Token ids.
pub fn ids_of(items: &[Value], path: &str) -> Result<Vec<u32>, ApiError> {
    let id = |(i, item): (usize, &Value)| {
        let id = item.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| wrong(&format!("{path}[{i}]"), "a token id", item))
    };
    items.iter().enumerate().map(id).collect()
}

/// A completion as OpenAI writes it.
#[derive(Debug)]
pub struct CompletionsWriter {
    include_usage: bool,
    /// So many alternatives, if log-probabilities are wanted.
    logprobs: Option<usize>,
    token_ids: bool,
    echo: bool,
    /// vLLM's `prompt_logprobs` are wanted.
    told_prompt: bool,
    /// Characters told of each answer.
    offsets: Vec<usize>,
}

impl CompletionsWriter {
    fn choice(&self, head: &Head, index: usize, text: &str, tokens: &[TokenLogprob]) -> Map<String, Value> {
        let mut choice = Map::new();
        choice.insert("index".into(), index.into());
        choice.insert("text".into(), text.into());
        let offset = self.offsets[index];
        let told = self.logprobs.map(|count| Listed::of(head, self.echo, tokens, count, offset).json(count));
        choice.insert("logprobs".into(), told.unwrap_or_default());
        if self.token_ids {
            choice.insert("token_ids".into(), tokens.iter().map(|token| token.id).collect());
        }
        choice
    }

    fn chunk(&self, head: &Head, choices: Value, usage: Value) -> Event {
        let mut chunk = envelope(head, "text_completion");
        chunk.insert("choices".into(), choices);
        if self.include_usage {
            chunk.insert("usage".into(), usage);
        }
        Event::of(&Value::Object(chunk))
    }
}

impl Writer for CompletionsWriter {
    fn begin(&mut self, _: &Head) -> Vec<Event> {
        Vec::new()
    }

    fn piece(&mut self, head: &Head, piece: Piece) -> Vec<Event> {
        // There are no calls and no thinking in a text.
        let (OutputDelta::Content(text) | OutputDelta::Reasoning(text)) = piece.delta else {
            return Vec::new();
        };
        let mut choice = self.choice(head, piece.choice, &text, &piece.tokens);
        choice.insert("finish_reason".into(), Value::Null);
        self.offsets[piece.choice] += text.chars().count();
        vec![self.chunk(head, json!([choice]), Value::Null)]
    }

    fn end(&mut self, head: &Head, reply: &Reply) -> Vec<Event> {
        let mut choice = self.choice(head, reply.choice, "", &reply.tokens);
        choice.insert("finish_reason".into(), finish_reason(reply).into());
        vec![self.chunk(head, json!([choice]), Value::Null)]
    }

    fn close(&mut self, head: &Head, replies: &[Reply]) -> Vec<Event> {
        let usage = self.include_usage.then(|| self.chunk(head, json!([]), usage(head, replies)));
        usage.into_iter().chain([Event::done()]).collect()
    }

    fn broken(&mut self, error: &ApiError) -> Event {
        Event::of(&error.body())
    }

    fn whole(&mut self, head: &Head, replies: Vec<Reply>) -> Value {
        let mut body = envelope(head, "text_completion");
        let prompt = if self.echo { head.tokenizer.decode(&head.prompt_ids, false) } else { String::new() };
        let choices = replies.iter().map(|reply| {
            let text = format!("{prompt}{}", reply.text);
            let mut choice = self.choice(head, reply.choice, &text, &reply.tokens);
            choice.insert("finish_reason".into(), finish_reason(reply).into());
            if self.token_ids {
                choice.insert("prompt_token_ids".into(), head.prompt_ids.as_slice().into());
            }
            if let Some(prompt) = head.prompt_logprobs.as_ref().filter(|_| self.told_prompt) {
                choice.insert("prompt_logprobs".into(), prompt_entries(head, prompt));
            }
            Value::Object(choice)
        });
        body.insert("choices".into(), choices.collect());
        body.insert("usage".into(), usage(head, &replies));
        Value::Object(body)
    }
}

fn finish_reason(reply: &Reply) -> &'static str {
    if reply.reason == FinishReason::Length { "length" } else { "stop" }
}

/// Tokens and their log-probabilities in four lists.
#[derive(Default)]
struct Listed {
    tokens: Vec<String>,
    logprobs: Vec<Option<f32>>,
    top: Vec<Value>,
    offsets: Vec<usize>,
    /// Characters listed.
    end: usize,
}

impl Listed {
    fn of(head: &Head, echo: bool, tokens: &[TokenLogprob], count: usize, offset: usize) -> Self {
        let mut listed = Self { end: offset, ..Self::default() };
        let spell = |id: u32| String::from_utf8_lossy(&head.tokenizer.token_bytes(id)).into_owned();
        if let Some(prompt) = head.prompt_logprobs.as_ref().filter(|_| echo) {
            let told = prompt.logprobs.iter().map(|logprob| Some(*logprob));
            let top = prompt.top.iter().map(Vec::as_slice);
            let places = std::iter::once((None, &[][..])).chain(told.zip(top));
            for (id, (logprob, top)) in head.prompt_ids.iter().zip(places) {
                listed.push(spell(*id), logprob, top, count, spell);
            }
        }
        for token in tokens {
            listed.push(spell(token.id), Some(token.raw_logprob), &token.top, count, spell);
        }
        listed
    }

    fn push(
        &mut self,
        token: String,
        logprob: Option<f32>,
        top: &[(u32, f32)],
        count: usize,
        spell: impl Fn(u32) -> String,
    ) {
        self.offsets.push(self.end);
        self.end += token.chars().count();
        self.tokens.push(token);
        self.logprobs.push(logprob.map(finite));
        let top = top.iter().take(count).map(|&(id, logprob)| (spell(id), finite(logprob).into()));
        self.top.push(if logprob.is_some() { Value::Object(top.collect()) } else { Value::Null });
    }

    fn json(self, count: usize) -> Value {
        let top = if count > 0 { Value::Array(self.top) } else { Value::Null };
        json!({"tokens": self.tokens, "token_logprobs": self.logprobs, "top_logprobs": top,
            "text_offset": self.offsets})
    }
}
