//! What followed a turn, read from the messages behind it: tool results and a person's words. Texts that no human
//! wrote, and the exchanges they open, say nothing about the turn.

use openclaw_journal::{NextState, NextStateKind};
use serde_json::Value;

use super::transcript::{Author, Transcript, message_text, spoken};

/// How text-protocol agents write a tool's result, into the reply or as a message of the user.
const OBSERVATIONS: [&str; 3] = ["Observation:", "Observation\n", "Call id:"];

/// The next state of the reply that ends at `reply` of `transcript`, if one has arrived; `behind` is what the client has
/// written behind it in the same message.
pub fn next_state(
    messages: &[Value],
    transcript: &Transcript,
    reply: usize,
    behind: Option<&str>,
) -> Option<NextState> {
    let mut texts = Vec::new();
    let mut kind = None;
    let mut is_error = false;
    // Footers and closing tags say nothing.
    if let Some(observed) = behind.and_then(observation) {
        kind = Some(NextStateKind::Tool);
        is_error = reports_an_error(observed);
        texts.push(observed.to_owned());
    }
    for at in following(transcript, reply, behind).entries {
        let entry = transcript.entries[at];
        let message = &messages[entry.position];
        let text = message_text(message);
        if entry.author == Author::Human {
            let said = spoken(&text);
            match observation(said) {
                Some(observed) => {
                    kind = kind.or(Some(NextStateKind::Tool));
                    is_error |= reports_an_error(observed);
                }
                None => kind = Some(NextStateKind::User),
            }
            texts.push(said.to_owned());
        } else {
            kind = kind.or(Some(NextStateKind::Tool));
            is_error |= message["is_error"] == true || reports_an_error(&text);
            texts.push(text.trim().to_owned());
        }
    }
    kind.map(|kind| NextState {
        kind,
        text: texts.join("\n\n"),
        rating: None,
        is_error,
        by_rule: None,
        screen: None,
    })
}

/// The messages that followed a reply and say something about it.
pub(super) struct Following {
    /// Entries of the transcript, each a person's or a tool's.
    pub entries: Vec<usize>,
    /// The entry of the reply behind them, where the history goes on.
    pub end: Option<usize>,
}

/// What follows the reply that ends at `reply`; `behind` is what its client has written behind it.
pub(super) fn following(transcript: &Transcript, reply: usize, behind: Option<&str>) -> Following {
    let is_observed = behind.and_then(observation).is_some();
    let mut entries = Vec::new();
    let mut in_machine_exchange = false;
    for (at, entry) in transcript.entries.iter().enumerate().skip(reply + 1) {
        let has_begun = is_observed || !entries.is_empty();
        match entry.author {
            // What a later reply led to is that reply's next state.
            Author::Assistant if has_begun => return Following { entries, end: Some(at) },
            Author::Machine if !has_begun => in_machine_exchange = true,
            Author::Human => {
                in_machine_exchange = false;
                entries.push(at);
            }
            Author::Tool if !in_machine_exchange => entries.push(at),
            Author::Assistant | Author::Machine | Author::MachineRemark | Author::System | Author::Tool => {}
        }
    }
    Following { entries, end: None }
}

/// A tool's result in the words of a text-protocol agent: what stands behind its heading.
fn observation(text: &str) -> Option<&str> {
    let text = text.trim_start_matches(|c: char| !c.is_alphanumeric());
    OBSERVATIONS.iter().find_map(|start| text.strip_prefix(start)).map(str::trim)
}

/// How results begin that say that the call failed: shells and tracebacks, then the frameworks' own words (openai-agents,
/// pydantic-ai, LangGraph, Claude Code).
const FAILURES: [&str; 12] = [
    "Error:",
    "error:",
    "ERROR:",
    "Validation failed for tool",
    "Traceback (most recent call last)",
    "An error occurred while running the tool",
    "An error occurred while parsing tool arguments",
    "Unknown tool name:",
    "Error invoking tool ",
    "Error executing tool ",
    "<tool_use_error>",
    "Tool execution failed",
];

/// Whether a tool's result says for certain that the call failed.
pub fn reports_an_error(result: &str) -> bool {
    let text = result.trim();
    if let Ok(Value::Object(object)) = serde_json::from_str::<Value>(text) {
        let says_error =
            object.get("error").is_some_and(|e| !e.is_null() && e != &Value::Bool(false) && e != "");
        let status = object.get("status");
        let failed_status = status.and_then(Value::as_str).is_some_and(|it| matches!(it, "error" | "failed"))
            || status.and_then(Value::as_i64).is_some_and(|code| (400..600).contains(&code));
        let exit = ["exit_code", "exitCode", "returncode"].iter().find_map(|key| object.get(*key)?.as_i64());
        let says = |key: &str, value: bool| object.get(key) == Some(&Value::Bool(value));
        return says_error
            || failed_status
            || exit.is_some_and(|code| code != 0)
            || says("is_error", true)
            || says("isError", true)
            || says("success", false)
            || says("ok", false);
    }
    let first_line = text.lines().next().unwrap_or_default();
    FAILURES.iter().any(|start| text.starts_with(start))
        || (first_line.starts_with("Tool ") && first_line.trim_end_matches('.').ends_with("not found"))
        || names_an_exception(first_line)
        || text.lines().any(|line| line.starts_with("Traceback (most recent call last)"))
        || text.lines().next_back().is_some_and(exited_with_an_error)
}

/// `ValueError: ..`, as Python prints what was raised.
fn names_an_exception(line: &str) -> bool {
    line.split_once(": ").is_some_and(|(name, _)| {
        name.len() > 5
            && (name.ends_with("Error") || name.ends_with("Exception"))
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_')
    })
}

/// `Command exited with code 2`, also in brackets.
fn exited_with_an_error(line: &str) -> bool {
    let line = line.trim_matches(|c: char| !c.is_alphanumeric());
    ["exited with code ", "exit code: ", "exit code ", "exit status "]
        .iter()
        .find_map(|said| Some(line.rsplit_once(said)?.1))
        .is_some_and(|code| code.parse::<i64>().is_ok_and(|code| code != 0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn after_reply(messages: Value) -> Option<NextState> {
        let mut all =
            vec![json!({"role": "user", "content": "q"}), json!({"role": "assistant", "content": "a"})];
        all.extend(messages.as_array().expect("an array literal").iter().cloned());
        next_state(&all, &Transcript::read(&all), 1, None)
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
    fn an_observation_is_a_tools_result_wherever_the_client_writes_it() {
        let all = [json!({"role": "user", "content": "q"}), json!({"role": "assistant", "content": "a"})];
        let behind = |text: &str| next_state(&all, &Transcript::read(&all), 1, Some(text));
        let state = behind("\nObservation: Error: no such city").expect("a result");
        assert_eq!((state.kind, state.is_error), (NextStateKind::Tool, true));
        assert_eq!(behind("</code>"), None);
        assert_eq!(behind("\n\n(sent by bot)"), None);
        let state = after_reply(json!([{"role": "user", "content": "Observation:\nthe tool says 7"}]));
        assert_eq!(state.expect("a result").kind, NextStateKind::Tool);
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
            "An error occurred while running the tool. Please try again.",
            "Unknown tool name: 'frob'. Fix the errors and try again.",
            "Error invoking tool 'f' with kwargs {} with error:",
            "{\"isError\": true, \"content\": []}",
            "{\"success\": false}",
            "{\"ok\": false}",
            "{\"status\": 500}",
            "nothing\n[exit code: 127]",
            "sh: exit status 1",
            "started\nTraceback (most recent call last):\n  File \"x\"\nKeyError: 1",
            "<tool_use_error>no such tool</tool_use_error>",
            "ValueError: no",
            "requests.exceptions.ConnectionError: refused",
        ] {
            assert!(reports_an_error(failed), "{failed}");
        }
        for fine in [
            "ok",
            "{\"error\": null, \"x\": 1}",
            "0 errors: all good",
            "(Command exited with code 0)",
            "",
            "{\"status\": 200, \"success\": true}",
            "exit status 0",
            "Failed to convince the jury: a novel",
            "See ValueError: it is a class",
        ] {
            assert!(!reports_an_error(fine), "{fine}");
        }
        let state = after_reply(
            json!([{"role": "tool", "content": "fine"}, {"role": "tool", "content": "Error: x"}]),
        );
        assert!(state.expect("tools answered").is_error);
    }
}
