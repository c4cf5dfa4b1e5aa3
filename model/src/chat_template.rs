//! Messages to prompt text, byte for byte as `apply_chat_template` of `transformers` renders them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, ErrorKind, State};
use serde_json::{Map, Value as Json, json};

use crate::python_json::{PythonJson, python_float};
use crate::strftime::strftime_now;
use crate::template_value::{json_of, template_object};
use crate::text_error::{TextError, read_json_if_present, read_text, write_text};
use crate::tokenizer::NamedTokens;

/// The chat template of the embedded model: Qwen3's structure in fewer tokens.
///
/// Thinking of turns before the last user message is left out unless `preserve_thinking` is set.
pub const NANO_TEMPLATE: &str = include_str!("nano_template.jinja");

const DEFAULT: &str = "default";
/// The template that a conversation with tools is rendered with, where there is one.
const TOOL_USE: &str = "tool_use";
/// Where a checkpoint folder keeps the templates that are not the default.
pub(crate) const FURTHER_TEMPLATES: &str = "additional_chat_templates";
/// Variables and functions of a template that no request may replace: the conversation, what the server asks of it, and
/// the tokens that the tokenizer names.
const OWNED: [&str; 14] = [
    "messages",
    "tools",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template",
    "conversation",
    "tokenize",
    "return_dict",
    "bos_token",
    "eos_token",
    "pad_token",
    "unk_token",
    "raise_exception",
    "strftime_now",
];

/// The chat templates of a model: the default one, and one for conversations with tools where it has one by the name
/// `tool_use`. Cheap to clone.
#[derive(Clone)]
pub struct ChatTemplate {
    inner: Arc<Inner>,
}

struct Inner {
    environment: Environment<'static>,
    sources: Sources,
    named: NamedTokens,
    /// It writes messages as they are, with whatever fields they have.
    shows_all: bool,
}

/// Fields of messages that are kept whatever a template says: other parts of a run read them, too.
const KNOWN_FIELDS: [&str; 6] =
    ["role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content"];

/// The text of each template, and the file that it is from.
struct Sources {
    default: (String, PathBuf),
    tool_use: Option<(String, PathBuf)>,
}

impl Sources {
    /// As `transformers`: files count over tokenizer_config.json, all of them over all of it.
    fn in_dir(dir: &Path, config: &Json) -> Result<Self, TextError> {
        let file = |name: PathBuf| match read_text(&name) {
            Ok(source) => Ok(Some((source, name))),
            Err(TextError::ReadFile { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        };
        let default = file(dir.join("chat_template.jinja"))?;
        let tool_use = file(dir.join(FURTHER_TEMPLATES).join("tool_use.jinja"))?;
        let path = dir.join("tokenizer_config.json");
        match (default, tool_use) {
            (Some(default), tool_use) => Ok(Self { default, tool_use }),
            (None, Some((_, path))) => Err(TextError::Config {
                path,
                key: format!("`{TOOL_USE}`"),
                problem: "is there without chat_template.jinja".into(),
            }),
            (None, None) => {
                Self::in_config(&path, config)?.ok_or_else(|| TextError::NoTemplate { path: dir.to_owned() })
            }
        }
    }

    /// `chat_template` of tokenizer_config.json: a string, or templates with names, as a list or an object.
    fn in_config(path: &Path, config: &Json) -> Result<Option<Self>, TextError> {
        let invalid = |key: &str, problem: &str| TextError::Config {
            path: path.to_owned(),
            key: key.into(),
            problem: problem.into(),
        };
        let listed = match &config["chat_template"] {
            Json::Null => return Ok(None),
            Json::String(source) => {
                return Ok(Some(Self { default: (source.clone(), path.to_owned()), tool_use: None }));
            }
            listed @ (Json::Array(_) | Json::Object(_)) => listed,
            _ => return Err(invalid("chat_template", "is neither a string nor a list")),
        };
        let find = |name: &str| match listed.as_array() {
            // As `transformers`: of two with one name the last.
            Some(list) => list.iter().rfind(|entry| entry["name"] == name).map(|entry| &entry["template"]),
            None => listed.get(name),
        };
        let named = |name: &str| match find(name).map(Json::as_str) {
            None => Ok(None),
            Some(Some(source)) => Ok(Some((source.to_owned(), path.to_owned()))),
            Some(None) => Err(invalid("chat_template.template", "is not a string")),
        };
        let default =
            named(DEFAULT)?.ok_or_else(|| invalid("chat_template", "lists no template named default"))?;
        Ok(Some(Self { default, tool_use: named(TOOL_USE)? }))
    }
}

impl ChatTemplate {
    /// Reads chat_template.jinja and additional_chat_templates/tool_use.jinja, else `chat_template` of
    /// tokenizer_config.json: a string, or a list with the names `default` and `tool_use`.
    pub fn from_dir(dir: &Path) -> Result<Self, TextError> {
        let config = read_json_if_present(&dir.join("tokenizer_config.json"))?.unwrap_or(Json::Null);
        Self::new(Sources::in_dir(dir, &config)?, NamedTokens::from_config(&config))
    }

    /// Whether a request may not set the variable `name` of a template.
    pub fn owns(name: &str) -> bool {
        OWNED.contains(&name)
    }

    /// The file that holds the template of a conversation with or without tools.
    pub fn file(&self, has_tools: bool) -> &Path {
        let Sources { default, tool_use } = &self.inner.sources;
        &tool_use.as_ref().filter(|_| has_tools).unwrap_or(default).1
    }

    /// Whether a conversation with tools has a template of its own.
    pub fn has_tool_use(&self) -> bool {
        self.inner.sources.tool_use.is_some()
    }

    /// Compiles a template that uses no special tokens by name.
    pub fn from_source(source: &str) -> Result<Self, TextError> {
        Self::with_tokens(source, NamedTokens::default())
    }

    /// Compiles a template that may use these tokens by name.
    pub fn with_tokens(source: &str, named: NamedTokens) -> Result<Self, TextError> {
        let default = (source.to_owned(), PathBuf::from("chat_template.jinja"));
        Self::new(Sources { default, tool_use: None }, named)
    }

    fn new(sources: Sources, named: NamedTokens) -> Result<Self, TextError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|source| TextError::Template { source })?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(write_as_python);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: &str| strftime_now(format));
        let named_sources = [(DEFAULT, Some(&sources.default)), (TOOL_USE, sources.tool_use.as_ref())];
        for (name, source) in named_sources {
            let Some((source, path)) = source else { continue };
            environment
                .add_template_owned(name, without_generation_tags(source))
                .map_err(|source| TextError::CompileTemplate { path: path.clone(), source })?;
        }
        let inner = Inner { environment, sources, named, shows_all: false };
        let mut template = Self { inner: Arc::new(inner) };
        if template.writes_whole_messages() {
            Arc::get_mut(&mut template.inner).expect("it is not shared yet").shows_all = true;
        }
        Ok(template)
    }

    /// Takes out of messages and variables what no template of the model can show: fields that the texts of the templates
    /// do not name. What a client adds for itself is neither read nor kept.
    pub fn keep_shown(&self, messages: &mut [Json], kwargs: &mut Map<String, Json>) {
        let is_named = |name: &str| self.sources().any(|source| names(source, name));
        kwargs.retain(|name, _| is_named(name));
        if !self.inner.shows_all {
            for fields in messages.iter_mut().filter_map(Json::as_object_mut) {
                fields.retain(|name, _| KNOWN_FIELDS.contains(&name.as_str()) || is_named(name));
            }
        }
    }

    /// Tried on conversations whose messages have a field that nobody names.
    fn writes_whole_messages(&self) -> bool {
        const FIELD: &str = "field_that_nobody_names";
        let said = |role: &str| json!({"role": role, "content": "hi", FIELD: FIELD});
        let tool =
            json!({"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}});
        [&["user"][..], &["system", "user"], &["user", "assistant", "user"], &["user", "assistant", "tool"]]
            .iter()
            .any(|roles| {
                let messages: Vec<Json> = roles.iter().copied().map(said).collect();
                [&[][..], std::slice::from_ref(&tool)].iter().any(|tools| {
                    let rendered = self.render(&messages, tools, &Map::new(), true);
                    rendered.is_ok_and(|text| text.contains(FIELD))
                })
            })
    }

    /// Writes chat_template.jinja, and additional_chat_templates/tool_use.jinja where there is one.
    pub fn save(&self, dir: &Path) -> Result<(), TextError> {
        let Sources { default, tool_use } = &self.inner.sources;
        write_text(&dir.join("chat_template.jinja"), &default.0)?;
        let Some((source, _)) = tool_use else { return Ok(()) };
        let further = dir.join(FURTHER_TEMPLATES);
        std::fs::create_dir_all(&further)
            .map_err(|source| TextError::WriteFile { path: further.clone(), source })?;
        write_text(&further.join("tool_use.jinja"), source)
    }

    /// What they were compiled from.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &str> {
        let Sources { default, tool_use } = &self.inner.sources;
        std::iter::once(default).chain(tool_use).map(|(source, _)| source.as_str())
    }

    /// Renders a prompt as text; its ids are made by [`crate::Prompt`]. `messages` are in the form that
    /// [`crate::normalize_messages`] gives; `kwargs` are further variables of the template, such as `enable_thinking`.
    /// What the server owns ([`Self::owns`]) they do not replace.
    pub fn render(
        &self,
        messages: &[Json],
        tools: &[Json],
        kwargs: &Map<String, Json>,
        add_generation_prompt: bool,
    ) -> Result<String, TextError> {
        let mut variables = Map::new();
        variables.insert("documents".into(), Json::Null);
        let free = kwargs.iter().filter(|(name, _)| !Self::owns(name));
        variables.extend(free.map(|(name, value)| (name.clone(), value.clone())));
        for (name, token) in self.inner.named.template_variables() {
            variables.insert(name.into(), token.into());
        }
        variables.insert("messages".into(), messages.into());
        variables.insert("tools".into(), if tools.is_empty() { Json::Null } else { tools.into() });
        variables.insert("add_generation_prompt".into(), add_generation_prompt.into());
        let name = if self.has_tool_use() && !tools.is_empty() { TOOL_USE } else { DEFAULT };
        self.inner
            .environment
            .get_template(name)
            .and_then(|template| template.render(template_object(&variables)))
            .map_err(|source| match refusal(&source) {
                Some(message) => TextError::TemplateRefused { message },
                None => TextError::Template { source },
            })
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.sources().map(str::len).sum();
        f.debug_struct("ChatTemplate").field("source_bytes", &bytes).finish_non_exhaustive()
    }
}

/// Whether a template's text holds `name` as a word of its own.
fn names(source: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    !name.is_empty()
        && source.match_indices(name).any(|(at, _)| {
            !source[..at].ends_with(is_word) && !source[at + name.len()..].starts_with(is_word)
        })
}

/// `{% generation %}` marks trained text for `transformers` and renders what is inside it.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(len) = rest[start..].find("%}") else { break };
        let tag = &rest[start..start + len + 2];
        let name = tag[2..tag.len() - 2].trim_matches(['-', '+']).trim();
        out.push_str(&rest[..start]);
        match name {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = &rest[start + len + 2..];
    }
    out + rest
}

fn write_as_python(
    out: &mut minijinja::Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), minijinja::Error> {
    if value.kind() == ValueKind::Number && !value.is_integer() {
        let float = f64::try_from(value.clone())?;
        // `str`, and not `json.dumps`.
        return Ok(out.write_str(&python_float(float).replace("Infinity", "inf"))?);
    }
    minijinja::escape_formatter(out, state, value)
}

fn tojson(value: &Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let default = PythonJson::default();
    let [item_separator, key_separator] = match separators {
        Some(pair) => <[String; 2]>::try_from(pair)
            .map_err(|_| minijinja::Error::new(ErrorKind::InvalidOperation, "separators is not a pair"))?,
        // As json.dumps: no space at the end of a line.
        None if indent.is_some() => [",".into(), default.key_separator],
        None => [default.item_separator, default.key_separator],
    };
    let python = PythonJson {
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent,
        item_separator,
        key_separator,
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    Ok(Value::from(python.write(&json_of(value)?)))
}

/// The template's own refusal, as against a failure of the template.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Refusal(message)))
}

fn refusal(error: &minijinja::Error) -> Option<String> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(Refusal(message)) = cause.downcast_ref() {
            return Some(message.clone());
        }
        source = cause.source();
    }
    None
}
