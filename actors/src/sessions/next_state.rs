//! What followed a turn, read from the messages behind it: tool results and a person's words. Texts that no human
//! wrote, and the exchanges they open, say nothing about the turn.

use openclaw_journal::{NextState, NextStateKind};
use serde_json::Value;

use super::transcript::{Author, Transcript, message_text, spoken};

/// The next state of the assistant message at `reply` of `transcript`, if one has arrived.
pub fn next_state(messages: &[Value], transcript: &Transcript, reply: usize) -> Option<NextState> {
    let mut texts = Vec::new();
    let mut kind = None;
    let mut is_error = false;
    let mut in_machine_exchange = false;
    for entry in transcript.entries.get(reply + 1..)? {
        let message = &messages[entry.position];
        let text = message_text(message);
        match entry.author {
            // What a later reply led to is that reply's next state.
            Author::Assistant if kind.is_some() => break,
            Author::Machine if kind.is_none() => in_machine_exchange = true,
            Author::Human => {
                in_machine_exchange = false;
                kind = Some(NextStateKind::User);
                texts.push(spoken(&text).to_owned());
            }
            Author::Tool if !in_machine_exchange => {
                kind = kind.or(Some(NextStateKind::Tool));
                is_error |= reports_an_error(&text);
                texts.push(text.trim().to_owned());
            }
            Author::Assistant | Author::Machine | Author::MachineRemark | Author::System | Author::Tool => {}
        }
    }
    kind.map(|kind| NextState { kind, text: texts.join("\n\n"), rating: None, is_error })
}

/// Whether a tool's result says that the call failed.
pub fn reports_an_error(result: &str) -> bool {
    let text = result.trim();
    if let Ok(Value::Object(object)) = serde_json::from_str::<Value>(text) {
        let says_error =
            object.get("error").is_some_and(|e| !e.is_null() && e != &Value::Bool(false) && e != "");
        let status = object.get("status").and_then(Value::as_str);
        let exit = ["exit_code", "exitCode", "returncode"].iter().find_map(|key| object.get(*key)?.as_i64());
        return says_error
            || matches!(status, Some("error" | "failed"))
            || exit.is_some_and(|code| code != 0)
            || object.get("is_error") == Some(&Value::Bool(true));
    }
    let starts =
        ["Error:", "error:", "ERROR:", "Validation failed for tool", "Traceback (most recent call last)"];
    let first_line = text.lines().next().unwrap_or_default();
    starts.iter().any(|start| text.starts_with(start))
        || (first_line.starts_with("Tool ") && first_line.trim_end_matches('.').ends_with("not found"))
        || text.lines().next_back().is_some_and(exited_with_an_error)
}

/// `Command exited with code 2`, also in brackets.
fn exited_with_an_error(line: &str) -> bool {
    let line = line.trim_matches(|c: char| !c.is_alphanumeric());
    line.rsplit_once("exited with code ")
        .is_some_and(|(_, code)| code.parse::<i64>().is_ok_and(|code| code != 0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn after_reply(messages: Value) -> Option<NextState> {
        let mut all =
            vec![json!({"role": "user", "content": "q"}), json!({"role": "assistant", "content": "a"})];
        all.extend(messages.as_array().expect("an array literal").iter().cloned());
        next_state(&all, &Transcript::read(&all), 1)
    }

    const CARRIER: &str = "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>> none <<<END_OPENCLAW_INTERNAL_CONTEXT>>>";

    #[test]
    fn the_persons_words_are_the_next_state_and_the_carrier_is_not() {
        let state = after_reply(json!([{"role": "user", "content": "[Sun 2026-11-22 14:00 UTC] too long"},
            {"role": "user", "content": [{"type": "text", "text": CARRIER}]}]))
        .expect("a person spoke");
        assert_eq!((state.kind, state.text.as_str()), (NextStateKind::User, "too long"));
        assert_eq!(after_reply(json!([{"role": "user", "content": CARRIER}])), None);
    }

    #[test]
    fn several_tool_results_are_one_next_state() {
        let state = after_reply(json!([{"role": "tool", "content": "one"}, {"role": "tool", "content": "two"},
            {"role": "user", "content": "Image(s) from tool result #1 (read):"}, {"role": "user", "content": CARRIER}]))
        .expect("tools answered");
        assert_eq!(
            (state.kind, state.text.as_str(), state.is_error),
            (NextStateKind::Tool, "one\n\ntwo", false)
        );
    }

    #[test]
    fn a_person_speaking_after_a_tool_makes_it_a_persons_next_state() {
        let state =
            after_reply(json!([{"role": "tool", "content": "ok"}, {"role": "user", "content": "stop"}]));
        let state = state.expect("a person spoke");
        assert_eq!((state.kind, state.text.as_str()), (NextStateKind::User, "ok\n\nstop"));
    }

    #[test]
    fn user_messages_that_no_human_wrote_are_no_feedback() {
        for text in [
            "Follow the heartbeat monitor scratch context when provided.",
            "[OpenClaw heartbeat poll]",
            "Pre-compaction memory flush. Store it.",
            "[cron:1 x] do",
            "[Subagent Context] do",
            "A background task completed. isUser=false",
            "[Queued user message from a previous active turn] hi Continue the current task.",
            "Continue the current task from the existing transcript",
            "<turn_aborted>",
            "The previous attempt did not produce a user-visible answer. Continue.",
            "The previous assistant turn recorded reasoning but no answer.",
            "Image(s) from tool result #1 (read):",
            "The conversation history before this point was compacted into a summary.",
        ] {
            assert_eq!(after_reply(json!([{"role": "user", "content": text}])), None, "{text}");
            let stamped = format!("[Sun 2026-11-22 14:00 UTC] {text}");
            assert_eq!(after_reply(json!([{"role": "user", "content": stamped}])), None, "{stamped}");
        }
    }

    #[test]
    fn a_machine_exchange_is_skipped_with_its_reply_and_tools() {
        let state = after_reply(json!([{"role": "user", "content": "[OpenClaw heartbeat poll]"},
            {"role": "assistant", "content": "looking"}, {"role": "tool", "content": "nothing"},
            {"role": "assistant", "content": "NO_REPLY"}, {"role": "user", "content": "thanks"}]))
        .expect("a person spoke");
        assert_eq!((state.kind, state.text.as_str()), (NextStateKind::User, "thanks"));
    }

    #[test]
    fn what_follows_a_later_reply_belongs_to_that_one() {
        let state =
            after_reply(json!([{"role": "user", "content": "first"}, {"role": "assistant", "content": "b"},
            {"role": "user", "content": "second"}]))
            .expect("a person spoke");
        assert_eq!(state.text, "first");
    }

    #[test]
    fn failures_of_tools_are_seen() {
        for failed in [
            "Tool frob not found",
            "Validation failed for tool \"exec\": command is missing",
            "Error: no such file",
            "{\"status\": \"error\", \"message\": \"no\"}",
            "{\"error\": \"denied\"}",
            "{\"exit_code\": 2}",
            "ls: x\n\n(Command exited with code 2)",
            "Traceback (most recent call last):\n  File",
        ] {
            assert!(reports_an_error(failed), "{failed}");
        }
        for fine in
            ["ok", "{\"error\": null, \"x\": 1}", "0 errors: all good", "(Command exited with code 0)", ""]
        {
            assert!(!reports_an_error(fine), "{fine}");
        }
        let state = after_reply(
            json!([{"role": "tool", "content": "fine"}, {"role": "tool", "content": "Error: x"}]),
        );
        assert!(state.expect("tools answered").is_error);
    }
}
