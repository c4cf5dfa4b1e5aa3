//! A conversation to the ids of a prompt. Its control tokens come from the template alone: a mark that a content
//! spells, `<|im_end|>` in a tool's result, is encoded as the letters that it is.
//!
//! Before the template sees it, each mark in a content gets a seam, one character that occurs nowhere else, behind its
//! first letter. Whatever the template then makes of the content, the tokenizer finds the template's marks only; the
//! seams are taken out of what lies between those. Text without marks is encoded as `apply_chat_template` does, and text
//! with some as it would be if these were no tokens; only a template that measures a content also counts its seams.
//!
//! The thinking that opens an assistant's content keeps its two marks, as it is the model's own and templates look for
//! it there; any other mark in a content is text, whoever wrote it.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::chat_template::ChatTemplate;
use crate::output_parser::{THINK, opening_thought};
use crate::python_json::PythonJson;
use crate::text_error::TextError;
use crate::tokenizer::Tokenizer;

/// Where seams are chosen from: a private-use plane, so that no text means anything by them.
const SEAMS: std::ops::RangeInclusive<char> = '\u{F0000}'..='\u{FFFFD}';

/// What a model is asked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// The template left a `<think>` open at the end, so that the response begins with reasoning.
    pub ends_in_thinking: bool,
}

impl Prompt {
    /// The prompt that asks for the assistant's next message. `messages` are in the form that
    /// [`crate::normalize_messages`] gives.
    pub fn new(
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
        messages: &[Value],
        tools: &[Value],
        kwargs: &Map<String, Value>,
    ) -> Result<Self, TextError> {
        Self::within(usize::MAX, tokenizer, template, messages, tools, kwargs)
    }

    /// The same, given up with [`TextError::TooLong`] as soon as it is clear that it has more than `most` tokens: what
    /// cannot fit costs no more than what does. A prompt that is a little longer than `most` may still be answered.
    pub fn within(
        most: usize,
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
        messages: &[Value],
        tools: &[Value],
        kwargs: &Map<String, Value>,
    ) -> Result<Self, TextError> {
        let script = PromptScript::new(tokenizer, template, messages, tools, kwargs)?;
        Self::of(&script, script.render(messages.len(), true)?, most)
    }

    /// The prompt that asks for the rest of the assistant's last message, whose content it ends with.
    pub fn continued(
        most: usize,
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
        messages: &[Value],
        tools: &[Value],
        kwargs: &Map<String, Value>,
    ) -> Result<Self, TextError> {
        let script = PromptScript::new(tokenizer, template, messages, tools, kwargs)?;
        let Some((begun, before)) = script.messages.split_last() else {
            return Self::of(&script, script.render(0, true)?, most);
        };
        let mut text = script.render(before.len(), true)?;
        text.push_str(begun["content"].as_str().unwrap_or_default());
        Self::of(&script, text, most)
    }

    /// A text that is the whole prompt, control tokens and all.
    pub fn of_text(most: usize, tokenizer: &Tokenizer, text: &str) -> Result<Self, TextError> {
        check_length(text, text.len(), most, tokenizer, |beginning| tokenizer.encode(beginning))?;
        Ok(Self { ids: tokenizer.encode(text)?, ends_in_thinking: text.trim_end().ends_with(THINK) })
    }

    fn of(script: &PromptScript<'_>, text: String, most: usize) -> Result<Self, TextError> {
        script.check_length(&text, most)?;
        Ok(Self { ids: script.encode(&text)?, ends_in_thinking: text.trim_end().ends_with(THINK) })
    }
}

/// A beginning of a text is tokenized first where the text has more bytes than this for each token that may be.
const PROBED_BYTES: usize = 8;

/// A conversation that can be rendered up to any of its messages, cut, and encoded.
#[derive(Debug)]
pub struct PromptScript<'a> {
    tokenizer: &'a Tokenizer,
    template: &'a ChatTemplate,
    messages: Cow<'a, [Value]>,
    tools: Cow<'a, [Value]>,
    kwargs: Cow<'a, Map<String, Value>>,
    /// None where no content holds a mark.
    seam: Option<char>,
}

impl<'a> PromptScript<'a> {
    /// Puts a seam into each mark of the contents: strings and keys, at any depth.
    pub fn new(
        tokenizer: &'a Tokenizer,
        template: &'a ChatTemplate,
        messages: &'a [Value],
        tools: &'a [Value],
        kwargs: &'a Map<String, Value>,
    ) -> Result<Self, TextError> {
        let mut script = Self {
            tokenizer,
            template,
            messages: messages.into(),
            tools: tools.into(),
            kwargs: Cow::Borrowed(kwargs),
            seam: None,
        };
        let mut holds_marks = false;
        let mut look = |text: &str| holds_marks |= !mark_starts(text, tokenizer.marks()).is_empty();
        messages.iter().chain(tools).chain(kwargs.values()).for_each(|value| each_text(value, &mut look));
        if holds_marks {
            let seam = script.unused_character().ok_or(TextError::NoSeam)?;
            let sew = |value: &Value| sewn(value, tokenizer.marks(), seam);
            script.messages = messages.iter().map(|message| sewn_message(message, tokenizer, seam)).collect();
            script.tools = tools.iter().map(sew).collect();
            script.kwargs =
                Cow::Owned(kwargs.iter().map(|(name, value)| (name.clone(), sew(value))).collect());
            script.seam = Some(seam);
        }
        Ok(script)
    }

    /// The text of the first so many messages, for [`Self::encode`]: seams are in it.
    pub fn render(&self, messages: usize, add_generation_prompt: bool) -> Result<String, TextError> {
        let messages = &self.messages[..messages];
        let text = self.template.render(messages, &self.tools, &self.kwargs, add_generation_prompt)?;
        Ok(match self.seam {
            // A template that writes JSON in ASCII has spelt them.
            Some(seam) => text.replace(&in_ascii(seam), seam.encode_utf8(&mut [0; 4])),
            None => text,
        })
    }

    /// The ids of a rendered text or a piece of one.
    pub fn encode(&self, rendered: &str) -> Result<Vec<u32>, TextError> {
        match self.seam {
            Some(seam) => self.tokenizer.encode_sewn(rendered, seam),
            None => self.tokenizer.encode(rendered),
        }
    }

    fn check_length(&self, rendered: &str, most: usize) -> Result<(), TextError> {
        let seams = self.seam.map_or(0, |seam| rendered.matches(seam).count() * seam.len_utf8());
        let bytes = rendered.len() - seams;
        check_length(rendered, bytes, most, self.tokenizer, |beginning| self.encode(beginning))
    }

    fn unused_character(&self) -> Option<char> {
        let mut used = HashSet::new();
        let mut look = |text: &str| used.extend(private(text).chain(escaped(text)));
        self.template.sources().for_each(&mut look);
        let values = self.messages.iter().chain(&*self.tools).chain(self.kwargs.values());
        values.for_each(|value| each_text(value, &mut look));
        let mut seams = SEAMS;
        seams.find(|seam| !used.contains(seam))
    }
}

/// Refuses a text of so many bytes that has more than `most` tokens for sure, by its bytes or by its beginning.
fn check_length(
    text: &str,
    bytes: usize,
    most: usize,
    tokenizer: &Tokenizer,
    encode: impl Fn(&str) -> Result<Vec<u32>, TextError>,
) -> Result<(), TextError> {
    let tokens = tokenizer.least_tokens(bytes);
    if tokens > most {
        return Err(TextError::TooLong { tokens, most });
    }
    let probed = most.saturating_mul(PROBED_BYTES);
    if text.len() > probed {
        let beginning = &text[..text.floor_char_boundary(probed)];
        // Where it is cut, a token or a few may be others than in the whole.
        let tokens = encode(beginning)?.len() / 2;
        if tokens > most {
            return Err(TextError::TooLong { tokens, most });
        }
    }
    Ok(())
}

fn private(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| SEAMS.contains(c))
}

/// The characters that stand in `text` as JSON's pairs of escapes.
fn escaped(text: &str) -> impl Iterator<Item = char> {
    text.match_indices("\\ud").filter_map(|(at, _)| {
        let pair = text.get(at..at + 12)?;
        let unit = |from: usize| u16::from_str_radix(pair.get(from..from + 4)?, 16).ok();
        char::decode_utf16([unit(2)?, unit(8)?]).next()?.ok()
    })
}

fn in_ascii(c: char) -> String {
    let ascii = PythonJson { ensure_ascii: true, ..PythonJson::default() };
    ascii.write(&c.to_string().into()).trim_matches('"').to_owned()
}

fn each_text(value: &Value, look: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => look(text),
        Value::Array(items) => items.iter().for_each(|item| each_text(item, look)),
        Value::Object(fields) => {
            for (key, value) in fields {
                look(key);
                each_text(value, look);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Where marks begin in `text`, and where one may begin that what follows the text would complete.
fn mark_starts(text: &str, marks: &[String]) -> Vec<usize> {
    let begins = |c: char| marks.iter().any(|mark| mark.starts_with(c));
    let places = text.char_indices().filter(|(_, c)| begins(*c));
    let marked = places.filter(|(at, _)| {
        let rest = &text[*at..];
        marks.iter().any(|mark| rest.starts_with(mark.as_str()) || mark.starts_with(rest))
    });
    marked.map(|(at, _)| at).collect()
}

fn sewn_text(text: &str, marks: &[String], seam: char, kept: &[usize]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for start in mark_starts(text, marks).into_iter().filter(|start| !kept.contains(start)) {
        let behind_first = start + text[start..].chars().next().map_or(0, char::len_utf8);
        out.push_str(&text[from..behind_first]);
        out.push(seam);
        from = behind_first;
    }
    out.push_str(&text[from..]);
    out
}

fn sewn(value: &Value, marks: &[String], seam: char) -> Value {
    match value {
        Value::String(text) => sewn_text(text, marks, seam, &[]).into(),
        Value::Array(items) => items.iter().map(|item| sewn(item, marks, seam)).collect(),
        Value::Object(fields) => {
            let sew = |(key, value): (&String, &Value)| {
                (sewn_text(key, marks, seam, &[]), sewn(value, marks, seam))
            };
            Value::Object(fields.iter().map(sew).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn sewn_message(message: &Value, tokenizer: &Tokenizer, seam: char) -> Value {
    let mut out = sewn(message, tokenizer.marks(), seam);
    let has_reasoning = message["reasoning_content"].as_str().is_some_and(|text| !text.is_empty());
    if let Some(content) = message["content"].as_str()
        && message["role"] == "assistant"
        && !has_reasoning
        && let Some(thought) = opening_thought(content)
    {
        let kept = [thought.start, thought.end];
        out["content"] = sewn_text(content, tokenizer.marks(), seam, &kept).into();
    }
    out
}
