//! A new environment in one file, and a policy that plays it: `cargo run -p openclaw-environments --example higher_lower`.
//!
//! A number has to be guessed. The tool `guess` says whether it is higher or lower; who knows it says it. To make such a
//! file a kind that a config can name, put it beside `calculator` and add its `KIND` to the registry.

use std::{error::Error, ops::RangeInclusive, sync::Arc, time::Duration};

use openclaw_environments::{
    agent::{Agent, Parsed, Reply, ReplyCall, ToolAgent},
    dice::Dice,
    world::{
        Action, Call, CallResult, Environment, Interrupt, Observation, Outcome, Said, Spec, Split,
        StepVerdict, Task, Tool, Verdict, World, WorldError, text_of,
    },
};
use serde_json::{Value, json};

/// What may have to be guessed.
const NUMBERS: RangeInclusive<i64> = 1..=100;

/// The environment: it has tasks and opens worlds.
struct HigherLower {
    spec: Spec,
}

impl HigherLower {
    fn new() -> Self {
        let patience = Duration::from_secs(5);
        Self { spec: Spec { kind: "higher_lower", steps: 10, patience } }
    }
}

/// The number of a task. A task is its split and its number, and no task is of both splits.
fn secret(split: Split, number: u64) -> i64 {
    let seed = number << 1 | u64::from(split == Split::HeldOut);
    Dice::new(seed).between(*NUMBERS.start(), *NUMBERS.end())
}

impl Environment for HigherLower {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Tasks are made from their numbers, without an end.
    fn tasks(&self, _: Split) -> Option<u64> {
        None
    }

    fn task(&self, split: Split, number: u64) -> Result<Task, WorldError> {
        let told = "I think of a number from 1 to 100. Guess it with the tool, then say it.";
        Ok(Task {
            id: format!("{split}/{number}").into(),
            split,
            number,
            opening: vec![Said::user(told)],
            tools: vec![Tool {
                name: "guess".into(),
                description: "Says whether the number is higher or lower".into(),
                parameters: json!({
                    "type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"],
                }),
            }],
        })
    }

    fn open(&self) -> Result<Box<dyn World>, WorldError> {
        Ok(Box::new(Game { secret: 0, open: NUMBERS, said: None }))
    }
}

/// The world: one game at a time.
struct Game {
    secret: i64,
    /// What the guesses so far have left open.
    open: RangeInclusive<i64>,
    said: Option<i64>,
}

impl World for Game {
    fn reset(&mut self, task: &Task) -> Result<Observation, WorldError> {
        *self = Self { secret: secret(task.split, task.number), open: NUMBERS, said: None };
        Ok(Observation::default())
    }

    fn step(&mut self, action: &Action) -> Result<Outcome, WorldError> {
        match action {
            Action::Calls(calls) => Ok(self.guesses(calls)),
            Action::Text(text) => Ok(self.says(text)),
            Action::Malformed => {
                let rule = Some(StepVerdict::bad("neither a guess nor an answer"));
                Ok(Outcome { rule, ..Outcome::default() })
            }
        }
    }

    fn evaluate(&mut self) -> Result<Verdict, WorldError> {
        let success = self.said == Some(self.secret);
        Ok(Verdict { reward: if success { 1.0 } else { -1.0 }, success, ..Verdict::default() })
    }

    fn close(&mut self) {}

    /// Nothing here takes so long that it would have to be ended.
    fn interrupt(&self) -> Interrupt {
        Arc::new(|| {})
    }
}

impl Game {
    fn guesses(&mut self, calls: &[Call]) -> Outcome {
        let before = self.open.clone();
        let results = calls.iter().map(|call| self.guess(call)).collect();
        let rule = match before == self.open {
            true => StepVerdict::bad("the guess tells nothing new"),
            false => StepVerdict::good("the guess leaves less open"),
        };
        let observation = Observation { results, ..Observation::default() };
        Outcome { observation, rule: Some(rule), done: false }
    }

    /// What an agent does wrong is a result that says so, and no error of the world.
    fn guess(&mut self, call: &Call) -> CallResult {
        if call.name != "guess" {
            return CallResult::error(call, format!("There is no tool {}.", call.name));
        }
        let Some(number) = call.arguments.get("number").and_then(Value::as_i64) else {
            return CallResult::error(call, "number has to be a whole number");
        };
        let (low, high) = (*self.open.start(), *self.open.end());
        if self.secret > number {
            self.open = low.max(number + 1)..=high;
            CallResult::text(call, "higher")
        } else if self.secret < number {
            self.open = low..=high.min(number - 1);
            CallResult::text(call, "lower")
        } else {
            self.open = number..=number;
            CallResult::text(call, "that is it")
        }
    }

    fn says(&mut self, text: &str) -> Outcome {
        self.said = text.trim().parse().ok();
        let rule = match (self.said == Some(self.secret), self.open == (self.secret..=self.secret)) {
            (true, true) => StepVerdict::good("says what the guesses have shown"),
            (true, false) => StepVerdict::bad("was lucky"),
            (false, _) => StepVerdict::bad("says another number"),
        };
        Outcome { rule: Some(rule), done: true, ..Outcome::default() }
    }
}

/// A policy without a model: it halves what is open. Of what it is told, it reads the last message.
struct Halving {
    open: RangeInclusive<i64>,
    guessed: i64,
}

impl Halving {
    fn reply(&mut self, messages: &[Value]) -> Reply {
        let last = messages.last().and_then(|message| message["content"].as_str()).unwrap_or_default();
        let (low, high) = (*self.open.start(), *self.open.end());
        match last {
            "higher" => self.open = self.guessed + 1..=high,
            "lower" => self.open = low..=self.guessed - 1,
            "that is it" => return Reply { text: self.guessed.to_string(), ..Reply::default() },
            _ => {}
        }
        self.guessed = self.open.start().midpoint(*self.open.end());
        let arguments = json!({"number": self.guessed}).to_string();
        Reply {
            calls: vec![ReplyCall { id: "1".into(), name: "guess".into(), arguments }],
            ..Reply::default()
        }
    }
}

/// Plays a task to its end: what the agent is told, what the policy replies, and what comes of it, in turn. A model would
/// find its own replies among the messages, too; this policy does without.
#[allow(clippy::print_stdout, reason = "it is what this program is for")]
fn play(environment: &dyn Environment, number: u64) -> Result<Verdict, WorldError> {
    let task = environment.task(Split::Train, number)?;
    let mut world = environment.open()?;
    let mut agent = ToolAgent::default();
    let mut policy = Halving { open: NUMBERS, guessed: 0 };

    println!("{}: {}", task.id, text_of(&task.opening[0].parts));
    let first = world.reset(&task)?;
    let mut messages = agent.start(&task, &first.parts);
    for _ in 0..environment.spec().steps {
        let reply = policy.reply(&messages);
        let said = reply.calls.first().map_or(&reply.text, |call| &call.arguments).clone();
        let outcome = match agent.parse(&reply) {
            Parsed::Action(action) => {
                let outcome = world.step(&action)?;
                messages.extend(agent.observe(&outcome));
                outcome
            }
            Parsed::Malformed(told) => {
                messages.extend(told);
                world.step(&Action::Malformed)?
            }
        };
        let seen: Vec<String> = outcome.observation.results.iter().map(|seen| text_of(&seen.parts)).collect();
        let rule = outcome.rule.map(|rule| format!("{:+} {}", rule.score, rule.reason)).unwrap_or_default();
        println!("  {said:16} {:12} {rule}", seen.join(", "));
        if outcome.done {
            break;
        }
    }
    world.evaluate()
}

#[allow(clippy::print_stdout, reason = "it is what this program is for")]
fn main() -> Result<(), Box<dyn Error>> {
    let environment = HigherLower::new();
    for number in 0..3 {
        let verdict = play(&environment, number)?;
        println!("  reward {:+}, success {}\n", verdict.reward, verdict.success);
    }
    Ok(())
}
