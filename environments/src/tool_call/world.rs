//! One world: a problem, a session with Python that opens at the first call, and servers of tools.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    boxed,
    environment::{Problem, Shared},
    families::{self, Progress, Ran, TOOL},
    interpreter::{Called, Interpreter},
    mcp::Servers,
    reward,
};
use crate::shown::cut;
use crate::stop::Stop;
use crate::world::{
    Action, Call, CallResult, Interrupt, Observation, Outcome, StepVerdict, Task, Verdict, World, WorldError,
};

/// One world.
pub(super) struct Bench {
    shared: Arc<Shared>,
    stop: Arc<Stop>,
    interpreter: Option<Interpreter>,
    servers: Option<Servers>,
    episode: Option<Episode>,
}

/// What is of one episode.
struct Episode {
    problem: Problem,
    offered: Vec<String>,
    progress: Progress,
    /// Calls of tools that can be of use.
    calls: usize,
    said: Option<String>,
}

impl Bench {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, stop: Stop::new(), interpreter: None, servers: None, episode: None }
    }

    /// What was asked for, and what the rule says of it.
    fn calls(&mut self, calls: &[Call]) -> Result<Outcome, WorldError> {
        let until = Instant::now() + Duration::from_secs(self.shared.settings.step_secs);
        let mut results = Vec::with_capacity(calls.len());
        let mut rules = Vec::with_capacity(calls.len());
        for call in calls {
            let (result, rule) = self.call(call, until)?;
            results.push(result);
            rules.extend(rule);
        }
        // A step is as good as its worst call.
        let worst = rules.iter().find(|rule| rule.score < 0).or(rules.last()).copied();
        let observation = Observation { results, ..Observation::default() };
        Ok(Outcome { observation, rule: worst, done: false })
    }

    fn call(&mut self, call: &Call, until: Instant) -> Result<(CallResult, Option<StepVerdict>), WorldError> {
        let stop = self.stop.clone();
        if stop.is_wanted() {
            return Err(WorldError::Interrupted);
        }
        let time = until.saturating_duration_since(Instant::now());
        let is_offered = self.episode()?.offered.contains(&call.name);
        let is_served = self.servers.as_ref().is_some_and(|servers| servers.offer(&call.name));
        let called = if !is_offered {
            failed(format!("There is no tool {}.", call.name))
        } else if time.is_zero() {
            failed("Not done: the calls before it took too long.".to_owned())
        } else if call.name == TOOL {
            let Some(code) = call.text("code") else {
                let rule = self.has_rule().then(|| StepVerdict::bad("calls the tool without code"));
                return Ok((CallResult::error(call, "missing argument code"), rule));
            };
            self.episode()?.calls += 1;
            self.run(code, time)?
        } else if let Some(servers) = self.servers.as_ref().filter(|_| is_served) {
            let (text, is_error) = servers.call(call, time, &stop)?;
            self.episode()?.calls += 1;
            let text = cut(&text, self.shared.settings.output_bytes);
            Called { is_error, ran: Ran { output: text.clone(), error: None }, text }
        } else {
            failed(format!("{} is of no use here.", call.name))
        };
        let code = call.text("code").unwrap_or_default().to_owned();
        let rule = self.judge(&families::Action::Call { tool: call.name.clone(), code }, &called.ran);
        let result = CallResult { is_error: called.is_error, ..CallResult::text(call, called.text) };
        Ok((result, rule))
    }

    /// Runs code in this world's session.
    fn run(&mut self, code: &str, time: Duration) -> Result<Called, WorldError> {
        if self.interpreter.is_none() {
            let mut opened = Interpreter::open(self.shared.backend.as_ref(), &self.shared.settings)?;
            self.stop.session(Some(opened.interrupt()));
            if self.shared.python.get().is_none() {
                opened.needs("python3")?;
                let _ = self.shared.python.set(());
            }
            self.interpreter = Some(opened);
        }
        // It may have been wanted before there was a session to interrupt.
        if self.stop.is_wanted() {
            return Err(WorldError::Interrupted);
        }
        let prelude = match &self.episode()?.problem {
            Problem::Family(task) => task.prelude.clone(),
            Problem::Row { .. } => String::new(),
        };
        let Some(interpreter) = &mut self.interpreter else {
            return Err(WorldError::Broken("the session is gone".to_owned()));
        };
        let called = interpreter.run(&prelude, code, time);
        if matches!(called, Err(WorldError::Broken(_))) {
            self.close_session();
        }
        called
    }

    fn answer(&mut self, said: &str) -> Result<Outcome, WorldError> {
        self.episode()?.said = Some(said.to_owned());
        let given = boxed::last_boxed(said).unwrap_or_default().to_owned();
        let rule = self.judge(&families::Action::Answer(given), &Ran::default());
        Ok(Outcome { rule, done: true, ..Outcome::default() })
    }

    /// The rule of a family knows the code tool and no other.
    fn has_rule(&self) -> bool {
        let family = |episode: &Episode| matches!(episode.problem, Problem::Family(_));
        self.shared.settings.interpreter && self.episode.as_ref().is_some_and(family)
    }

    fn judge(&mut self, action: &families::Action, ran: &Ran) -> Option<StepVerdict> {
        if !self.has_rule() {
            return None;
        }
        let episode = self.episode.as_mut()?;
        let Problem::Family(task) = &episode.problem else { return None };
        let after = episode.progress.after(task, action, ran);
        let rule = task.step(&episode.progress, action, ran, &after);
        episode.progress = after;
        Some(rule)
    }

    fn episode(&mut self) -> Result<&mut Episode, WorldError> {
        self.episode.as_mut().ok_or_else(|| WorldError::Broken("no task has begun".to_owned()))
    }

    fn close_session(&mut self) {
        self.stop.session(None);
        self.interpreter = None;
    }
}

impl World for Bench {
    fn reset(&mut self, task: &Task) -> Result<Observation, WorldError> {
        let stop = self.stop.clone();
        let _running = stop.begin();
        self.close();
        let problem = self.shared.problem(task.split, task.number)?;
        let servers = &self.shared.settings.mcp;
        if !servers.is_empty() {
            let started = Servers::start(servers, &stop)?;
            if started.tools() != &*self.shared.served()? {
                let why = "mcp: the servers do not offer what they offered before";
                return Err(WorldError::Broken(why.to_owned()));
            }
            self.servers = Some(started);
        }
        let offered = task.tools.iter().map(|tool| tool.name.clone()).collect();
        self.episode =
            Some(Episode { problem, offered, progress: Progress::default(), calls: 0, said: None });
        Ok(Observation::default())
    }

    fn step(&mut self, action: &Action) -> Result<Outcome, WorldError> {
        let stop = self.stop.clone();
        let _running = stop.begin();
        match action {
            Action::Calls(calls) if !calls.is_empty() => self.calls(calls),
            Action::Text(said) => self.answer(said),
            Action::Calls(_) | Action::Malformed => {
                let rule = self.judge(&families::Action::Malformed, &Ran::default());
                Ok(Outcome { rule, ..Outcome::default() })
            }
        }
    }

    fn keep(&mut self, to: &Path) -> Result<(), WorldError> {
        match &self.interpreter {
            Some(interpreter) => interpreter.copy_out(to),
            None => Ok(()),
        }
    }

    fn evaluate(&mut self) -> Result<Verdict, WorldError> {
        let episode = self.episode()?;
        let correct = episode.said.as_deref().is_some_and(|said| episode.problem.is_solved_by(said));
        let numbers = [("calls", episode.calls as f64), ("correct", f64::from(correct))];
        Ok(Verdict {
            reward: reward::shaped(reward::outcome(correct), episode.calls) as f32,
            success: correct,
            numbers: BTreeMap::from(numbers.map(|(name, number)| (name.to_owned(), number))),
        })
    }

    fn close(&mut self) {
        self.close_session();
        self.servers = None;
        self.episode = None;
    }

    fn interrupt(&self) -> Interrupt {
        let stop = self.stop.clone();
        Arc::new(move || stop.interrupt())
    }
}

/// A call that did nothing.
fn failed(why: String) -> Called {
    Called { text: why, is_error: true, ran: Ran::default() }
}
