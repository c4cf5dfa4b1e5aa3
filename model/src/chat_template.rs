//! Messages to prompt text, byte for byte as `apply_chat_template` of `transformers` renders them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{Environment, ErrorKind, State};
use serde_json::{Map, Value as Json};

use crate::python_json::{PythonJson, python_float};
use crate::strftime::strftime_now;
use crate::text_error::{TextError, read_json_if_present, read_text, write_text};
use crate::tokenizer::NamedTokens;

/// The chat template of the embedded model: Qwen3's structure in fewer tokens.
///
/// Thinking of turns before the last user message is left out unless `preserve_thinking` is set.
pub const NANO_TEMPLATE: &str = include_str!("nano_template.jinja");

const NAME: &str = "chat_template";

/// A compiled chat template. Cheap to clone.
#[derive(Clone)]
pub struct ChatTemplate {
    inner: Arc<Inner>,
}

struct Inner {
    environment: Environment<'static>,
    source: String,
    named: NamedTokens,
}

impl ChatTemplate {
    /// Reads chat_template.jinja, else `chat_template` of tokenizer_config.json: a string, or a list of which the one
    /// named `default` is taken.
    pub fn from_dir(dir: &Path) -> Result<Self, TextError> {
        let config_path = dir.join("tokenizer_config.json");
        let config = read_json_if_present(&config_path)?.unwrap_or(Json::Null);
        let source = match read_text(&dir.join("chat_template.jinja")) {
            Ok(source) => source,
            Err(TextError::ReadFile { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                template_in_config(&config_path, &config)?
                    .ok_or_else(|| TextError::NoTemplate { path: dir.to_owned() })?
            }
            Err(error) => return Err(error),
        };
        Self::new(source, NamedTokens::from_config(&config))
    }

    /// The file of `dir` that [`Self::from_dir`] reads the template from.
    pub fn file_in(dir: &Path) -> PathBuf {
        let own = dir.join("chat_template.jinja");
        if own.exists() { own } else { dir.join("tokenizer_config.json") }
    }

    /// Compiles a template that uses no special tokens by name.
    pub fn from_source(source: &str) -> Result<Self, TextError> {
        Self::new(source.to_owned(), NamedTokens::default())
    }

    fn new(source: String, named: NamedTokens) -> Result<Self, TextError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|source| TextError::Template { source })?);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(write_as_python);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: &str| strftime_now(format));
        environment
            .add_template_owned(NAME, without_generation_tags(&source))
            .map_err(|source| TextError::Template { source })?;
        Ok(Self { inner: Arc::new(Inner { environment, source, named }) })
    }

    /// Writes chat_template.jinja.
    pub fn save(&self, dir: &Path) -> Result<(), TextError> {
        write_text(&dir.join("chat_template.jinja"), &self.inner.source)
    }

    /// What it was compiled from.
    pub(crate) fn source(&self) -> &str {
        &self.inner.source
    }

    /// Renders a prompt as text; its ids are made by [`crate::Prompt`]. `messages` are in the form that [`crate::normalize_messages`] gives; `kwargs` are further
    /// variables of the template, such as `enable_thinking`.
    pub fn render(
        &self,
        messages: &[Json],
        tools: &[Json],
        kwargs: &Map<String, Json>,
        add_generation_prompt: bool,
    ) -> Result<String, TextError> {
        let mut variables = Map::new();
        for (name, token) in self.inner.named.template_variables() {
            variables.insert(name.into(), token.into());
        }
        variables.insert("messages".into(), messages.into());
        variables.insert("tools".into(), if tools.is_empty() { Json::Null } else { tools.into() });
        variables.insert("documents".into(), Json::Null);
        variables.insert("add_generation_prompt".into(), add_generation_prompt.into());
        for (name, value) in kwargs {
            variables.insert(name.clone(), value.clone());
        }
        self.inner
            .environment
            .get_template(NAME)
            .and_then(|template| template.render(Value::from(Serde(&variables))))
            .map_err(|source| match refusal(&source) {
                Some(message) => TextError::TemplateRefused { message },
                None => TextError::Template { source },
            })
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("source_bytes", &self.inner.source.len()).finish_non_exhaustive()
    }
}

fn template_in_config(path: &Path, config: &Json) -> Result<Option<String>, TextError> {
    let invalid = |key: &str, problem: &str| TextError::Config {
        path: path.to_owned(),
        key: key.into(),
        problem: problem.into(),
    };
    match &config["chat_template"] {
        Json::Null => Ok(None),
        Json::String(source) => Ok(Some(source.clone())),
        Json::Array(named) => {
            let default = named.iter().find(|entry| entry["name"] == "default");
            let default =
                default.ok_or_else(|| invalid("chat_template", "lists no template named default"))?;
            let source = default["template"].as_str();
            Ok(Some(source.ok_or_else(|| invalid("chat_template.template", "is not a string"))?.to_owned()))
        }
        _ => Err(invalid("chat_template", "is neither a string nor a list")),
    }
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
        return Ok(out.write_str(&python_float(float))?);
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
    let json = serde_json::to_value(value)
        .map_err(|error| minijinja::Error::new(ErrorKind::InvalidOperation, error.to_string()))?;
    Ok(Value::from(python.write(&json)))
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
