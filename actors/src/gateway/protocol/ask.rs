//! What a client asked for, whatever format it asked in.

use std::collections::BTreeMap;

use openclaw_journal::TurnId;
use openclaw_model::{ChatTemplate, exact_json};
use serde_json::{Map, Value};

use super::{
    super::errors::ApiError,
    fields::{Fields, boolean, integer, number, object, stop, string, top_k},
    shape::Shape,
};
use crate::sessions::transcript::message_text;

/// What the client asked for; `None` where it left the choice to the server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ask {
    /// Name of the model.
    pub model: Option<String>,
    /// What is to be answered.
    pub asked: Asked,
    /// The messages go on from what the journal has.
    pub continues: Option<Continues>,
    /// The reply's beginning, which the model goes on from: where the last message was the assistant's.
    pub begun: Option<String>,
    /// Whether it goes on from that; it does unless the client says otherwise.
    pub goes_on: Option<bool>,
    /// No later request may name the answer.
    pub unstored: bool,
    /// Chat tools, as a template is shown them.
    pub tools: Vec<Value>,
    /// Whether and which tools may be called.
    pub tool_choice: ToolChoice,
    /// Answer token by token.
    pub stream: bool,
    /// So many answers.
    pub choices: usize,
    /// Sampling temperature.
    pub temperature: Option<f32>,
    /// See [`openclaw_model::SamplingParams`].
    pub top_p: Option<f32>,
    /// See [`openclaw_model::SamplingParams`].
    pub top_k: Option<usize>,
    /// See [`openclaw_model::SamplingParams`].
    pub min_p: Option<f32>,
    /// Makes the draw repeatable.
    pub seed: Option<u64>,
    /// Most tokens of the answer.
    pub max_tokens: Option<usize>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// The writer wants the drawn tokens.
    pub wants_tokens: bool,
    /// Alternatives per token.
    pub top_logprobs: usize,
    /// Log-probabilities of the prompt's tokens, with so many alternatives each.
    pub prompt_logprobs: Option<usize>,
    /// Further variables of the chat template.
    pub template_kwargs: Map<String, Value>,
    /// What form the answer must have.
    pub shape: Shape,
    /// What was sent and is not shown to the model, by kind; parts of messages are counted apart.
    pub unseen: BTreeMap<&'static str, u64>,
}

/// What messages go on from.
#[derive(Clone, Debug, PartialEq)]
pub enum Continues {
    /// A turn and its reply.
    Turn(TurnId),
    /// The last turn of a conversation of this name, if it has one, and its reply.
    Session(String),
}

/// What is to be answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// Messages in the form of chat completions. The session's turns are made of these.
    Messages(Vec<Value>),
    /// A text that is the whole prompt, control tokens and all. Never trained on: nobody can tell what it answers.
    Text(String),
    /// The same, as ids.
    Ids(Vec<u32>),
}

impl Asked {
    /// The field that says so.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Messages(_) => "messages",
            Self::Text(_) | Self::Ids(_) => "prompt",
        }
    }
}

impl Default for Asked {
    fn default() -> Self {
        Self::Messages(Vec::new())
    }
}

/// Which tools the model is shown and may call; see [`super::shape::constraint`] for what forces it to.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// Tools are neither shown to the model nor looked for in its answer.
    None,
    /// The model calls some tool.
    Required,
    /// The model calls this tool.
    Function(String),
    /// The model sees these tools alone, and calls some of them if it must.
    Allowed {
        /// Which.
        names: Vec<String>,
        /// Whether it must.
        required: bool,
    },
}

impl ToolChoice {
    /// OpenAI's words.
    pub fn of_word(path: &str, word: &str) -> Result<Self, ApiError> {
        match word {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            "required" | "any" => Ok(Self::Required),
            other => {
                let message =
                    format!("Invalid value for '{path}': '{other}' is none of none, auto, required.");
                Err(ApiError::invalid(path, message))
            }
        }
    }

    /// The choice, if the tools are there.
    pub fn among(self, tools: &[Value]) -> Result<Self, ApiError> {
        if self == Self::Required && tools.is_empty() {
            let message = "'tool_choice' is 'required', but there are no 'tools'.";
            return Err(ApiError::invalid("tool_choice", message));
        }
        let is_missing = |name: &&String| !tools.iter().any(|tool| tool_name(tool) == Some(name));
        match self.names().iter().find(is_missing) {
            Some(name) => {
                let message =
                    format!("'tool_choice' names the function '{name}', which is not among 'tools'.");
                Err(ApiError::invalid("tool_choice", message))
            }
            None => Ok(self),
        }
    }

    fn names(&self) -> &[String] {
        match self {
            Self::Function(name) => std::slice::from_ref(name),
            Self::Allowed { names, .. } => names,
            Self::Auto | Self::None | Self::Required => &[],
        }
    }
}

impl Ask {
    /// What all formats have under the same name: how tokens are drawn, and vLLM's additions.
    pub fn read(fields: &Fields) -> Result<Self, ApiError> {
        Ok(Self {
            model: string(fields, "model")?,
            stream: boolean(fields, "stream")?.unwrap_or(false),
            choices: 1,
            temperature: number(fields, "temperature", 0.0, 2.0)?,
            top_p: number(fields, "top_p", 0.0, 1.0)?,
            top_k: top_k(fields)?,
            min_p: number(fields, "min_p", 0.0, 1.0)?,
            seed: integer(fields, "seed", i64::MIN, i64::MAX)?.map(|seed| seed as u64),
            stop: stop(fields)?,
            template_kwargs: template_kwargs(fields)?,
            goes_on: goes_on(fields)?,
            shape: Shape::parse(fields)?,
            ..Self::default()
        })
    }

    /// Takes what the assistant is to go on from out of the messages.
    pub fn take_begun(&mut self, messages: &mut Vec<Value>) -> Result<(), ApiError> {
        let is_begun = |message: &Value| {
            let calls = message["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty());
            message["role"] == "assistant" && !calls && !message_text(message).trim().is_empty()
        };
        match (self.goes_on, messages.last().is_some_and(is_begun)) {
            (Some(false), _) | (None, false) => {}
            (Some(true), false) => {
                let message =
                    "'continue_final_message' needs a last message of the assistant's, with a text.";
                return Err(ApiError::invalid("continue_final_message", message));
            }
            (Some(true) | None, true) => {
                self.begun = messages.pop().map(|begun| message_text(&begun).trim_end().to_owned());
            }
        }
        Ok(())
    }

    /// The tools that the model is shown.
    pub fn shown_tools(&self) -> Vec<Value> {
        match &self.tool_choice {
            ToolChoice::None => Vec::new(),
            ToolChoice::Auto | ToolChoice::Required => self.tools.clone(),
            choice @ (ToolChoice::Function(_) | ToolChoice::Allowed { .. }) => {
                let is_named =
                    |tool: &&Value| choice.names().iter().any(|name| tool_name(tool) == Some(name));
                self.tools.iter().filter(is_named).cloned().collect()
            }
        }
    }
}

/// The name of a chat tool.
pub fn tool_name(tool: &Value) -> Option<&str> {
    let name = tool.get("function")?.get("name")?;
    name.as_str().filter(|_| exact_json::literal(name).is_none())
}

/// Variables of the template. What the server sets itself a request may not: it is said elsewhere in the request, or
/// nowhere.
fn template_kwargs(fields: &Fields) -> Result<Map<String, Value>, ApiError> {
    let field = "chat_template_kwargs";
    let kwargs = object(fields, field)?.cloned().unwrap_or_default();
    match kwargs.keys().find(|name| ChatTemplate::owns(name)) {
        Some(name) => {
            let param = format!("{field}.{name}");
            let message = format!("'{param}' cannot be set: the server sets '{name}' of the chat template.");
            Err(ApiError::invalid(&param, message))
        }
        None => Ok(kwargs),
    }
}

/// vLLM's `continue_final_message`, or the contrary of `add_generation_prompt`.
fn goes_on(fields: &Fields) -> Result<Option<bool>, ApiError> {
    let goes_on = boolean(fields, "continue_final_message")?;
    let begins = boolean(fields, "add_generation_prompt")?;
    if (goes_on, begins) == (Some(true), Some(true)) {
        let message = "'continue_final_message' and 'add_generation_prompt' cannot both be true.";
        return Err(ApiError::invalid("continue_final_message", message));
    }
    Ok(goes_on.or(begins.filter(|begins| *begins).map(|_| false)))
}
