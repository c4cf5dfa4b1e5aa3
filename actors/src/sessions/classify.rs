//! Whether a request is part of the conversation (`main`, trainable) or housekeeping of the client (`side`).
//! What the request says of itself wins; then the operator's default; then the marks that real clients leave.

use openclaw_journal::TurnKind;
use serde::Deserialize;
use serde_json::Value;

use super::{
    identify::{RequestMarks, Runtime},
    transcript::{Author, Transcript, message_text, spoken},
};

/// What a request is when it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultTurnType {
    /// Read the traffic.
    #[default]
    Auto,
    /// Everything is trainable unless it says otherwise.
    Main,
    /// Nothing is trainable unless it says so.
    Side,
}

/// Parts of a session key that stand for runs beside the conversation.
const SIDE_KEYS: &[&str] = &[":internal-session-effects:", ":cron:", ":subagent:"];

/// How user messages of unattended runs begin.
const SIDE_EXCHANGES: &[&str] = &[
    "Follow the heartbeat monitor scratch context",
    "Read HEARTBEAT.md if it exists",
    "[OpenClaw heartbeat poll]",
    "Pre-compaction memory flush",
    "[cron:",
    "[Subagent Context]",
];

/// How requests without tools ask for something about the conversation instead of going on with it.
const SIDE_TASKS: &[&str] = &[
    "You are a context summarization assistant",
    "ephemeral /btw side question",
    "<btw_side_question>",
    "Generate a concise session title",
    "Write an Activity recap",
    "### Task:\nGenerate ",
    "### Task:\nSuggest ",
];

/// How far into a message such a task is looked for.
const TASK_WINDOW_CHARS: usize = 400;

/// Main or side.
pub fn classify(
    marks: &RequestMarks,
    default: DefaultTurnType,
    messages: &[Value],
    transcript: &Transcript,
    has_tools: bool,
) -> TurnKind {
    match marks.stated_type().as_deref() {
        Some("main") => return TurnKind::Main,
        Some("side") => return TurnKind::Side,
        _ => {}
    }
    if marks.side_model {
        return TurnKind::Side;
    }
    match default {
        DefaultTurnType::Main => TurnKind::Main,
        DefaultTurnType::Side => TurnKind::Side,
        DefaultTurnType::Auto if unattended(messages, transcript) => TurnKind::Side,
        DefaultTurnType::Auto if !has_tools && about_the_conversation(messages, transcript) => TurnKind::Side,
        DefaultTurnType::Auto => TurnKind::Main,
    }
}

fn unattended(messages: &[Value], transcript: &Transcript) -> bool {
    let runtime = Runtime::of_first_user(messages).or_else(|| Runtime::of_system(messages));
    let key = runtime.as_ref().and_then(Runtime::session_key);
    if key.is_some_and(|key| SIDE_KEYS.iter().any(|part| key.contains(part))) {
        return true;
    }
    transcript.last_user().filter(|last| last.author == Author::Machine).is_some_and(|last| {
        let text = message_text(&messages[last.position]);
        SIDE_EXCHANGES.iter().any(|start| spoken(&text).starts_with(start))
    })
}

fn about_the_conversation(messages: &[Value], transcript: &Transcript) -> bool {
    let system = transcript.entries.iter().find(|entry| entry.author == Author::System);
    [system, transcript.last_user()].into_iter().flatten().any(|entry| {
        let text = message_text(&messages[entry.position]);
        let end = text.char_indices().nth(TASK_WINDOW_CHARS).map_or(text.len(), |(end, _)| end);
        SIDE_TASKS.iter().any(|task| text[..end].contains(task))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CARRIER: &str = "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>>\nActive exec sessions: none\n<<<END_OPENCLAW_INTERNAL_CONTEXT>>>";

    fn kind(messages: &Value, has_tools: bool) -> TurnKind {
        marked(&RequestMarks::default(), DefaultTurnType::Auto, messages, has_tools)
    }

    fn marked(marks: &RequestMarks, default: DefaultTurnType, messages: &Value, has_tools: bool) -> TurnKind {
        let messages = messages.as_array().expect("an array literal");
        classify(marks, default, messages, &Transcript::read(messages), has_tools)
    }

    /// A conversation of an agent: system prompt, first user message with its Runtime line, then `more`.
    fn agent(session_key: &str, first: &str, more: &[(&str, &str)]) -> Value {
        let first =
            format!("{first}\n\nRuntime: agent=main | session={session_key} | sessionId=abc | host=h");
        let mut messages = vec![
            json!({"role": "system", "content": "You are a helper. Title sessions well."}),
            json!({"role": "user", "content": first}),
        ];
        messages.extend(more.iter().map(|(role, text)| json!({"role": role, "content": text})));
        Value::Array(messages)
    }

    #[test]
    fn a_main_turn_is_main_with_and_without_a_carrier() {
        assert_eq!(kind(&agent("agent:main:g1", "Make a note.", &[]), true), TurnKind::Main);
        assert_eq!(kind(&agent("agent:main:g1", "Make a note.", &[("user", CARRIER)]), true), TurnKind::Main);
        let rounds = [("assistant", "on it"), ("tool", "done"), ("user", CARRIER)];
        assert_eq!(kind(&agent("agent:main:explicit:s2", "Make a note.", &rounds), true), TurnKind::Main);
    }

    #[test]
    fn a_plain_chat_is_main() {
        assert_eq!(kind(&json!([{"role": "user", "content": "What is 3 times 4?"}]), false), TurnKind::Main);
    }

    #[test]
    fn a_compaction_summary_is_side() {
        let messages = json!([
            {"role": "system", "content": "You are a context summarization assistant. Read and sum up."},
            {"role": "user", "content": "<conversation>\n[User]: hello\n</conversation>"}]);
        assert_eq!(kind(&messages, false), TurnKind::Side);
    }

    #[test]
    fn a_memory_flush_is_side_by_its_key_and_by_its_text() {
        let key = "agent:main:internal-session-effects:ab-12";
        assert_eq!(
            kind(&agent(key, "Long story.", &[("assistant", "ok"), ("user", "go on")]), true),
            TurnKind::Side
        );
        let flush = [("assistant", "ok"), ("user", "Pre-compaction memory flush. Store what lasts.")];
        assert_eq!(kind(&agent("agent:main:g1", "Long story.", &flush), true), TurnKind::Side);
    }

    #[test]
    fn a_heartbeat_is_side_in_the_main_session_and_its_tool_rounds_too() {
        let beat = "Follow the heartbeat monitor scratch context when provided. Nothing to do: NO_REPLY.";
        assert_eq!(kind(&agent("agent:main:main", beat, &[("user", CARRIER)]), true), TurnKind::Side);
        let later =
            [("assistant", "hello"), ("user", beat), ("assistant", "look"), ("tool", "x"), ("user", CARRIER)];
        assert_eq!(kind(&agent("agent:main:main", "Hi", &later), true), TurnKind::Side);
        let after = [
            ("assistant", "hi"),
            ("user", "[OpenClaw heartbeat poll]"),
            ("assistant", "ok"),
            ("user", "more"),
        ];
        assert_eq!(kind(&agent("agent:main:main", "Hi", &after), true), TurnKind::Main);
    }

    #[test]
    fn a_cron_run_is_side() {
        assert_eq!(kind(&agent("agent:main:cron:77", "[cron:77 tidy] Tidy up.", &[]), true), TurnKind::Side);
    }

    #[test]
    fn a_subagent_is_side_and_its_result_in_the_parent_is_main() {
        let key = "agent:main:subagent:0f0f";
        assert_eq!(kind(&agent(key, "[Subagent Context] Find it.", &[]), true), TurnKind::Side);
        let announced =
            [("assistant", "sent"), ("user", "A background task completed. Result: 4. isUser=false")];
        assert_eq!(kind(&agent("agent:main:g1", "Find it.", &announced), true), TurnKind::Main);
    }

    #[test]
    fn a_btw_question_is_side() {
        let messages = json!([
            {"role": "system", "content": "You are answering an ephemeral /btw side question about this."},
            {"role": "user", "content": "Plan a trip."}, {"role": "assistant", "content": "Where to?"},
            {"role": "user", "content": "Answer this only.\n<btw_side_question>\n2+2?\n</btw_side_question>"}]);
        assert_eq!(kind(&messages, false), TurnKind::Side);
    }

    #[test]
    fn a_title_and_a_recap_are_side() {
        for task in ["Generate a concise session title (a few words).", "Write an Activity recap of the day."]
        {
            let messages =
                json!([{"role": "system", "content": task}, {"role": "user", "content": "Plan a trip."}]);
            assert_eq!(kind(&messages, false), TurnKind::Side, "{task}");
        }
    }

    #[test]
    fn a_bare_prompt_from_the_command_line_is_main() {
        assert_eq!(kind(&json!([{"role": "user", "content": "Say hello."}]), false), TurnKind::Main);
    }

    #[test]
    fn an_agent_that_mentions_titles_is_still_main() {
        let talk = [("assistant", "ok"), ("user", "Generate a concise session title for my diary")];
        assert_eq!(kind(&agent("agent:main:g1", "Hello", &talk), true), TurnKind::Main);
    }

    #[test]
    fn a_person_after_an_unattended_exchange_is_main() {
        let talk = [("assistant", "ok"), ("user", "[Mon 2026-11-23 08:01 UTC] thanks")];
        assert_eq!(kind(&agent("agent:main:g1", "[cron:1 x] was here", &talk), true), TurnKind::Main);
    }

    #[test]
    fn what_the_request_says_wins_over_the_reading_and_the_default() {
        let main = agent("agent:main:g1", "Hi", &[]);
        let side = agent("agent:main:cron:1", "[cron:1 x] Hi", &[]);
        let says = |kind: &str| RequestMarks { turn_type: Some(kind.to_owned()), ..RequestMarks::default() };
        assert_eq!(marked(&says("side"), DefaultTurnType::Main, &main, true), TurnKind::Side);
        assert_eq!(marked(&says("Main"), DefaultTurnType::Side, &side, true), TurnKind::Main);
        assert_eq!(marked(&says("other"), DefaultTurnType::Auto, &side, true), TurnKind::Side);
        let side_model = RequestMarks { side_model: true, ..RequestMarks::default() };
        assert_eq!(marked(&side_model, DefaultTurnType::Auto, &main, true), TurnKind::Side);
        assert_eq!(marked(&RequestMarks::default(), DefaultTurnType::Side, &main, true), TurnKind::Side);
        assert_eq!(marked(&RequestMarks::default(), DefaultTurnType::Main, &side, true), TurnKind::Main);
    }
}
