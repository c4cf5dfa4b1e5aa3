//! A world that is a session of OpenEnv: its connection.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use super::{
    Hands, Reward, Shared, Words,
    socket::{Answer, Door, Socket},
};
use crate::{
    shown::cut,
    stop::Stop,
    world::{
        Action, Call, CallResult, Interrupt, Observation, Outcome, StepVerdict, Task, Verdict, World,
        WorldError,
    },
};

/// A world.
pub(super) struct Seat {
    shared: Arc<Shared>,
    door: Arc<Door>,
    stop: Arc<Stop>,
    session: Option<Session>,
}

struct Session {
    socket: Arc<Socket>,
    steps: u32,
    /// Those that were given.
    rewards: Vec<f64>,
    /// The environment has said so.
    done: bool,
}

/// What came of an action.
struct Came {
    text: String,
    is_error: bool,
}

impl Seat {
    pub(super) fn new(shared: Arc<Shared>, door: Arc<Door>) -> Self {
        Self { shared, door, stop: Stop::new(), session: None }
    }

    /// Asks something, until there is an answer or the world is interrupted.
    fn wait_for<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, WorldError>> + Send + 'static,
    ) -> Result<T, WorldError> {
        let stop = self.stop.clone();
        self.door.io.wait_for(async move {
            tokio::select! {
                answer = work => answer,
                () = stop.wanted() => Err(WorldError::Interrupted),
            }
        })
    }

    fn session(&mut self) -> Result<&mut Session, WorldError> {
        self.session
            .as_mut()
            .ok_or_else(|| WorldError::Broken("no task was begun, or its session is over".to_owned()))
    }

    fn ask(&mut self, message: Value, until: Instant) -> Result<Answer, WorldError> {
        let socket = self.session()?.socket.clone();
        let answer = self.wait_for(async move { socket.ask(message, "observation", until).await });
        // An answer that nobody waits for any more would be taken for the next one's.
        if answer.is_err() {
            self.session = None;
        }
        answer
    }

    fn until(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.shared.settings.step_secs)
    }

    fn call(&mut self, call: &Call, until: Instant) -> Result<Came, WorldError> {
        let known = self.shared.clone();
        let action = match &known.known()?.hands {
            Hands::Action { .. } if call.name == known.settings.tool => Value::Object(call.arguments.clone()),
            Hands::Mcp(tools) if tools.iter().any(|tool| tool.name == call.name) => {
                json!({"type": "call_tool", "tool_name": call.name, "arguments": call.arguments})
            }
            _ => return Ok(Came { text: format!("There is no tool {}.", call.name), is_error: true }),
        };
        self.act(action, until)
    }

    fn act(&mut self, action: Value, until: Instant) -> Result<Came, WorldError> {
        let limit = self.shared.settings.output_bytes;
        if self.session()?.done {
            return Ok(Came { text: "The task is over.".to_owned(), is_error: true });
        }
        let data = match self.ask(json!({"type": "step", "data": action}), until)? {
            Answer::Data(data) => data,
            Answer::Refused(why) => return Ok(Came { text: cut(&why, limit), is_error: true }),
        };
        let session = self.session()?;
        session.steps += 1;
        match &data["reward"] {
            Value::Null => {}
            Value::Bool(reward) => session.rewards.push(f64::from(u8::from(*reward))),
            reward => match reward.as_f64().filter(|reward| (*reward as f32).is_finite()) {
                Some(reward) => session.rewards.push(reward),
                None => return Err(WorldError::Invalid(format!("the reward of a step is {reward}"))),
            },
        }
        session.done = data["done"].as_bool().unwrap_or_default();
        let (text, is_error) =
            called(&data["observation"]).unwrap_or_else(|| (words(&data["observation"]), false));
        Ok(Came { text: cut(&text, limit), is_error })
    }

    /// What words are, where they are an action.
    fn spoken(&self, text: &str) -> Result<Option<Value>, WorldError> {
        match &self.shared.known()?.hands {
            Hands::Action { only_text: Some(field), .. } if self.shared.settings.words == Words::Act => {
                Ok(Some(Value::Object(Map::from_iter([(field.clone(), text.into())]))))
            }
            _ => Ok(None),
        }
    }
}

/// An observation in words: its one text, or its fields. What says nothing is left out.
fn words(observation: &Value) -> String {
    let Value::Object(fields) = observation else { return observation.to_string() };
    let says = |name: &str, value: &Value| match value {
        Value::Null => false,
        Value::Object(fields) => !(name == "metadata" && fields.is_empty()),
        _ => true,
    };
    let fields: Map<String, Value> = fields
        .iter()
        .filter(|(name, value)| says(name, value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    match fields.values().collect::<Vec<_>>().as_slice() {
        [Value::String(text)] => text.clone(),
        _ => Value::Object(fields).to_string(),
    }
}

/// What a tool gave, and whether it failed, where the observation is that of a tool.
fn called(observation: &Value) -> Option<(String, bool)> {
    observation.get("tool_name")?;
    if let Some(error) = observation["error"].as_object() {
        let message = error.get("message").and_then(Value::as_str);
        return Some((message.unwrap_or("It failed.").to_owned(), true));
    }
    let result = observation["result"].as_object()?;
    let content = result.get("content")?.as_array()?;
    let said = |part: &Value| part["text"].as_str().map_or_else(|| part.to_string(), str::to_owned);
    let text = content.iter().map(said).collect::<Vec<_>>().join("\n");
    let failed = ["is_error", "isError"].iter().any(|name| result.get(*name) == Some(&Value::Bool(true)));
    Some((text, failed))
}

/// What rewards of a step say of it: nothing where none was given, or where they are worth nothing.
fn rule(rewards: &[f64]) -> Option<StepVerdict> {
    match rewards.iter().sum::<f64>() {
        sum if sum > 0.0 => Some(StepVerdict::good("the environment gives a reward")),
        sum if sum < 0.0 => Some(StepVerdict::bad("the environment takes a reward")),
        _ => None,
    }
}

impl World for Seat {
    fn reset(&mut self, task: &Task) -> Result<Observation, WorldError> {
        self.close();
        let stop = self.stop.clone();
        let _running = stop.begin();
        let message = json!({"type": "reset", "data": self.shared.reset(task.split, task.number)});
        let (door, until) = (self.door.clone(), Instant::now() + self.shared.wait());
        let within = Duration::from_secs(self.shared.settings.step_secs);
        let (socket, answer) =
            self.wait_for(async move { door.begin(&message, "observation", until, within).await })?;
        match answer {
            Answer::Data(data) => {
                let socket = Arc::new(socket);
                self.session = Some(Session { socket, steps: 0, rewards: Vec::new(), done: false });
                Ok(Observation::text(cut(&words(&data["observation"]), self.shared.settings.output_bytes)))
            }
            Answer::Refused(why) => Err(WorldError::Broken(format!("reset: {why}"))),
        }
    }

    fn step(&mut self, action: &Action) -> Result<Outcome, WorldError> {
        let stop = self.stop.clone();
        let _running = stop.begin();
        let until = self.until();
        let before = self.session()?.rewards.len();
        let mut outcome = Outcome::default();
        match action {
            Action::Calls(calls) => {
                for call in calls {
                    let Came { text, is_error } = self.call(call, until)?;
                    let result = CallResult { is_error, ..CallResult::text(call, text) };
                    outcome.observation.results.push(result);
                }
            }
            Action::Text(said) => match self.spoken(said)? {
                Some(action) => outcome.observation = Observation::text(self.act(action, until)?.text),
                None => outcome.done = true,
            },
            Action::Malformed => {
                outcome.rule = Some(StepVerdict::bad("neither a call nor an answer"));
                return Ok(outcome);
            }
        }
        let session = self.session()?;
        outcome.done |= session.done;
        outcome.rule = rule(&session.rewards[before..]);
        Ok(outcome)
    }

    fn evaluate(&mut self) -> Result<Verdict, WorldError> {
        let settings = self.shared.settings.clone();
        let session = self.session()?;
        let (sum, last) =
            (session.rewards.iter().fold(0.0, |sum, reward| sum + reward), session.rewards.last().copied());
        let reward = match (last, session.done) {
            (Some(last), _) if settings.reward == Reward::Last => last,
            (Some(_), _) => sum,
            (None, false) => settings.unfinished,
            (None, true) => return Err(WorldError::Invalid("the environment gives no reward".to_owned())),
        };
        if !(reward as f32).is_finite() {
            return Err(WorldError::Invalid(format!("the rewards come to {reward}")));
        }
        let numbers = [
            ("steps", f64::from(session.steps)),
            ("rewards", session.rewards.len() as f64),
            ("sum", sum),
            ("done", f64::from(u8::from(session.done))),
        ];
        Ok(Verdict {
            reward: reward as f32,
            success: reward > settings.success_above,
            numbers: numbers.map(|(name, number)| (name.to_owned(), number)).into(),
        })
    }

    fn close(&mut self) {
        self.session = None;
    }

    fn interrupt(&self) -> Interrupt {
        let stop = self.stop.clone();
        Arc::new(move || stop.interrupt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_is_its_one_text_or_its_fields() {
        assert_eq!(words(&json!({"text": "a cat", "metadata": {}, "hint": null})), "a cat");
        assert_eq!(
            words(&json!({"text": "a", "n": 1, "metadata": {"b": 2}})),
            r#"{"text":"a","n":1,"metadata":{"b":2}}"#
        );
        assert_eq!(words(&json!([1, 2])), "[1,2]");
    }

    #[test]
    fn what_a_tool_gave_is_its_words() {
        let gave = json!({"tool_name": "say", "metadata": {}, "error": null, "result": {
            "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "you"}], "is_error": false,
        }});
        assert_eq!(called(&gave), Some(("hi\nyou".to_owned(), false)));
        let error = json!({"error_type": "tool_not_found", "message": "Unknown tool: 'nay'"});
        let failed = json!({"tool_name": "nay", "result": null, "error": error});
        assert_eq!(called(&failed), Some(("Unknown tool: 'nay'".to_owned(), true)));
        assert_eq!(called(&json!({"text": "a"})), None);
    }

    #[test]
    fn rewards_are_a_verdict_on_a_step_only_where_there_are_some() {
        assert_eq!(rule(&[]), None);
        assert_eq!(rule(&[0.0]), None);
        assert_eq!(rule(&[0.5, -0.25]).map(|rule| rule.score), Some(1));
        assert_eq!(rule(&[-1.0]).map(|rule| rule.score), Some(-1));
    }
}
