//! An environment for these tests: it counts what is done to it, waits until it is told to go on, and shows images.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use openclaw_environments::world::{
    Action, CallResult, Environment, ImageRef, Interrupt, Observation, Outcome, Part, Said, Spec, Split,
    StepVerdict, Task, Tool, Verdict, World, WorldError,
};

/// What has happened in all of its worlds.
#[derive(Default)]
pub struct Counts {
    pub opened: AtomicUsize,
    pub closed: AtomicUsize,
    pub resets: AtomicUsize,
    pub steps: AtomicUsize,
    pub evaluations: AtomicUsize,
    pub interrupts: AtomicUsize,
    /// Steps that wait now.
    pub waiting: AtomicUsize,
}

#[derive(Default)]
struct Gate {
    /// What waits is to end, by its number.
    interrupted: Mutex<bool>,
    told: Condvar,
}

/// The environment.
pub struct Rig {
    spec: Spec,
    pub counts: Arc<Counts>,
}

impl Rig {
    pub fn new() -> Arc<Self> {
        let spec = Spec { kind: "rig", steps: 6, patience: Duration::from_secs(60) };
        Arc::new(Self { spec, counts: Arc::default() })
    }
}

/// The bytes that are shown under their own name, and what that is.
pub fn picture() -> (&'static [u8], ImageRef) {
    let sha256 = "9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0".to_owned();
    (b"aaa", ImageRef { sha256, width: 3, height: 1, media_type: "image/png".to_owned() })
}

impl Environment for Rig {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn tasks(&self, split: Split) -> Option<u64> {
        Some(if split == Split::Train { 5 } else { 2 })
    }

    fn task(&self, split: Split, number: u64) -> Result<Task, WorldError> {
        let id = format!("{split}/{number}");
        if self.tasks(split).is_some_and(|tasks| number >= tasks) {
            return Err(WorldError::NoTask(id));
        }
        let tools = vec![Tool::of_texts("do", "Do something", &[("what", "")])];
        Ok(Task { id: id.into(), split, number, opening: vec![Said::user("Begin.")], tools })
    }

    // Only worlds of a test are counted.
    fn ready(&self) -> Result<(), WorldError> {
        Ok(())
    }

    fn open(&self) -> Result<Box<dyn World>, WorldError> {
        self.counts.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Rigged {
            counts: self.counts.clone(),
            gate: Arc::default(),
            steps: 0,
            shown: Vec::new(),
            closed: false,
        }))
    }
}

struct Rigged {
    counts: Arc<Counts>,
    gate: Arc<Gate>,
    steps: u64,
    shown: Vec<(ImageRef, Vec<u8>)>,
    closed: bool,
}

impl World for Rigged {
    fn reset(&mut self, _: &Task) -> Result<Observation, WorldError> {
        self.counts.resets.fetch_add(1, Ordering::SeqCst);
        self.steps = 0;
        Ok(Observation::text("Here we are."))
    }

    fn step(&mut self, action: &Action) -> Result<Outcome, WorldError> {
        self.counts.steps.fetch_add(1, Ordering::SeqCst);
        self.steps += 1;
        let Action::Calls(calls) = action else {
            return Ok(Outcome { done: true, ..Outcome::default() });
        };
        let mut parts = vec![Part::Text(format!("step {}", self.steps))];
        match calls[0].text("what") {
            Some("wait") => {
                *self.gate.interrupted.lock().expect("no panic") = false;
                self.counts.waiting.fetch_add(1, Ordering::SeqCst);
                let held = self.gate.interrupted.lock().expect("no panic");
                let long = Duration::from_secs(60);
                let (held, _) =
                    self.gate.told.wait_timeout_while(held, long, |told| !*told).expect("no panic");
                drop(held);
                self.counts.waiting.fetch_sub(1, Ordering::SeqCst);
                return Err(WorldError::Interrupted);
            }
            Some("show") => {
                let (bytes, image) = picture();
                self.shown.push((image.clone(), bytes.to_vec()));
                parts.push(Part::Image(image));
            }
            Some("break") => return Err(WorldError::Broken("on purpose".into())),
            Some("panic") => panic!("on purpose"),
            _ => {}
        }
        let result = CallResult { id: calls[0].id.clone(), parts, is_error: false };
        let observation = Observation {
            results: vec![result],
            state: Some(u64::MAX - self.steps),
            ..Observation::default()
        };
        Ok(Outcome { observation, rule: Some(StepVerdict::good("it was done")), done: false })
    }

    fn images(&mut self) -> Vec<(ImageRef, Vec<u8>)> {
        std::mem::take(&mut self.shown)
    }

    fn evaluate(&mut self) -> Result<Verdict, WorldError> {
        self.counts.evaluations.fetch_add(1, Ordering::SeqCst);
        if self.steps == 0 {
            return Err(WorldError::Invalid("nothing was done".into()));
        }
        let numbers = [("rate".to_owned(), 0.5), ("steps".to_owned(), self.steps as f64)].into();
        Ok(Verdict { reward: 0.1, success: false, numbers })
    }

    fn close(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            self.counts.closed.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn interrupt(&self) -> Interrupt {
        let (gate, counts) = (self.gate.clone(), self.counts.clone());
        Arc::new(move || {
            counts.interrupts.fetch_add(1, Ordering::SeqCst);
            *gate.interrupted.lock().expect("no panic") = true;
            gate.told.notify_all();
        })
    }
}

impl Drop for Rigged {
    fn drop(&mut self) {
        self.close();
    }
}
