//! Sums for a model that cannot do them in its head: it calls a calculator and says the result. Nothing is run but our own
//! arithmetic, so it needs no sandbox. The smallest environment there is: the one to read first.

mod arithmetic;

use std::{sync::Arc, time::Duration};

use serde::Deserialize;

use crate::{
    dice::Dice,
    registry::{Kind, settings},
    world::{
        Action, CallResult, Environment, Interrupt, Observation, Outcome, Said, Spec, Split, StepVerdict,
        Task, Tool, Verdict, World, WorldError,
    },
};

/// In the registry.
pub const KIND: Kind = Kind {
    name: "calculator",
    about: "sums that want a call of a calculator and its result",
    make: |table| Ok(Arc::new(Calculator::new(settings(table)?)?)),
};

const TOOL: &str = "calculator";

/// `[environments.NAME]` of this kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Least and most digits of a number, 1 to 9.
    pub digits: (u32, u32),
    /// What may stand between two numbers: `+`, `-`, `*`.
    pub operators: Vec<char>,
    /// Numbers in a sum, 2 to 6.
    pub numbers: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { digits: (2, 3), operators: vec!['+', '-', '*'], numbers: 2 }
    }
}

const TRAIN: &[&str] = &[
    "Use the calculator for {}.",
    "Please calculate {} with the tool.",
    "calculator: {}",
    "What is {}? Use the calculator.",
    "Calculate {}.",
    "I need the result of {}.",
];
const HELD_OUT: &[&str] = &["What does {} come to?", "Work out {} with the calculator.", "How much is {}?"];

/// The environment.
struct Calculator {
    spec: Spec,
    settings: Settings,
}

impl Calculator {
    fn new(settings: Settings) -> Result<Self, WorldError> {
        let refuse = |message: String| Err(WorldError::Settings(message));
        let (low, high) = settings.digits;
        if !(1..=9).contains(&low) || !(low..=9).contains(&high) {
            return refuse(format!("digits: [{low}, {high}] is not from 1 to 9, the lesser first"));
        }
        if let Some(other) = settings.operators.iter().find(|operator| !"+-*".contains(**operator)) {
            return refuse(format!("operators: {other:?} is not one of +, -, *"));
        }
        if settings.operators.is_empty() {
            return refuse("operators: is empty".to_owned());
        }
        if !(2..=6).contains(&settings.numbers) {
            return refuse(format!("numbers: {} is not from 2 to 6", settings.numbers));
        }
        let spec = Spec { kind: KIND.name, steps: 4, patience: Duration::from_secs(5) };
        Ok(Self { spec, settings })
    }

    fn sum(&self, split: Split, number: u64) -> (String, String) {
        let mut dice = Dice::new(split.seed(number));
        let wording = dice.pick(if split == Split::Train { TRAIN } else { HELD_OUT });
        let mut sum = String::new();
        for at in 0..self.settings.numbers {
            if at > 0 {
                let operator = self.settings.operators[dice.index(self.settings.operators.len())];
                sum.push_str(&format!(" {operator} "));
            }
            let digits = dice.between(self.settings.digits.0.into(), self.settings.digits.1.into());
            let least = if digits == 1 { 1 } else { 10_i64.pow(digits as u32 - 1) };
            sum.push_str(&dice.between(least, 10_i64.pow(digits as u32) - 1).to_string());
        }
        (wording.replace("{}", &sum), sum)
    }
}

impl Environment for Calculator {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn tasks(&self, _: Split) -> Option<u64> {
        None
    }

    fn task(&self, split: Split, number: u64) -> Result<Task, WorldError> {
        Ok(Task {
            id: format!("{split}/{number}").into(),
            split,
            number,
            opening: vec![Said::user(self.sum(split, number).0)],
            tools: vec![Tool::of_texts(TOOL, "Calculate an expression", &[("expression", "")])],
        })
    }

    fn open(&self) -> Result<Box<dyn World>, WorldError> {
        let calculator = Self { spec: self.spec.clone(), settings: self.settings.clone() };
        Ok(Box::new(Desk { calculator, result: 0, shown: false, said: None }))
    }
}

/// One world.
struct Desk {
    calculator: Calculator,
    result: i128,
    /// The calculator has shown the result.
    shown: bool,
    said: Option<String>,
}

impl World for Desk {
    fn reset(&mut self, task: &Task) -> Result<Observation, WorldError> {
        let (_, sum) = self.calculator.sum(task.split, task.number);
        self.result = arithmetic::value(&sum).expect("a sum of ours has a value");
        (self.shown, self.said) = (false, None);
        Ok(Observation::default())
    }

    fn step(&mut self, action: &Action) -> Result<Outcome, WorldError> {
        let calls = match action {
            Action::Calls(calls) => calls,
            Action::Text(said) => {
                self.said = Some(said.clone());
                let rule = match (self.is_right(), self.shown) {
                    (true, true) => StepVerdict::good("says what the calculator has shown"),
                    (true, false) => StepVerdict::bad("says a result without the calculator"),
                    (false, _) => StepVerdict::bad("says no result, or another one"),
                };
                return Ok(Outcome { rule: Some(rule), done: true, ..Outcome::default() });
            }
            Action::Malformed => {
                let rule = Some(StepVerdict::bad("neither a call nor an answer"));
                return Ok(Outcome { rule, ..Outcome::default() });
            }
        };
        let before = self.shown;
        let results = calls.iter().map(|call| {
            if call.name != TOOL {
                return CallResult::error(call, format!("There is no tool {}.", call.name));
            }
            match call.text("expression").ok_or("missing argument expression").and_then(arithmetic::value) {
                Ok(value) => {
                    self.shown |= value == self.result;
                    CallResult::text(call, value.to_string())
                }
                Err(problem) => CallResult::error(call, problem),
            }
        });
        let results: Vec<CallResult> = results.collect();
        let rule = match (self.shown, before) {
            (true, false) => StepVerdict::good("the calculator shows the result"),
            (true, true) => StepVerdict::bad("the result was there already"),
            (false, _) => StepVerdict::bad("the calculator shows something else"),
        };
        let observation = Observation { results, ..Observation::default() };
        Ok(Outcome { observation, rule: Some(rule), done: false })
    }

    fn evaluate(&mut self) -> Result<Verdict, WorldError> {
        let success = self.is_right() && self.shown;
        Ok(Verdict { reward: if success { 1.0 } else { -1.0 }, success, ..Verdict::default() })
    }

    fn close(&mut self) {}

    fn interrupt(&self) -> Interrupt {
        Arc::new(|| {})
    }
}

impl Desk {
    /// The last number that was said is the result.
    fn is_right(&self) -> bool {
        let said = self.said.as_deref().unwrap_or_default().replace(',', "");
        let digits = |c: char| !c.is_ascii_digit() && c != '-';
        let last = said.split(digits).rev().find_map(|number| number.parse::<i128>().ok());
        last == Some(self.result)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::world::Call;

    fn calls(name: &str, expression: &str) -> Action {
        let arguments = json!({"expression": expression}).as_object().expect("an object").clone();
        Action::Calls(vec![Call { id: "c".into(), name: name.into(), arguments }])
    }

    #[test]
    fn an_episode_with_each_kind_of_step() {
        let environment = Calculator::new(Settings::default()).expect("its defaults");
        let task = environment.task(Split::Train, 7).expect("a task");
        let sum = environment.sum(Split::Train, 7).1;
        let result = arithmetic::value(&sum).expect("a value");
        let mut world = environment.open().expect("it opens");
        world.reset(&task).expect("it begins");
        let mut score = |action: Action| world.step(&action).expect("a step").rule.expect("a rule").score;
        assert_eq!(score(calls("abacus", &sum)), -1);
        assert_eq!(score(calls(TOOL, "1 + (")), -1);
        assert_eq!(score(Action::Malformed), -1);
        assert_eq!(score(calls(TOOL, &sum)), 1);
        assert_eq!(score(calls(TOOL, &sum)), -1);
        assert_eq!(score(Action::Text(format!("The result is {result}."))), 1);
        assert!(world.evaluate().expect("a verdict").success);
        world.reset(&task).expect("it begins anew");
        world.step(&Action::Text(result.to_string())).expect("a step");
        let verdict = world.evaluate().expect("a verdict");
        assert_eq!((verdict.reward, verdict.success), (-1.0, false), "not in its head");
    }

    #[test]
    fn a_number_is_one_task_for_ever_and_no_task_is_of_both_splits() {
        let environment = Calculator::new(Settings::default()).expect("its defaults");
        for number in 0..200 {
            let task = |split| environment.task(split, number).expect("a task");
            assert_eq!(task(Split::Train), task(Split::Train));
            assert_ne!(task(Split::Train).opening, task(Split::HeldOut).opening);
        }
    }
}
