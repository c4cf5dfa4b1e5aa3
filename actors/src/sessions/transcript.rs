//! A request's messages as sessions see them: who wrote each, and a rolling hash that recognises a history when it
//! comes back. Transient carriers are left out; an assistant's words are compared without formatting, because clients
//! replay replies trimmed, re-wrapped and without their thinking.

use std::{borrow::Cow, ops::Range};

use openclaw_model::{answer_in, exact_json};
use serde_json::Value;

use super::{name::Name, rewritten::calls_in};

const CARRIER_BEGIN: &str = "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>";
const CARRIER_END: &str = "<<<END_OPENCLAW_INTERNAL_CONTEXT>>>";

/// Texts in the user's role that open an exchange no human asked for: the reply to them and its tool results are theirs.
const MACHINE_EXCHANGES: &[&str] = &[
    "Follow the heartbeat monitor scratch context",
    "[OpenClaw heartbeat poll]",
    "Read HEARTBEAT.md if it exists",
    "Pre-compaction memory flush",
    "[cron:",
    "[Subagent Context]",
    "A background task completed.",
    "[Queued user message from a previous active turn",
    "Continue the current task from the existing transcript",
    "The previous attempt did not produce a user-visible answer",
    "The previous assistant turn recorded reasoning but",
];

/// Texts in the user's role that a client slips between a person's messages or tool results.
const MACHINE_REMARKS: &[&str] = &[
    "<turn_aborted>",
    "Image(s) from tool result",
    "The conversation history before this point was compacted",
];

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// The operator: `system` or `developer`.
    System,
    /// A person.
    Human,
    /// The client, in the user's role, opening an exchange of its own.
    Machine,
    /// The client, in the user's role, in passing.
    MachineRemark,
    /// The policy.
    Assistant,
    /// A tool.
    Tool,
}

/// One message that stays in the history.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Where it stands in the request's `messages`.
    pub position: usize,
    /// Who wrote it.
    pub author: Author,
    /// Hash of what it says.
    pub hash: u64,
}

/// A request's history without transient messages.
#[derive(Clone, Debug)]
pub struct Transcript {
    /// The messages that stay, in order.
    pub entries: Vec<Entry>,
    /// `chain[i]` names the first `i` entries; one longer than `entries`.
    pub chain: Vec<u64>,
}

impl Transcript {
    /// Reads `messages` as a client sent them.
    pub fn read(messages: &[Value]) -> Self {
        Self::of(None, messages)
    }

    /// The same history of another person has other names.
    pub fn of(person: Option<&str>, messages: &[Value]) -> Self {
        let start = person.map_or(0, |person| Name::new().text("person").text(person).finish());
        let mut transcript = Self { entries: Vec::with_capacity(messages.len()), chain: vec![start] };
        for (position, message) in messages.iter().enumerate() {
            let Some(author) = author(message) else { continue };
            let hash = message_hash(message, author);
            transcript.entries.push(Entry { position, author, hash });
            transcript.chain.push(follow(transcript.whole(), author, hash));
        }
        transcript
    }

    /// Names the whole history.
    pub fn whole(&self) -> u64 {
        *self.chain.last().expect("the chain starts with one element")
    }

    /// The last reply of the history, as clients cut it: messages of the assistant one after another.
    pub fn last_reply(&self) -> Option<Range<usize>> {
        let last = self.entries.iter().rposition(|entry| entry.author == Author::Assistant)?;
        let before = self.entries[..last].iter().rposition(|entry| entry.author != Author::Assistant);
        Some(before.map_or(0, |before| before + 1)..last + 1)
    }

    /// Names the last message before an entry that is not the system's, which clients write anew each time.
    pub fn before(&self, entry: usize) -> u64 {
        let said = self.entries[..entry].iter().rfind(|entry| entry.author != Author::System);
        said.map_or(0, |entry| follow(self.chain[0], entry.author, entry.hash))
    }

    /// The last message that is not the assistant's or a tool's or the system's, if any.
    pub fn last_user(&self) -> Option<&Entry> {
        self.entries
            .iter()
            .rev()
            .find(|entry| matches!(entry.author, Author::Human | Author::Machine | Author::MachineRemark))
    }
}

/// The name of a history that goes on with a message.
pub fn follow(history: u64, author: Author, hash: u64) -> u64 {
    // A machine's text and a person's share a role: the hash must not depend on our reading of it.
    let role = match author {
        Author::System => 0,
        Author::Human | Author::Machine | Author::MachineRemark => 1,
        Author::Assistant => 2,
        Author::Tool => 3,
    };
    Name::new().number(history).number(role).number(hash).finish()
}

/// The hash under which a reply will come back in a later request.
pub fn reply_hash(reply: &Value) -> u64 {
    message_hash(reply, Author::Assistant)
}

/// Whether a reply says or does anything that could be recognised later.
pub fn says_anything(reply: &Value) -> bool {
    !answer_in(&message_text(reply), false).trim().is_empty()
        || reply["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty())
}

/// The text of a message: its string, or its text parts joined by new lines.
pub fn message_text(message: &Value) -> Cow<'_, str> {
    match message.get("content") {
        Some(Value::String(text)) => Cow::Borrowed(text),
        Some(Value::Array(parts)) => Cow::Owned(
            parts
                .iter()
                .filter_map(|part| part.as_str().or_else(|| part.get("text")?.as_str()))
                .collect::<Vec<_>>()
                .join("\n"),
        ),
        _ => Cow::Borrowed(""),
    }
}

/// What a person wrote: without time stamps, channel blocks and transient context before it.
pub fn spoken(text: &str) -> &str {
    let mut rest = text.trim();
    loop {
        let before = rest;
        for strip in [after_carrier, after_stamp, after_channel_block] {
            if let Some(after) = strip(rest) {
                rest = after.trim_start();
            }
        }
        if rest.len() == before.len() {
            return rest;
        }
    }
}

fn after_carrier(text: &str) -> Option<&str> {
    let body = text.strip_prefix(CARRIER_BEGIN)?;
    // The last end mark: quoted data inside may hold one of its own.
    body.rfind(CARRIER_END).map(|end| &body[end + CARRIER_END.len()..])
}

/// `[Sun 2026-11-22 13:58 UTC] `
fn after_stamp(text: &str) -> Option<&str> {
    let body = text.strip_prefix('[')?;
    let end = body.find(']').filter(|&end| end <= 40)?;
    let mut words = body[..end].split(' ');
    let weekday = words.next()?;
    let date = words.next()?.as_bytes();
    let stamped = weekday.len() == 3
        && weekday.bytes().all(|b| b.is_ascii_alphabetic())
        && date.len() == 10
        && date[4] == b'-'
        && date[7] == b'-'
        && date.iter().enumerate().all(|(i, b)| i == 4 || i == 7 || b.is_ascii_digit());
    stamped.then(|| &body[end + 1..])
}

/// `Conversation info: ⟦openclaw:ctx⟧ ```json …``` `
fn after_channel_block(text: &str) -> Option<&str> {
    let body = text.strip_prefix("Conversation info")?;
    let (head, json) = body.split_once("```json")?;
    if !head.contains("openclaw:ctx") {
        return None;
    }
    json.split_once("```").map(|(_, after)| after)
}

/// `None` for a transient message that the next request will not carry.
fn author(message: &Value) -> Option<Author> {
    match message.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Some(Author::System),
        Some("assistant") => Some(Author::Assistant),
        Some("tool" | "function") => Some(Author::Tool),
        _ => user_author(message),
    }
}

fn user_author(message: &Value) -> Option<Author> {
    let text = message_text(message);
    let spoken = spoken(&text);
    let has_attachment = message.get("content").and_then(Value::as_array).is_some_and(|parts| {
        parts.iter().any(|part| part.get("type").and_then(Value::as_str).is_some_and(|kind| kind != "text"))
    });
    if spoken.is_empty() && text.trim_start().starts_with(CARRIER_BEGIN) && !has_attachment {
        None
    } else if starts_with_any(spoken, MACHINE_EXCHANGES) {
        Some(Author::Machine)
    } else if starts_with_any(spoken, MACHINE_REMARKS) {
        Some(Author::MachineRemark)
    } else {
        Some(Author::Human)
    }
}

fn starts_with_any(text: &str, starts: &[&str]) -> bool {
    starts.iter().any(|start| text.starts_with(start))
}

fn message_hash(message: &Value, author: Author) -> u64 {
    let mut name = Name::new();
    let text = message_text(message);
    if author == Author::Assistant {
        let visible = answer_in(&text, false);
        let mut calls = tool_calls(message.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice));
        let mut visible = visible.trim();
        if calls.is_empty()
            && let Some((before, worded)) = calls_in(visible)
        {
            (visible, calls) = (before.trim(), tool_calls(Some(&worded)));
        }
        let words = words(visible);
        // An answer of nothing but signs still differs from another one.
        name = name.text(if words.is_empty() { visible } else { &words });
        for (function, arguments) in calls {
            name = name.text(&function).text(&arguments);
        }
    } else {
        name = name.text(text.trim());
        // Pictures count by their address.
        for part in message.get("content").and_then(Value::as_array).into_iter().flatten() {
            if part.get("text").is_none() {
                name = name.text(&part.to_string());
            }
        }
    }
    name.finish()
}

/// What is left of a text however a client wraps and marks it.
pub fn words(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).collect()
}

/// What a reply says, without its thinking.
pub fn reply_words(reply: &Value) -> String {
    words(answer_in(&message_text(reply), false))
}

/// The hash of a reply that is these words and nothing else.
pub fn words_hash(words: &str) -> u64 {
    Name::new().text(words).finish()
}

/// A value as it is compared: keys in order, and 1.0 as 1, which is how JavaScript writes it.
fn as_compared(value: &Value) -> Value {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15);
            whole.map_or_else(|| value.clone(), |whole| (whole as i64).into())
        }
        Value::Array(items) => items.iter().map(as_compared).collect(),
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            fields.into_iter().map(|(key, value)| (key.clone(), as_compared(value))).collect()
        }
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
    }
}

/// Name and arguments of each call. Ids are left out: clients rewrite them, as they do numbers.
fn tool_calls(calls: Option<&[Value]>) -> Vec<(String, String)> {
    calls
        .into_iter()
        .flatten()
        .filter_map(|call| {
            let function = call.get("function")?;
            let name = function.get("name")?.as_str()?.to_owned();
            let arguments = match function.get("arguments") {
                Some(Value::String(text)) => serde_json::from_str::<Value>(text)
                    .map_or_else(|_| text.clone(), |value| as_compared(&value).to_string()),
                Some(value) => as_compared(&exact_json::plain(value.clone())).to_string(),
                None => String::new(),
            };
            Some((name, arguments))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stamps_and_channel_blocks_are_not_what_the_person_said() {
        let text = "[Mon 2026-11-23 08:01 UTC] Conversation info: ⟦openclaw:ctx⟧ ```json\n{\"a\":1}\n``` \nplease stop";
        assert_eq!(spoken(text), "please stop");
        assert_eq!(spoken("[1] is a list, [Mon] is a day"), "[1] is a list, [Mon] is a day");
        assert_eq!(spoken("[Sun 2026-11-22 x"), "[Sun 2026-11-22 x");
    }

    #[test]
    fn carriers_leave_no_trace_in_the_history() {
        let carrier = json!({"role": "user", "content": [{"type": "text",
            "text": format!("{CARRIER_BEGIN}\nActive exec sessions:\\nnone\n{CARRIER_END}")}]});
        let user = json!({"role": "user", "content": "hi"});
        let with = Transcript::read(&[user.clone(), carrier]);
        assert_eq!(with.whole(), Transcript::read(&[user]).whole());
        assert_eq!(with.entries.len(), 1);
    }

    #[test]
    fn words_behind_a_carrier_are_kept() {
        let message = json!({"role": "user", "content": format!("{CARRIER_BEGIN} x {CARRIER_END}\nhello")});
        let transcript = Transcript::read(std::slice::from_ref(&message));
        assert_eq!(transcript.entries[0].author, Author::Human);
        assert_eq!(spoken(&message_text(&message)), "hello");
    }

    #[test]
    fn a_reply_is_recognised_after_a_client_rewrote_its_form() {
        let sent = json!({"content": "<think>hm</think>\n\n**Yes**, 4.", "tool_calls": [
            {"id": "call_1", "function": {"name": "exec", "arguments": "{\"command\": \"ls\"}"}}]});
        let replayed = json!({"role": "assistant", "content": [{"type": "text", "text": "Yes, 4."}], "tool_calls": [
            {"id": "call1", "function": {"name": "exec", "arguments": {"command": "ls"}}}]});
        assert_eq!(reply_hash(&sent), reply_hash(&replayed));
        let sorted = |arguments: &str| {
            reply_hash(&json!({"tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}))
        };
        assert_eq!(
            sorted(r#"{"b": 1.0, "a": [2.50, {"d": 1, "c": 2}]}"#),
            sorted(r#"{"a":[2.5,{"c":2,"d":1}],"b":1}"#)
        );
        assert_ne!(sorted(r#"{"a": 1}"#), sorted(r#"{"a": "1"}"#));
        let in_words = "Yes, 4.\nCalling tools:\n[{'id': 'call_1', 'type': 'function', 'function': \
                        {'name': 'exec', 'arguments': {'command': 'ls'}}}]";
        assert_eq!(reply_hash(&sent), reply_hash(&json!({"role": "assistant", "content": in_words})));
        let other = json!({"content": "Yes, 5.", "tool_calls": sent["tool_calls"]});
        assert_ne!(reply_hash(&sent), reply_hash(&other));
        assert_ne!(reply_hash(&json!({"content": "!"})), reply_hash(&json!({"content": "?"})));
    }

    #[test]
    fn string_and_part_contents_are_the_same_history() {
        let parts = json!([{"role": "developer", "content": [{"type": "text", "text": "s"}]},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]}]);
        let strings = json!([{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]);
        let read = |value: &Value| Transcript::read(value.as_array().expect("an array literal")).whole();
        assert_eq!(read(&parts), read(&strings));
    }

    #[test]
    fn a_reply_that_ends_in_a_mark_of_thinking_says_something() {
        let replied = |content: &str| json!({"role": "assistant", "content": content});
        assert!(says_anything(&replied("The tag is </think>")));
        assert!(!says_anything(&replied("<think>hm</think>\n")));
        assert_ne!(
            reply_hash(&replied("Not <a> but </think>")),
            reply_hash(&replied("Not <b> but </think>"))
        );
    }
}
