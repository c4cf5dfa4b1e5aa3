//! What the pipeline reads out of a turn's messages.

use openclaw_journal::Turn;
use openclaw_model::{ParserConfig, PythonJson, answer_in};
use serde_json::Value;

use crate::{
    gateway::{
        draft::{Draft, Part},
        protocol::chat::message,
    },
    sessions::transcript::{Author, Transcript},
};

/// The reply as the assistant message that its client was given.
pub fn reply(turn: &Turn) -> Value {
    message(&parts(turn))
}

/// What the reply consists of.
pub fn parts(turn: &Turn) -> Vec<Part> {
    let starts_in_thinking = turn.completion.split.starts_in_thinking;
    let mut draft = Draft::new(&turn.id, ParserConfig::new(&turn.tools, starts_in_thinking), false);
    draft.close(&turn.completion.text);
    draft.parts().to_vec()
}

/// The text of a response that a reader sees: what stands after its thinking, tool calls included.
pub fn answer(turn: &Turn) -> &str {
    turn.completion.answer().trim()
}

/// Where the message stands that the policy was answering: the last that a person wrote; where none did, the last
/// that the client wrote in the user's role. Transient carriers do not count.
pub fn task_position(messages: &[Value]) -> Option<usize> {
    let transcript = Transcript::read(messages);
    let last = |wanted: fn(Author) -> bool| {
        transcript.entries.iter().rev().find(|entry| wanted(entry.author)).map(|entry| entry.position)
    };
    last(|author| author == Author::Human)
        .or_else(|| last(|author| matches!(author, Author::Machine | Author::MachineRemark)))
}

/// The last `most` messages that are neither the system's nor transient, oldest first, and then the task.
pub fn history(messages: &[Value], most: usize) -> Vec<(String, String)> {
    let task = task_position(messages);
    let shown = |position: usize| {
        let role = messages[position]["role"].as_str().unwrap_or("user").to_owned();
        (role, with_calls(&messages[position]))
    };
    let transcript = Transcript::read(messages);
    let mut earlier: Vec<_> = transcript
        .entries
        .iter()
        .rev()
        .filter(|entry| entry.author != Author::System && Some(entry.position) != task)
        .take(most)
        .map(|entry| shown(entry.position))
        .collect();
    earlier.reverse();
    earlier.extend(task.map(shown));
    earlier
}

/// What the policy answered last, before the task.
pub fn previous_answer(messages: &[Value]) -> Option<&str> {
    let before = &messages[..task_position(messages)?];
    let answer = before.iter().rev().find(|message| message["role"] == "assistant")?;
    Some(answer_in(content(answer), false).trim()).filter(|answer| !answer.is_empty())
}

/// The text of a message, and the calls that it makes as a model writes them.
fn with_calls(message: &Value) -> String {
    let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
    let call = |call: &Value| {
        let function = &call["function"];
        // Clients send the arguments as a text.
        let given = &function["arguments"];
        let read = given.as_str().and_then(|text| serde_json::from_str(text).ok());
        call_text(function["name"].as_str().unwrap_or_default(), read.as_ref().unwrap_or(given))
    };
    let said = std::iter::once(content(message).to_owned()).filter(|said| !said.is_empty());
    said.chain(calls.iter().map(call)).collect::<Vec<_>>().join("\n")
}

/// A call as the embedded model writes it.
pub fn call_text(name: &str, arguments: &Value) -> String {
    let json = PythonJson::default();
    let (name, arguments) = (json.write(&name.into()), json.write(arguments));
    format!("<tool_call>\n{{\"name\": {name}, \"arguments\": {arguments}}}\n</tool_call>")
}

fn content(message: &Value) -> &str {
    message["content"].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use openclaw_model::ReplySplit;

    use super::*;
    use crate::tiny;

    fn message(role: &str, content: &str) -> Value {
        json!({"role": role, "content": content})
    }

    const CARRIER: &str =
        "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>\nActive exec sessions\n<<<END_OPENCLAW_INTERNAL_CONTEXT>>>";

    #[test]
    fn in_a_tool_loop_the_task_is_the_persons_message_and_never_a_carrier() {
        let messages = [
            message("system", "be brief"),
            message("user", "list the files"),
            message("assistant", "<tool_call>..</tool_call>"),
            message("tool", "a.txt"),
            message("user", CARRIER),
        ];
        assert_eq!(task_position(&messages), Some(1));
        let roles: Vec<_> = history(&messages, 8).into_iter().map(|(role, _)| role).collect();
        assert_eq!(roles, ["assistant", "tool", "user"]);
        assert_eq!(history(&messages, 1).len(), 2);
    }

    #[test]
    fn the_previous_answer_is_the_one_before_the_task_without_its_thinking() {
        let messages = [
            message("user", "2 + 2?"),
            message("assistant", "<think>\nfour\n</think>\n\n**4**"),
            message("user", "no bold please"),
        ];
        assert_eq!(previous_answer(&messages), Some("**4**"));
        assert_eq!(previous_answer(&messages[..1]), None);
    }

    fn replied(text: &str, starts_in_thinking: bool) -> Turn {
        let tools = json!([{"type": "function", "function": {"name": "write"}}]);
        let mut turn = tiny::turn(vec![message("user", "which tag?")], text);
        turn.tools = std::sync::Arc::new(tools.as_array().expect("a list").clone());
        turn.completion.split = ReplySplit::of(text, ParserConfig::new(&turn.tools, starts_in_thinking));
        turn
    }

    #[test]
    fn thinking_is_no_answer_even_when_it_never_ends() {
        for (text, expected) in [
            (" hi ", "hi"),
            ("<think>a</think>\n\nhi", "hi"),
            ("<think>a", ""),
            ("the tag <think> is text here", "the tag <think> is text here"),
            ("The tag that ends it is </think>", "The tag that ends it is </think>"),
            ("Wrap it in\n</think>\n, please", "Wrap it in\n</think>\n, please"),
            ("<think>\nhm\n</think>\n\nIt is </think>", "It is </think>"),
        ] {
            let turn = replied(text, false);
            assert_eq!(answer(&turn), expected, "{text}");
            assert_eq!(reply(&turn)["content"].as_str().map(str::trim), Some(expected), "{text}");
        }
        for (text, expected) in
            [("hm, a</think>hi", "hi"), ("hm\n</think>\n\nIt is </think>", "It is </think>"), ("hm", "")]
        {
            let turn = replied(text, true);
            assert_eq!(answer(&turn), expected, "{text}, behind a prompt that left a thought open");
            assert_eq!(reply(&turn)["content"].as_str().map(str::trim), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_call_that_writes_a_mark_of_thinking_stays_whole() {
        let call = "<tool_call>\n{\"name\": \"write\", \"arguments\": {\"text\": \"</think>\\n from it\"}}\n</tool_call>";
        let turn = replied(call, false);
        assert_eq!(answer(&turn), call);
        let arguments = r#"{"text": "</think>\n from it"}"#;
        assert_eq!(reply(&turn)["tool_calls"][0]["function"]["arguments"], arguments);
    }
}
