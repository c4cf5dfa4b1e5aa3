//! The personas as an environment: a task is a first message, and what the world shows is what the persona says next.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Deserialize;

use super::{Persona, PersonaSession, Step};
use crate::{
    registry::{Kind, settings},
    world::{
        Action, CallResult, Environment, FIRST_CORRECT, Interrupt, Observation, Outcome, Said, Spec, Split,
        StepVerdict, Task, User, Verdict, World, WorldError,
    },
};

/// In the registry.
pub const KIND: Kind = Kind {
    name: "persona",
    about: "scripted users who ask, and complain until an answer has the style they like",
    make: |table| Ok(Arc::new(Personas::new(&settings(table)?)?)),
};

/// `[environments.NAME]` of this kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Who talks, in turn: `student`, `ta`, `teacher`.
    pub personas: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { personas: Persona::ALL.map(|persona| persona.name().to_owned()).to_vec() }
    }
}

/// About how many tokens a text has, where nobody has counted them: one for each word and number, and one more for each
/// digit and sign. For the plain, warm and thorough replies of this crate it is the embedded tokenizer's own count; for
/// words that a tokenizer does not know, and for other languages, it is too low.
pub fn estimated_tokens(text: &str) -> usize {
    let of_word = |word: &str| {
        let letters = word.chars().filter(|c| c.is_alphabetic()).count();
        let others = word.chars().count() - letters;
        others + usize::from(word.chars().any(char::is_alphanumeric))
    };
    text.split_whitespace().map(of_word).sum()
}

/// The environment.
#[derive(Clone)]
struct Personas {
    spec: Spec,
    personas: Vec<Persona>,
}

impl Personas {
    fn new(settings: &Settings) -> Result<Self, WorldError> {
        let refuse = |message: String| WorldError::Settings(message);
        let known = || Persona::ALL.map(Persona::name).join(", ");
        let read = |name: &String| {
            let persona = Persona::ALL.into_iter().find(|persona| persona.name() == name);
            persona.ok_or_else(|| refuse(format!("personas: {name:?} is not one of {}", known())))
        };
        let personas: Vec<Persona> = settings.personas.iter().map(read).collect::<Result<_, _>>()?;
        if personas.is_empty() {
            return Err(refuse("personas: is empty".to_owned()));
        }
        if let Some(twice) = (1..personas.len()).find(|at| personas[..*at].contains(&personas[*at])) {
            return Err(refuse(format!("personas: {:?} is there twice", personas[twice].name())));
        }
        Ok(Self::of(personas))
    }

    fn of(personas: Vec<Persona>) -> Self {
        // A question, two complaints and what nobody can read between them.
        let spec = Spec { kind: KIND.name, steps: 6, patience: Duration::from_secs(5) };
        Self { spec, personas }
    }

    fn persona(&self, number: u64) -> Persona {
        self.personas[(number % self.personas.len() as u64) as usize]
    }

    fn session(&self, split: Split, number: u64) -> PersonaSession {
        PersonaSession::new(self.persona(number), split.seed(number))
    }
}

impl Environment for Personas {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn tasks(&self, _: Split) -> Option<u64> {
        None
    }

    fn task(&self, split: Split, number: u64) -> Result<Task, WorldError> {
        Ok(Task {
            id: format!("{}/{split}/{number}", self.persona(number).name()).into(),
            split,
            number,
            opening: vec![Said::user(self.session(split, number).first_message())],
            tools: Vec::new(),
        })
    }

    fn open(&self) -> Result<Box<dyn World>, WorldError> {
        Ok(Box::new(Talk { personas: self.clone(), session: self.session(Split::Train, 0) }))
    }

    fn users(&self) -> Vec<User> {
        let alone = |persona: &Persona| User {
            name: persona.name().into(),
            environment: Arc::new(Self::of(vec![*persona])),
        };
        self.personas.iter().map(alone).collect()
    }
}

/// One world.
struct Talk {
    personas: Personas,
    session: PersonaSession,
}

impl World for Talk {
    fn reset(&mut self, task: &Task) -> Result<Observation, WorldError> {
        self.session = self.personas.session(task.split, task.number);
        Ok(Observation::default())
    }

    fn step(&mut self, action: &Action) -> Result<Outcome, WorldError> {
        match action {
            Action::Text(reply) => Ok(self.reply(reply)),
            Action::Calls(calls) => {
                let none = |call| CallResult::error(call, "There are no tools here. Answer in words.");
                let results = calls.iter().map(none).collect();
                let observation = Observation { results, ..Observation::default() };
                Ok(Outcome {
                    observation,
                    rule: Some(StepVerdict::bad("calls a tool, where there is none")),
                    done: false,
                })
            }
            Action::Malformed => {
                let rule = Some(StepVerdict::bad("nothing that can be read"));
                Ok(Outcome { rule, ..Outcome::default() })
            }
        }
    }

    fn evaluate(&mut self) -> Result<Verdict, WorldError> {
        let record = self.session.record();
        let numbers = [
            ("first_satisfied", f64::from(record.first_satisfied)),
            (FIRST_CORRECT, f64::from(record.first_correct)),
            ("last_satisfied", f64::from(record.last_satisfied)),
            ("complaints", f64::from(record.complaints)),
            ("first_tokens", record.first_tokens as f64),
        ];
        Ok(Verdict {
            reward: if record.last_satisfied { 1.0 } else { -1.0 },
            success: record.first_satisfied,
            numbers: BTreeMap::from(numbers.map(|(name, number)| (name.to_owned(), number))),
        })
    }

    fn close(&mut self) {}

    fn interrupt(&self) -> Interrupt {
        Arc::new(|| {})
    }
}

impl Talk {
    fn reply(&mut self, reply: &str) -> Outcome {
        let tokens = estimated_tokens(reply);
        let persona = self.session.persona();
        // What is said to a closing remark is no answer.
        let rule = (!self.session.is_closed()).then(|| rule(persona, persona.satisfied(reply, tokens)));
        match self.session.next(reply, tokens) {
            Step::Send(said) => Outcome { observation: Observation::text(said), rule, done: false },
            Step::Done => Outcome { rule, done: true, ..Outcome::default() },
        }
    }
}

/// The persona's rule of one reply.
fn rule(persona: Persona, satisfied: bool) -> StepVerdict {
    match (persona, satisfied) {
        (Persona::Student, true) => StepVerdict::good("natural words, with working"),
        (Persona::Student, false) => StepVerdict::bad("looks machine-written, or has no working"),
        (Persona::Ta, true) => StepVerdict::good("is thorough"),
        (Persona::Ta, false) => StepVerdict::bad("is too short"),
        (Persona::Teacher, true) => StepVerdict::good("has a warm phrase"),
        (Persona::Teacher, false) => StepVerdict::bad("has no warm phrase"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::{
        dice::Dice,
        persona::{Style, TA_MIN_TOKENS, reply},
        world::Call,
    };

    fn personas() -> Personas {
        Personas::new(&Settings::default()).expect("its defaults")
    }

    /// A reply of a task, in a style.
    fn written(task: &Task, style: Style) -> String {
        let session = personas().session(task.split, task.number);
        reply(session.task(), style, &mut Dice::new(task.number))
    }

    #[test]
    fn the_wanted_style_is_thanked_for_and_another_is_complained_of() {
        let environment = personas();
        for number in 0..90 {
            let task = environment.task(Split::Train, number).expect("a task");
            let wanted = environment.persona(number).wanted_style();
            let mut world = environment.open().expect("it opens");
            world.reset(&task).expect("it begins");
            let mut say = |style: Style| world.step(&Action::Text(written(&task, style))).expect("a step");

            let first = say(Style::Short);
            assert_eq!((first.rule.map(|rule| rule.score), first.done), (Some(-1), false));
            assert!(!first.observation.parts.is_empty(), "it complains");
            assert_eq!(say(wanted).rule.map(|rule| rule.score), Some(1));
            let last = say(Style::Short);
            assert_eq!((last.rule, last.done), (None, true), "the closing remark was made before");

            let verdict = world.evaluate().expect("a verdict");
            assert_eq!((verdict.reward, verdict.success), (1.0, false));
            let number = |name: &str| verdict.numbers[name];
            assert_eq!((number("first_satisfied"), number("last_satisfied")), (0.0, 1.0));
            assert_eq!((number("first_correct"), number("complaints")), (1.0, 1.0));
            assert!(number("first_tokens") > 0.0);
        }
    }

    #[test]
    fn who_calls_or_stammers_is_told_and_the_session_waits() {
        let environment = personas();
        let task = environment.task(Split::HeldOut, 2).expect("a task");
        let mut world = environment.open().expect("it opens");
        world.reset(&task).expect("it begins");
        let call = Call { id: "c".into(), name: "grade".into(), arguments: Map::new() };
        let outcome = world.step(&Action::Calls(vec![call])).expect("a step");
        assert!(outcome.observation.results[0].is_error && !outcome.done);
        assert_eq!(outcome.rule.map(|rule| rule.score), Some(-1));
        let outcome = world.step(&Action::Malformed).expect("a step");
        assert_eq!((outcome.rule.map(|rule| rule.score), outcome.done), (Some(-1), false));
        world.step(&Action::Text(written(&task, Style::Warm))).expect("a step");
        assert!(world.evaluate().expect("a verdict").success, "the first words were not its first reply");
    }

    #[test]
    fn a_number_is_one_task_for_ever_and_no_task_is_of_both_splits() {
        let all = personas();
        let students = Personas::new(&Settings { personas: vec!["student".into()] }).expect("settings");
        for number in 0..200 {
            let task = |split| all.task(split, number).expect("a task");
            assert_eq!(task(Split::Train), task(Split::Train));
            assert_ne!(task(Split::Train).opening, task(Split::HeldOut).opening);
            if number % 3 == 0 {
                assert_eq!(students.task(Split::Train, number).expect("a task"), task(Split::Train));
            }
        }
    }

    #[test]
    fn each_persona_is_a_user_with_tasks_of_their_own() {
        let users = personas().users();
        assert_eq!(users.iter().map(|user| &*user.name).collect::<Vec<_>>(), ["student", "ta", "teacher"]);
        for user in users {
            let task = user.environment.task(Split::Train, 4).expect("a task");
            assert!(task.id.starts_with(&*user.name), "{}", task.id);
        }
    }

    #[test]
    fn the_estimate_tells_a_thorough_reply_from_any_other() {
        let environment = personas();
        for number in 0..3000 {
            let task = environment.task(Split::Train, number).expect("a task");
            for style in Style::ALL {
                let text = written(&task, style);
                let thorough = estimated_tokens(&text) >= TA_MIN_TOKENS;
                assert_eq!(thorough, style == Style::Long, "{} {style:?}: {text}", estimated_tokens(&text));
            }
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let problem = |names: &[&str]| {
            let personas = names.iter().map(|name| (*name).to_owned()).collect();
            Personas::new(&Settings { personas }).map(|_| ()).expect_err("it is refused").to_string()
        };
        assert_eq!(problem(&["pupil"]), "personas: \"pupil\" is not one of student, ta, teacher");
        assert_eq!(problem(&[]), "personas: is empty");
        assert_eq!(problem(&["ta", "student", "ta"]), "personas: \"ta\" is there twice");
    }
}
