//! Splits a response, as it streams, into reasoning, content and tool calls. Thinking opens a response or does not
//! happen, and a call names a tool that was offered; all else that is spelt like a marker is content, to the letter.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use rand::RngExt as _;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::reply_split::ReplySplit;
use crate::stop_strings::partial_match_len;

pub(crate) const THINK: &str = "<think>";
pub(crate) const THINK_END: &str = "</think>";
pub(crate) const TOOL_CALL: &str = "<tool_call>";
pub(crate) const TOOL_CALL_END: &str = "</tool_call>";

/// The thinking that opens a complete text, from its `<think>` to its first `</think>`, the latter exclusive.
pub(crate) fn opening_thought(text: &str) -> Option<Range<usize>> {
    let start = text.len() - text.trim_start().len();
    let end = text[start..].strip_prefix(THINK)?.find(THINK_END)?;
    Some(start..start + THINK.len() + end)
}

/// What a complete text says behind its thinking, tool calls included; nothing where that never ends. The same split
/// as that of an [`OutputParser`].
pub fn answer_in(text: &str, starts_in_thinking: bool) -> &str {
    if !starts_in_thinking && !text.trim_start().starts_with(THINK) {
        return text;
    }
    text.split_once(THINK_END).map_or("", |(_, answer)| answer)
}

/// What to look for in a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParserConfig {
    /// Names of the tools that were offered: `<tool_call>` begins a call of one of these; else it is content.
    pub tools: Vec<String>,
    /// A `<think>` that opens the response begins reasoning; else it is content.
    pub thinking: bool,
    /// The prompt ends inside `<think>`, so the response begins with reasoning.
    pub starts_in_thinking: bool,
}

impl ParserConfig {
    /// For the response to a prompt with these tool definitions.
    pub fn new(tools: &[Value], starts_in_thinking: bool) -> Self {
        let name = |tool: &Value| {
            let name = tool["function"]["name"].as_str().or_else(|| tool["name"].as_str());
            name.map(str::to_owned)
        };
        Self { tools: tools.iter().filter_map(name).collect(), thinking: true, starts_in_thinking }
    }
}

/// A piece of a parsed response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputDelta {
    /// More of the reasoning.
    Reasoning(String),
    /// More of the answer.
    Content(String),
    /// A tool call begins.
    ToolCallStart {
        /// Which call of this response, from 0.
        index: usize,
        /// A new id: `call` and 24 hexadecimal digits.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// The arguments of a tool call.
    ToolCallArguments {
        /// Which call of this response.
        index: usize,
        /// JSON text to append.
        arguments: String,
    },
}

#[derive(Debug)]
enum State {
    /// Nothing but white space so far: a `<think>` would open the response.
    Opening,
    Content,
    Thinking,
    /// After `<tool_call>`: how far its text has been read as JSON.
    ToolCall(JsonScan),
}

#[derive(Debug, Default)]
struct JsonScan {
    position: usize,
    begun: bool,
    in_string: bool,
    escaped: bool,
}

enum Scanned {
    /// The text could still become a tool call.
    Undecided,
    /// `</tool_call>` begins here.
    End(usize),
    /// This is no JSON object.
    NotJson,
}

/// A streaming parser of one response. The concatenated result does not depend on how the text is cut into pieces.
///
/// Newlines at the borders of `<think>…</think>` and of `<tool_call>…</tool_call>` belong to the markers.
#[derive(Debug)]
pub struct OutputParser {
    config: ParserConfig,
    state: State,
    /// Text that is not decided yet.
    buffer: String,
    /// Newlines that are text only if text follows them.
    newlines: usize,
    /// Right after a marker: newlines belong to it.
    after_marker: bool,
    tool_calls: usize,
    /// Bytes of the response so far.
    taken: usize,
    /// Where the `<tool_call>` begins that is being read.
    call_at: usize,
    split: ReplySplit,
}

impl OutputParser {
    /// For one response.
    pub fn new(config: ParserConfig) -> Self {
        Self {
            state: match &config {
                ParserConfig { starts_in_thinking: true, .. } => State::Thinking,
                ParserConfig { thinking: true, .. } => State::Opening,
                ParserConfig { .. } => State::Content,
            },
            buffer: String::new(),
            newlines: 0,
            after_marker: config.starts_in_thinking,
            tool_calls: 0,
            taken: 0,
            call_at: 0,
            split: ReplySplit { starts_in_thinking: config.starts_in_thinking, ..ReplySplit::default() },
            config,
        }
    }

    /// Takes more text; gives what has become certain.
    pub fn push(&mut self, text: &str) -> Vec<OutputDelta> {
        self.buffer.push_str(text);
        self.taken += text.len();
        let mut out = Vec::new();
        while self.step(&mut out) {}
        out
    }

    /// Where the parts of the response lie; whole once it is complete.
    pub fn split(&self) -> &ReplySplit {
        &self.split
    }

    /// Where the buffer begins.
    fn position(&self) -> usize {
        self.taken - self.buffer.len()
    }

    /// The response is complete: gives what was held back. A tool call whose JSON is complete counts without its
    /// closing marker.
    pub fn finish(&mut self) -> Vec<OutputDelta> {
        let mut out = Vec::new();
        loop {
            while self.step(&mut out) {}
            if matches!(self.state, State::Opening) {
                self.state = State::Content;
            }
            let rest = std::mem::take(&mut self.buffer);
            if !matches!(self.state, State::ToolCall(_)) {
                if matches!(self.state, State::Thinking) {
                    self.split.answer_at = self.taken;
                }
                self.emit(&rest, &mut out);
                break;
            }
            match ParsedCall::parse(&rest, &self.config.tools) {
                Some(call) => self.emit_call(call, &mut out),
                None => self.reject_call(rest, &mut out),
            }
        }
        if matches!(self.state, State::Content) {
            self.emit_newlines(&mut out);
        }
        out
    }

    /// Consumes one marker. False if more text is needed.
    fn step(&mut self, out: &mut Vec<OutputDelta>) -> bool {
        match &mut self.state {
            State::Opening => {
                let text = self.buffer.trim_start();
                if let Some(thought) = text.strip_prefix(THINK) {
                    self.buffer = thought.to_owned();
                    self.begin(State::Thinking);
                    return true;
                }
                let may_open = THINK.starts_with(text);
                if !may_open {
                    self.state = State::Content;
                }
                !may_open
            }
            State::Content => {
                let markers: &[_] = if self.config.tools.is_empty() { &[] } else { &[TOOL_CALL] };
                let is_call = self.emit_until(markers, out).is_some();
                if is_call {
                    self.call_at = self.position() - TOOL_CALL.len();
                    // Whether these newlines are the marker's is known when the call is.
                    self.state = State::ToolCall(JsonScan::default());
                }
                is_call
            }
            State::Thinking => {
                let ended = self.emit_until(&[THINK_END], out).is_some();
                if ended {
                    self.split.answer_at = self.position();
                    self.begin(State::Content);
                }
                ended
            }
            State::ToolCall(scan) => match scan.advance(&self.buffer) {
                Scanned::Undecided => false,
                Scanned::End(at) => {
                    match ParsedCall::parse(&self.buffer[..at], &self.config.tools) {
                        Some(call) => {
                            self.buffer.drain(..at + TOOL_CALL_END.len());
                            self.emit_call(call, out);
                        }
                        None => {
                            let text = std::mem::take(&mut self.buffer);
                            self.reject_call(text, out);
                        }
                    }
                    true
                }
                Scanned::NotJson => {
                    let text = std::mem::take(&mut self.buffer);
                    self.reject_call(text, out);
                    true
                }
            },
        }
    }

    /// Emits the text before the first of these markers and consumes it with the marker; without one, emits all but
    /// what may be the beginning of one.
    fn emit_until(&mut self, markers: &[&'static str], out: &mut Vec<OutputDelta>) -> Option<&'static str> {
        let buffer = std::mem::take(&mut self.buffer);
        let first = markers.iter().filter_map(|marker| Some((buffer.find(marker)?, *marker))).min();
        let Some((at, marker)) = first else {
            let held = markers.iter().map(|marker| partial_match_len(&buffer, marker)).max().unwrap_or(0);
            let (text, held) = buffer.split_at(buffer.len() - held);
            self.emit(text, out);
            self.buffer = held.to_owned();
            return None;
        };
        self.emit(&buffer[..at], out);
        self.buffer = buffer[at + marker.len()..].to_owned();
        Some(marker)
    }

    fn begin(&mut self, state: State) {
        self.state = state;
        self.newlines = 0;
        self.after_marker = true;
    }

    fn emit_call(&mut self, call: ParsedCall, out: &mut Vec<OutputDelta>) {
        let index = self.tool_calls;
        self.tool_calls += 1;
        out.push(OutputDelta::ToolCallStart { index, id: new_call_id(), name: call.name });
        out.push(OutputDelta::ToolCallArguments { index, arguments: call.arguments });
        self.split.calls.push(self.call_at..self.position());
        self.begin(State::Content);
    }

    /// What looked like a call is content; what follows its marker is read again, since it may hold a real one.
    fn reject_call(&mut self, text: String, out: &mut Vec<OutputDelta>) {
        self.state = State::Content;
        self.emit(TOOL_CALL, out);
        self.buffer = text;
    }

    fn emit(&mut self, text: &str, out: &mut Vec<OutputDelta>) {
        let text = if self.after_marker { text.trim_start_matches('\n') } else { text };
        let body = text.trim_end_matches('\n');
        if !body.is_empty() {
            self.after_marker = false;
            self.emit_newlines(out);
            self.append(body, out);
        }
        self.newlines += text.len() - body.len();
    }

    fn emit_newlines(&mut self, out: &mut Vec<OutputDelta>) {
        let newlines = "\n".repeat(std::mem::take(&mut self.newlines));
        self.append(&newlines, out);
    }

    fn append(&self, text: &str, out: &mut Vec<OutputDelta>) {
        if text.is_empty() {
            return;
        }
        match (&self.state, out.last_mut()) {
            (State::Thinking, Some(OutputDelta::Reasoning(last))) => last.push_str(text),
            (State::Thinking, _) => out.push(OutputDelta::Reasoning(text.to_owned())),
            (_, Some(OutputDelta::Content(last))) => last.push_str(text),
            (_, _) => out.push(OutputDelta::Content(text.to_owned())),
        }
    }
}

impl JsonScan {
    /// Reads on, just closely enough to know a closing marker from the same letters inside a JSON string.
    fn advance(&mut self, text: &str) -> Scanned {
        let bytes = text.as_bytes();
        while self.position < bytes.len() {
            let byte = bytes[self.position];
            if self.in_string {
                if self.escaped {
                    self.escaped = false;
                } else if byte == b'\\' {
                    self.escaped = true;
                } else if byte == b'"' {
                    self.in_string = false;
                }
            } else if byte == b'<' {
                let rest = &text[self.position..];
                if rest.starts_with(TOOL_CALL_END) {
                    return Scanned::End(self.position);
                }
                return if TOOL_CALL_END.starts_with(rest) { Scanned::Undecided } else { Scanned::NotJson };
            } else if byte == b'"' {
                self.in_string = true;
            }
            if !self.begun && !byte.is_ascii_whitespace() {
                if byte != b'{' {
                    return Scanned::NotJson;
                }
                self.begun = true;
            }
            self.position += 1;
        }
        Scanned::Undecided
    }
}

struct ParsedCall {
    name: String,
    /// As the model wrote them: no digit and no key may change on the way.
    arguments: String,
}

impl ParsedCall {
    fn parse(text: &str, offered: &[String]) -> Option<Self> {
        let text = with_escaped_controls(text.trim());
        let call = object(&text)?;
        let name: String = serde_json::from_str(call.get("name")?.get()).ok()?;
        let arguments = call.get("arguments").map_or("null", |arguments| arguments.get());
        let arguments = if arguments == "null" {
            "{}".to_owned()
        } else if object(arguments).is_some() {
            arguments.to_owned()
        } else {
            // Some models write the arguments as text that holds the object.
            let text: String = serde_json::from_str(arguments).ok()?;
            let text = with_escaped_controls(&text).into_owned();
            object(&text)?;
            text
        };
        offered.contains(&name).then_some(Self { name, arguments })
    }
}

/// The fields of a JSON object as they are written; of two with one key, the last.
fn object(text: &str) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(text).ok()
}

/// Escapes the line breaks, tabs and the like that stand raw in strings, where JSON wants them escaped.
fn with_escaped_controls(json: &str) -> Cow<'_, str> {
    let (mut in_string, mut escaped) = (false, false);
    let mut out = String::new();
    let mut from = 0;
    for (at, byte) in json.bytes().enumerate() {
        match byte {
            // Behind a backslash it means nothing.
            0..=0x1F if in_string && !escaped => {
                let text = Value::from(char::from(byte).to_string()).to_string();
                out.push_str(&json[from..at]);
                out.push_str(text.trim_matches('"'));
                from = at + 1;
            }
            b'"' if !escaped => in_string = !in_string,
            _ => {}
        }
        escaped = in_string && !escaped && byte == b'\\';
    }
    if from == 0 {
        return Cow::Borrowed(json);
    }
    out.push_str(&json[from..]);
    Cow::Owned(out)
}

fn new_call_id() -> String {
    let random: u128 = rand::rng().random();
    format!("call{:024x}", random >> 32)
}

#[cfg(test)]
#[path = "output_parser_tests.rs"]
mod tests;
