//! How tasks, actions and what comes of them are written between machines: the JSON that an environment server
//! (`openclaw-env-server`) and the kind [`remote`](crate::remote) say to each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{LazyLock, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::agent::ToolAgent;
use crate::world::{
    Action, Call, CallResult, ImageRef, Observation, Outcome, Part, Said, Shot, Split, StepVerdict, Task,
    Tool, Verdict, WorldError, text_of,
};

/// An environment in the list that `GET /environments` answers with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// As the server's file names it.
    pub name: String,
    /// Its kind there.
    pub kind: String,
    /// The most steps of an episode.
    pub steps: u32,
    /// The most that a step or the evaluation takes.
    pub patience_secs: f64,
    /// How a model is talked to about its tasks, by the name of the agent.
    #[serde(default = "tools")]
    pub agent: String,
    /// How many tasks there are.
    pub tasks: Counts,
    /// Who asks in it, where it is someone in particular.
    #[serde(default)]
    pub users: Vec<ListedUser>,
}

fn tools() -> String {
    ToolAgent::NAME.to_owned()
}

/// Someone whose tasks are told apart from those of others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListedUser {
    /// Names them.
    pub name: String,
    /// How many tasks they have.
    pub tasks: Counts,
}

/// How many tasks each split has; none where they have no end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// To train on.
    pub train: Option<u64>,
    /// To measure by.
    pub held_out: Option<u64>,
}

impl Counts {
    /// Of a split.
    pub fn of(&self, split: Split) -> Option<u64> {
        match split {
            Split::Train => self.train,
            Split::HeldOut => self.held_out,
        }
    }
}

/// A split by its name in a request: `train`, or `held-out` in whatever spelling.
pub fn split(name: &str) -> Option<Split> {
    match name {
        "train" => Some(Split::Train),
        "held-out" | "held_out" | "test" | "eval" | "validation" => Some(Split::HeldOut),
        _ => None,
    }
}

fn part(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::Image(image) => json!({
            "type": "image", "sha256": image.sha256, "width": image.width, "height": image.height,
            "media_type": image.media_type,
        }),
    }
}

fn parts(parts: &[Part]) -> Vec<Value> {
    parts.iter().map(part).collect()
}

/// A task.
pub fn task(task: &Task) -> Value {
    let said = |said: &Said| json!({"role": said.role, "parts": parts(&said.parts)});
    let tool = |tool: &Tool| json!({"name": tool.name, "description": tool.description, "parameters": tool.parameters});
    json!({
        "id": *task.id, "split": task.split.name(), "number": task.number,
        "opening": task.opening.iter().map(said).collect::<Vec<_>>(),
        "tools": task.tools.iter().map(tool).collect::<Vec<_>>(),
    })
}

/// What an agent sees. The state is text: not everyone reads 64 bits.
pub fn observation(seen: &Observation) -> Value {
    let result = |result: &CallResult| json!({"id": result.id, "parts": parts(&result.parts), "is_error": result.is_error});
    json!({
        "results": seen.results.iter().map(result).collect::<Vec<_>>(),
        "parts": parts(&seen.parts),
        "state": seen.state.map(|state| format!("{state:016x}")),
        "shot": seen.shot.as_ref().map(|shot| json!({"image": part(&Part::Image(shot.image.clone())), "point": shot.point})),
    })
}

/// What an agent sees, in words alone.
pub fn words(seen: &Observation) -> String {
    let results = seen.results.iter().map(|result| text_of(&result.parts));
    let beside = (!seen.parts.is_empty()).then(|| text_of(&seen.parts));
    results.chain(beside).collect::<Vec<_>>().join("\n")
}

/// What an agent does.
pub fn action(action: &Action) -> Value {
    let call = |call: &Call| json!({"id": call.id, "name": call.name, "arguments": call.arguments});
    match action {
        Action::Calls(calls) => json!({"tool_calls": calls.iter().map(call).collect::<Vec<_>>()}),
        Action::Text(text) => json!({"message": text}),
        Action::Malformed => json!({"malformed": true}),
    }
}

/// What came of a step.
pub fn outcome(outcome: &Outcome) -> Value {
    json!({
        "observation": observation(&outcome.observation),
        "reward": outcome.rule.map(|rule| rule.score),
        "rule": outcome.rule.map(|rule| json!({"score": rule.score, "reason": rule.reason})),
        "done": outcome.done,
    })
}

/// How a task came out. What is no finite number cannot be written, and is no verdict.
pub fn verdict(verdict: &Verdict) -> Result<Value, WorldError> {
    let wrong = verdict.numbers.iter().find(|(_, number)| !number.is_finite());
    match wrong {
        _ if !verdict.reward.is_finite() => {
            Err(WorldError::Invalid(format!("the reward is {}", verdict.reward)))
        }
        Some((name, number)) => Err(WorldError::Invalid(format!("{name} is {number}"))),
        None => Ok(json!({"reward": verdict.reward, "success": verdict.success, "numbers": verdict.numbers})),
    }
}

/// The share of a task that was done, 0 to 1: what clients of the published routes call its score.
pub fn score(verdict: &Verdict) -> f64 {
    verdict.numbers.get("rate").copied().unwrap_or(if verdict.success { 1.0 } else { 0.0 })
}

/// A fault of a world. `detail` is what [`read_fault`] needs of it.
pub fn fault(error: &WorldError) -> Value {
    let detail = match error {
        WorldError::NoTask(detail)
        | WorldError::Settings(detail)
        | WorldError::Refused(detail)
        | WorldError::Invalid(detail)
        | WorldError::Broken(detail) => Some(detail),
        WorldError::Interrupted => None,
    };
    json!({"ok": false, "error": error.to_string(), "code": error.name(), "detail": detail})
}

/// The fault that a reply tells of. Settings that a server cannot use are no fault of ours, and another try meets them again.
pub fn read_fault(reply: &Value) -> WorldError {
    let text = |name: &str| reply[name].as_str().map(str::to_owned);
    let detail = text("detail").or_else(|| text("error")).unwrap_or_else(|| "it does not say why".to_owned());
    match reply["code"].as_str() {
        Some("no_task") => WorldError::NoTask(detail),
        Some("settings" | "refused") => WorldError::Refused(detail),
        Some("interrupted") => WorldError::Interrupted,
        Some("invalid") => WorldError::Invalid(detail),
        Some("broken") | None => WorldError::Broken(detail),
        Some(code) => WorldError::Broken(format!("{code}: {detail}")),
    }
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum PartForm {
    Text { text: String },
    Image { sha256: String, width: u32, height: u32, media_type: String },
}

impl From<PartForm> for Part {
    fn from(form: PartForm) -> Self {
        match form {
            PartForm::Text { text } => Self::Text(text),
            PartForm::Image { sha256, width, height, media_type } => {
                Self::Image(ImageRef { sha256, width, height, media_type })
            }
        }
    }
}

fn of_forms(forms: Vec<PartForm>) -> Vec<Part> {
    forms.into_iter().map(Part::from).collect()
}

/// Reads a form; what is missing or of another type is named.
fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let key = error.path().to_string();
        if key == "." { error.inner().to_string() } else { format!("{key}: {}", error.inner()) }
    })
}

/// Reads a task.
pub fn read_task(value: Value) -> Result<Task, String> {
    #[derive(Deserialize)]
    struct SaidForm {
        role: String,
        parts: Vec<PartForm>,
    }
    #[derive(Deserialize)]
    struct ToolForm {
        name: String,
        description: String,
        parameters: Value,
    }
    #[derive(Deserialize)]
    struct Form {
        id: String,
        split: String,
        number: u64,
        opening: Vec<SaidForm>,
        tools: Vec<ToolForm>,
    }
    let form: Form = read(value)?;
    let opening = form.opening.into_iter().map(|said| {
        let role = ["system", "user", "assistant"].into_iter().find(|role| *role == said.role);
        let role = role.ok_or_else(|| format!("opening: \"{}\" is no role", said.role))?;
        Ok(Said { role, parts: of_forms(said.parts) })
    });
    let tool =
        |tool: ToolForm| Tool { name: tool.name, description: tool.description, parameters: tool.parameters };
    Ok(Task {
        id: form.id.into(),
        split: split(&form.split).ok_or_else(|| format!("split: \"{}\" is none", form.split))?,
        number: form.number,
        opening: opening.collect::<Result<_, String>>()?,
        tools: form.tools.into_iter().map(tool).collect(),
    })
}

/// Reads what an agent sees.
pub fn read_observation(value: Value) -> Result<Observation, String> {
    #[derive(Deserialize)]
    struct ResultForm {
        id: String,
        parts: Vec<PartForm>,
        is_error: bool,
    }
    #[derive(Deserialize)]
    struct Form {
        results: Vec<ResultForm>,
        parts: Vec<PartForm>,
        state: Option<String>,
        #[serde(default)]
        shot: Option<ShotForm>,
    }
    #[derive(Deserialize)]
    struct ShotForm {
        image: PartForm,
        point: Option<(f32, f32)>,
    }
    let form: Form = read(value)?;
    let shot = form.shot.map(|ShotForm { image, point }| match of_forms(vec![image]).pop() {
        Some(Part::Image(image)) => Ok(Shot { image, point }),
        _ => Err("shot: its image is none".to_owned()),
    });
    let result = |result: ResultForm| CallResult {
        id: result.id,
        parts: of_forms(result.parts),
        is_error: result.is_error,
    };
    let state =
        form.state.map(|state| u64::from_str_radix(&state, 16).map_err(|error| format!("state: {error}")));
    Ok(Observation {
        results: form.results.into_iter().map(result).collect(),
        parts: of_forms(form.parts),
        state: state.transpose()?,
        shot: shot.transpose()?,
    })
}

/// Reads what an agent does. Calls may have the form of chat completions, too.
pub fn read_action(value: Value) -> Result<Action, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Form {
        tool_calls: Option<Vec<Value>>,
        message: Option<String>,
        #[serde(default)]
        malformed: bool,
        /// Of clients that send some with each action.
        #[serde(default)]
        #[allow(dead_code, reason = "it is allowed, and of no use to a world")]
        metadata: Option<Map<String, Value>>,
    }
    let form: Form = read(value)?;
    match (form.tool_calls, form.message, form.malformed) {
        (Some(calls), None, false) if !calls.is_empty() => {
            let calls = calls.into_iter().enumerate().map(|(at, call)| {
                read_call(call, at).map_err(|problem| format!("tool_calls[{at}]: {problem}"))
            });
            Ok(Action::Calls(calls.collect::<Result<_, String>>()?))
        }
        (None, Some(message), false) => Ok(Action::Text(message)),
        (None, None, true) => Ok(Action::Malformed),
        _ => Err("an action is one of tool_calls, with one call at least, message and malformed".to_owned()),
    }
}

/// Reads a call; where it has no id, its place is its name.
pub fn read_call(value: Value, at: usize) -> Result<Call, String> {
    #[derive(Deserialize)]
    struct Form {
        id: Option<String>,
        name: String,
        #[serde(default)]
        arguments: Value,
    }
    let (outer_id, value) = match value.get("function") {
        Some(function) => (value["id"].as_str().map(str::to_owned), function.clone()),
        None => (None, value),
    };
    let form: Form = read(value)?;
    let arguments = match form.arguments {
        Value::Null => Map::new(),
        Value::Object(arguments) => arguments,
        Value::String(text) => serde_json::from_str(&text).map_err(|error| format!("arguments: {error}"))?,
        _ => return Err("arguments: no object".to_owned()),
    };
    let id = form.id.or(outer_id).unwrap_or_else(|| format!("call_{at}"));
    Ok(Call { id, name: form.name, arguments })
}

/// Reads what came of a step.
pub fn read_outcome(value: Value) -> Result<Outcome, String> {
    #[derive(Deserialize)]
    struct RuleForm {
        score: i8,
        reason: String,
    }
    #[derive(Deserialize)]
    struct Form {
        observation: Value,
        rule: Option<RuleForm>,
        done: bool,
    }
    let form: Form = read(value)?;
    let rule = form.rule.map(|rule| match rule.score {
        1 | -1 => Ok(StepVerdict { score: rule.score, reason: kept(&rule.reason) }),
        score => Err(format!("rule.score: {score} is neither 1 nor -1")),
    });
    let observation =
        read_observation(form.observation).map_err(|problem| format!("observation: {problem}"))?;
    Ok(Outcome { observation, rule: rule.transpose()?, done: form.done })
}

/// Reads how a task came out.
pub fn read_verdict(value: Value) -> Result<Verdict, String> {
    #[derive(Deserialize)]
    struct Form {
        reward: f32,
        success: bool,
        numbers: BTreeMap<String, f64>,
    }
    let form: Form = read(value)?;
    if !form.reward.is_finite() {
        return Err(format!("reward: {} is not finite", form.reward));
    }
    Ok(Verdict { reward: form.reward, success: form.success, numbers: form.numbers })
}

/// The most reasons of rules that are kept apart, and bytes of one.
const REASONS: usize = 1024;
const REASON_BYTES: usize = 200;

/// A reason as this process keeps it: a rule has few, and each stays for good. One too many, or too long, is not told.
fn kept(reason: &str) -> &'static str {
    static KEPT: LazyLock<Mutex<BTreeSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    match kept.get(reason) {
        Some(reason) => reason,
        None if kept.len() == REASONS || reason.len() > REASON_BYTES => "a reason of the environment's",
        None => {
            let reason: &'static str = Box::leak(reason.to_owned().into_boxed_str());
            kept.insert(reason);
            reason
        }
    }
}

/// A list of environments, as `GET /environments` answers.
pub fn read_listed(value: Value) -> Result<Vec<Listed>, String> {
    #[derive(Deserialize)]
    struct Form {
        environments: Vec<Listed>,
    }
    read::<Form>(value).map(|form| form.environments)
}

/// A name for a request that nobody else has.
pub(crate) fn fresh_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_image() -> impl Strategy<Value = ImageRef> {
        ("[0-9a-f]{64}", any::<u32>(), any::<u32>()).prop_map(|(sha256, width, height)| ImageRef {
            sha256,
            width,
            height,
            media_type: "image/png".into(),
        })
    }

    fn any_part() -> impl Strategy<Value = Part> {
        prop_oneof![".{0,20}".prop_map(Part::Text), any_image().prop_map(Part::Image)]
    }

    fn any_parts() -> impl Strategy<Value = Vec<Part>> {
        prop::collection::vec(any_part(), 0..3)
    }

    fn any_observation() -> impl Strategy<Value = Observation> {
        let result = ("[a-z]{1,5}", any_parts(), any::<bool>())
            .prop_map(|(id, parts, is_error)| CallResult { id, parts, is_error });
        let image = any_image();
        let point = prop::option::of((0.0f32..1.0, 0.0f32..1.0));
        let shot = prop::option::of((image, point).prop_map(|(image, point)| Shot { image, point }));
        (prop::collection::vec(result, 0..3), any_parts(), any::<Option<u64>>(), shot)
            .prop_map(|(results, parts, state, shot)| Observation { results, parts, state, shot })
    }

    fn any_action() -> impl Strategy<Value = Action> {
        let arguments = prop::collection::btree_map("[a-z]{1,3}", any::<i64>(), 0..3);
        let call = (".{1,5}", ".{0,9}", arguments).prop_map(|(id, name, arguments)| {
            let arguments = arguments.into_iter().map(|(name, value)| (name, json!(value))).collect();
            Call { id, name, arguments }
        });
        prop_oneof![
            prop::collection::vec(call, 1..3).prop_map(Action::Calls),
            ".{0,20}".prop_map(Action::Text),
            Just(Action::Malformed),
        ]
    }

    fn carried(value: Value) -> Value {
        serde_json::from_str(&value.to_string()).expect("it is JSON")
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(
            seen in any_observation(), action in any_action(), done in any::<bool>(), rule in any::<Option<bool>>(),
            reward in -1e6_f32..1e6, number in -1e300_f64..1e300, opening in any_parts(),
        ) {
            prop_assert_eq!(read_action(carried(super::action(&action))), Ok(action));
            let rule = rule.map(|good| if good { StepVerdict::good("it is right") } else { StepVerdict::bad("it is not") });
            let outcome = Outcome { observation: seen, rule, done };
            prop_assert_eq!(read_outcome(carried(super::outcome(&outcome))), Ok(outcome));
            let verdict = Verdict { reward, success: done, numbers: [("n".to_owned(), number)].into() };
            prop_assert_eq!(read_verdict(carried(super::verdict(&verdict).expect("it is finite"))), Ok(verdict));
            let tools = vec![Tool::of_texts("a", "b", &[("c", "d")])];
            let opening = vec![Said { role: "system", parts: opening }, Said::user("x")];
            let task = Task { id: "te1/train/7".into(), split: Split::HeldOut, number: u64::MAX, opening, tools };
            prop_assert_eq!(read_task(carried(super::task(&task))), Ok(task));
        }
    }

    #[test]
    fn faults_keep_what_they_are() {
        for error in [
            WorldError::NoTask("7".into()),
            WorldError::Refused("no bwrap".into()),
            WorldError::Interrupted,
            WorldError::Invalid("it failed".into()),
            WorldError::Broken("gone".into()),
        ] {
            assert_eq!(read_fault(&fault(&error)), error);
        }
        assert_eq!(
            read_fault(&fault(&WorldError::Settings("a: b".into()))),
            WorldError::Refused("a: b".into())
        );
        assert!(read_fault(&json!({"ok": false, "error": "x", "code": "ODD"})).may_pass());
    }

    #[test]
    fn a_verdict_that_is_no_number_is_none() {
        let verdict = |reward, number| Verdict {
            reward,
            numbers: [("n".to_owned(), number)].into(),
            ..Verdict::default()
        };
        assert!(matches!(super::verdict(&verdict(f32::NAN, 0.0)), Err(WorldError::Invalid(_))));
        assert!(matches!(super::verdict(&verdict(0.0, f64::INFINITY)), Err(WorldError::Invalid(_))));
        assert!(read_verdict(json!({"reward": null, "success": true, "numbers": {}})).is_err());
        assert!(read_verdict(json!({"reward": 1e39, "success": true, "numbers": {}})).is_err());
    }

    #[test]
    fn calls_may_have_the_form_of_chat_completions() {
        let call = json!({"id": "c", "type": "function", "function": {"name": "bash", "arguments": "{\"command\": \"ls\"}"}});
        let read = read_action(json!({"tool_calls": [call]})).expect("an action");
        let Action::Calls(calls) = read else { panic!("not calls: {read:?}") };
        assert_eq!((calls[0].id.as_str(), calls[0].text("command")), ("c", Some("ls")));
        for (bad, says) in [
            (json!({}), "an action is one of"),
            (json!({"tool_calls": []}), "an action is one of"),
            (json!({"message": "a", "malformed": true}), "an action is one of"),
            (json!({"tool_calls": [{"arguments": {}}]}), "tool_calls[0]: missing field `name`"),
            (json!({"tool_calls": [{"name": "a", "arguments": 3}]}), "tool_calls[0]: arguments"),
            (json!({"mesage": "a"}), "unknown field `mesage`"),
        ] {
            let said = read_action(bad.clone()).expect_err("it is none");
            assert!(said.contains(says), "{bad}: {said}");
        }
    }
}
