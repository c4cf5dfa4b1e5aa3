//! The steps of a trajectory: what was said to the agent, what it replied, and what became of that.

use openclaw_actors::conversation;
use openclaw_journal::{NextState, Story, TurnKind, Verdict, Vote};
use openclaw_model::{FinishReason, exact_json};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    export::{calls, sessions::Planned, when::rfc3339},
    page::fate::Fate,
};

/// JSON has no infinity; this is how OpenAI writes "never".
const LEAST_LOGPROB: f32 = -9999.0;

/// A step. Names are the format's.
#[derive(Serialize)]
pub struct Step {
    pub step_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    source: Source,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observation: Option<Observation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<Metrics>,
    /// Left out where it is not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_copied_context: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    llm_call_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra: Option<Extra>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    System,
    User,
    Agent,
}

#[derive(Serialize)]
struct ToolCall {
    tool_call_id: String,
    function_name: String,
    /// An object.
    #[serde(serialize_with = "exact_json::as_written")]
    arguments: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra: Option<Unparsed>,
}

/// Arguments that are no JSON object.
#[derive(Serialize)]
struct Unparsed {
    arguments: String,
}

#[derive(Default, Serialize)]
struct Observation {
    results: Vec<ToolResult>,
}

#[derive(Serialize)]
struct ToolResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    source_call_id: Option<String>,
    content: String,
}

#[derive(Serialize)]
struct Metrics {
    prompt_tokens: usize,
    completion_tokens: usize,
    prompt_token_ids: Vec<u32>,
    completion_token_ids: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<f32>>,
}

#[derive(Serialize)]
struct Extra {
    turn_id: String,
    kind: TurnKind,
    /// Number of the main turn in its session.
    index: u32,
    policy_version: u64,
    temperature: f32,
    finish_reason: FinishReason,
    trainable: bool,
    weight: u8,
    reward: Option<i8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    votes: Vec<VoteSaid>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hints: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    teacher: Option<Teacher>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_state: Option<NextState>,
    fate: Fate,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
struct VoteSaid {
    vote: Vote,
    answer: Option<String>,
}

/// What the teacher made of the reply's tokens.
#[derive(Serialize)]
struct Teacher {
    hint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<f32>>,
    /// The policy's own, by the same code.
    #[serde(skip_serializing_if = "Option::is_none")]
    old_logprobs: Option<Vec<f32>>,
}

impl Step {
    fn new(source: Source, message: String) -> Self {
        Self {
            step_id: 0,
            timestamp: None,
            source,
            message,
            reasoning_content: None,
            tool_calls: Vec::new(),
            observation: None,
            metrics: None,
            is_copied_context: false,
            llm_call_count: None,
            extra: None,
        }
    }
}

/// A message of a request; a tool's result that no step called for is the system's.
pub fn heard(message: &Value, is_copied: bool) -> Step {
    let text = message["content"].as_str().unwrap_or_default().to_owned();
    let step = match message["role"].as_str() {
        Some("system") => Step::new(Source::System, text),
        Some("assistant") => said(message, ""),
        Some("tool") => {
            let observation =
                Observation { results: vec![ToolResult { source_call_id: None, content: text }] };
            Step { observation: Some(observation), ..Step::new(Source::System, String::new()) }
        }
        _ => Step::new(Source::User, text),
    };
    Step { is_copied_context: is_copied, ..step }
}

/// The reply of a turn, and what is known of it.
pub fn replied(story: &Story, planned: &Planned) -> Step {
    let row = &story.row;
    let completion = &row.turn.completion;
    let metrics = Metrics {
        prompt_tokens: completion.prompt_ids.len(),
        completion_tokens: completion.response_ids.len(),
        prompt_token_ids: completion.prompt_ids.clone(),
        completion_token_ids: completion.response_ids.clone(),
        logprobs: finite(&completion.rollout_logprobs),
    };
    Step {
        timestamp: Some(rfc3339(row.completed)),
        metrics: Some(metrics),
        llm_call_count: Some(1),
        extra: Some(extra(story, planned)),
        ..said(&conversation::reply(&row.turn), &row.turn.id.0)
    }
}

fn extra(story: &Story, planned: &Planned) -> Extra {
    let row = &story.row;
    let (turn, completion) = (&row.turn, &row.turn.completion);
    let (reward, rule, votes) = match row.verdict.clone() {
        Some(Verdict { reward, votes, rule }) => (reward, rule, votes),
        None => (None, None, Vec::new()),
    };
    let mut answers = row.answers.iter().cloned();
    let said = |vote| VoteSaid { vote, answer: answers.next().flatten() };
    Extra {
        turn_id: turn.id.to_string(),
        kind: turn.kind,
        index: turn.index,
        policy_version: completion.policy_version,
        temperature: completion.temperature,
        finish_reason: completion.finish_reason,
        trainable: turn.trainable,
        weight: u8::from(planned.is_learnt()),
        reward,
        rule,
        votes: votes.into_iter().map(said).collect(),
        hints: row.hints.clone(),
        teacher: row.signal.as_ref().map(|signal| Teacher {
            hint: signal.hint.clone(),
            logprobs: finite(&signal.logprobs),
            old_logprobs: finite(&signal.old_logprobs),
        }),
        next_state: row.next_state.clone(),
        fate: Fate::of(story),
        reason: row.reason.clone(),
    }
}

/// An assistant message. Calls without an id get one of `turn`.
fn said(message: &Value, turn: &str) -> Step {
    let calls = message["tool_calls"].as_array().into_iter().flatten().enumerate();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let call = |(place, call): (usize, &Value)| {
        let function = &call["function"];
        let arguments = match &function["arguments"] {
            Value::String(text) => exact_json::read(text).ok(),
            other => Some(other.clone()),
        };
        let none = || Value::Object(Map::new());
        let (arguments, extra) = match (arguments, &function["arguments"]) {
            (Some(arguments @ Value::Object(_)), _) => (arguments, None),
            (_, Value::String(text)) => (none(), Some(Unparsed { arguments: text.clone() })),
            _ => (none(), None),
        };
        let tool_call_id = calls::id(call, place, turn);
        ToolCall { tool_call_id, function_name: text(&function["name"]), arguments, extra }
    };
    let reasoning = text(&message["reasoning_content"]);
    Step {
        reasoning_content: Some(reasoning).filter(|reasoning| !reasoning.is_empty()),
        tool_calls: calls.map(call).collect(),
        ..Step::new(Source::Agent, text(&message["content"]))
    }
}

/// Takes over the ids of calls from the message that a client made of the step.
pub fn use_ids(step: &mut Step, message: &Value) {
    for (call, theirs) in step.tool_calls.iter_mut().zip(calls::given_by(message)) {
        if let Some(id) = theirs {
            call.tool_call_id = id.to_owned();
        }
    }
}

/// Adds a tool's result to the step that called for it; false where `message` is none, or nothing called for it.
pub fn add_result(step: Option<&mut Step>, message: &Value) -> bool {
    let Some(step) = step.filter(|step| step.source == Source::Agent && message["role"] == "tool") else {
        return false;
    };
    let calls = || step.tool_calls.iter().map(|call| &call.tool_call_id);
    let source_call_id = match message["tool_call_id"].as_str() {
        Some(id) => calls().find(|call| *call == id).cloned(),
        None => None,
    };
    let content = message["content"].as_str().unwrap_or_default().to_owned();
    let observation = step.observation.get_or_insert_default();
    observation.results.push(ToolResult { source_call_id, content });
    true
}

/// None where one is no number.
fn finite(logprobs: &[f32]) -> Option<Vec<f32>> {
    let finite = |logprob: &f32| (!logprob.is_nan()).then_some(logprob.clamp(LEAST_LOGPROB, f32::MAX));
    logprobs.iter().map(finite).collect()
}
