//! What can go wrong between text and token ids. Every variant names the file or the field.

use std::path::{Path, PathBuf};

/// An error of the tokenizer, the chat template or the files they are read from.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file could not be read.
    #[error("cannot read {path}")]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {path}")]
    WriteFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not JSON.
    #[error("{path} is not valid JSON")]
    ParseJson {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A key of a JSON file has a value that cannot be used.
    #[error("{path}: {key} {problem}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The key, dotted.
        key: String,
        /// What is wrong with it, both values named.
        problem: String,
    },
    /// tokenizer.json does not describe a tokenizer.
    #[error("cannot load the tokenizer {path}")]
    LoadTokenizer {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tokenizer gave up on a text.
    #[error("cannot tokenize a text of {bytes} bytes")]
    Encode {
        /// Length of the text.
        bytes: usize,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Contents with marks hold every character that could set these apart.
    #[error("the messages hold every private-use character from U+F0000 to U+FFFFD")]
    NoSeam,
    /// A prompt is longer than it may be, seen before it was tokenized as a whole.
    #[error("the prompt has {tokens} tokens or more, {most} are possible")]
    TooLong {
        /// Fewer than it has.
        tokens: usize,
        /// The most that it may have.
        most: usize,
    },
    /// No tokenizer came out of training.
    #[error("cannot train a tokenizer")]
    TrainTokenizer {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A tokenizer of fewer tokens than its bytes and special tokens need was asked for.
    #[error("vocab_size is {vocab_size}, but 256 bytes and {special_tokens} special tokens need {needed}")]
    VocabularyTooSmall {
        /// What was asked for.
        vocab_size: usize,
        /// How many special tokens.
        special_tokens: usize,
        /// The least that works.
        needed: usize,
    },
    /// The chat template of a file does not compile.
    #[error("the chat template in {path} is unusable")]
    CompileTemplate {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        #[source]
        source: minijinja::Error,
    },
    /// The chat template failed on these messages.
    #[error("the chat template fails")]
    Template {
        /// Line and reason.
        #[source]
        source: minijinja::Error,
    },
    /// The chat template itself refuses these messages (`raise_exception`).
    #[error("the chat template refuses the conversation: {message}")]
    TemplateRefused {
        /// The template's words.
        message: String,
    },
    /// A checkpoint folder has no chat template.
    #[error("{path} has neither chat_template.jinja nor a chat_template in tokenizer_config.json")]
    NoTemplate {
        /// The folder.
        path: PathBuf,
    },
    /// A message of a conversation is malformed.
    #[error("{field} {problem}")]
    Message {
        /// Where, like `messages[3].content`.
        field: String,
        /// What is wrong.
        problem: String,
    },
}

pub(crate) fn read_text(path: &Path) -> Result<String, TextError> {
    std::fs::read_to_string(path).map_err(|source| TextError::ReadFile { path: path.to_owned(), source })
}

pub(crate) fn write_text(path: &Path, text: &str) -> Result<(), TextError> {
    std::fs::write(path, text).map_err(|source| TextError::WriteFile { path: path.to_owned(), source })
}

pub(crate) fn read_json(path: &Path) -> Result<serde_json::Value, TextError> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|source| TextError::ParseJson { path: path.to_owned(), source })
}

/// Like [`read_json`]; `None` if there is no such file.
pub(crate) fn read_json_if_present(path: &Path) -> Result<Option<serde_json::Value>, TextError> {
    match read_json(path) {
        Ok(json) => Ok(Some(json)),
        Err(TextError::ReadFile { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
