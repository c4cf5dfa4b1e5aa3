//! One world: a page of a browser for each episode.
use std::{
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
    time::{Duration, Instant},
};

use super::{
    devtools::Message,
    environment::{Play, Shared},
    page::Page,
};
use crate::{
    gui::{Act, Did, Display, Look, Stage},
    stop::Stop,
    world::{Action, ImageRef, Interrupt, Observation, Outcome, Part, Task, Verdict, World, WorldError},
};

/// For the start of a browser and of its page.
pub(super) const BEGIN: Duration = Duration::from_secs(120);

/// A world.
pub(super) struct Desk {
    shared: Arc<Shared>,
    stop: Arc<Stop>,
    /// Wakes whoever waits for the browser.
    waker: Arc<Mutex<Option<Sender<Message>>>>,
    stage: Stage,
    episode: Option<Episode>,
}

struct Episode {
    play: Play,
    /// None once it is evaluated, or broken.
    page: Option<Page>,
    verdict: Option<Result<Verdict, WorldError>>,
}

/// What the stage sees.
struct Window<'a> {
    page: &'a mut Page,
    play: &'a Play,
    screenshots: bool,
}

impl Display for Window<'_> {
    fn look(&mut self) -> Result<Look, WorldError> {
        let (progress, over) = match self.play {
            Play::Family(task) => {
                let (progress, over) = task.stands(&self.page.value(super::families::STATE)?)?;
                (Some(progress), over)
            }
            Play::MiniWob(task) => {
                let (over, reward) = task.stands(self.page)?;
                (over.then_some(if reward > 0.0 { 1.0 } else { 0.0 }), over)
            }
            // Told at the end alone: what a page needs for it may come late.
            Play::Row(_) => (None, false),
        };
        let elements = self.page.elements()?;
        let png = if self.screenshots { Some(self.page.screenshot()?) } else { None };
        Ok(Look { elements, png, progress, over })
    }

    fn act(&mut self, act: &Act) -> Result<Did, WorldError> {
        let did = self.page.act(act)?;
        self.page.settle()?;
        let said = self.page.said();
        match did {
            Did::Done if !said.is_empty() => {
                Ok(Did::Told(format!("the page said {}, and was answered with yes", said.join(", "))))
            }
            did => Ok(did),
        }
    }
}

fn no_episode() -> WorldError {
    WorldError::Broken("no task was begun, or it is over".to_owned())
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let stage = Stage::new(shared.settings.options());
        Self { shared, stop: Stop::new(), waker: Arc::default(), stage, episode: None }
    }

    fn begin(&mut self, task: &Task) -> Result<Observation, WorldError> {
        let settings = &self.shared.settings;
        let play = self.shared.play(task)?;
        let deadline = Instant::now() + BEGIN;
        let browser = self.shared.engine.browser(&self.stop)?;
        let line = browser.line(&self.stop, deadline);
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(line.waker());
        let page = Page::open(browser, line, (settings.width, settings.height))?;
        let episode = self.episode.insert(Episode { play, page: Some(page), verdict: None });
        let page = episode.page.as_mut().ok_or_else(no_episode)?;
        let told = match &episode.play {
            Play::Family(task) => {
                page.go(&task.url())?;
                None
            }
            Play::MiniWob(task) => Some(task.begin(page)?),
            Play::Row(task) => {
                task.begin(page)?;
                None
            }
        };
        let mut window = Window { page, play: &episode.play, screenshots: settings.screenshots };
        let mut seen = self.stage.begin(&mut window)?;
        seen.parts.splice(0..0, told.map(Part::Text));
        Ok(seen)
    }
}

impl World for Desk {
    fn reset(&mut self, task: &Task) -> Result<Observation, WorldError> {
        self.close();
        let _running = self.stop.begin();
        let begun = self.begin(task);
        if begun.is_err() {
            self.close();
        }
        begun
    }

    fn step(&mut self, action: &Action) -> Result<Outcome, WorldError> {
        let _running = self.stop.begin();
        let settings = &self.shared.settings;
        let episode = self.episode.as_mut().ok_or_else(no_episode)?;
        let page = episode.page.as_mut().ok_or_else(no_episode)?;
        page.until(Instant::now() + Duration::from_secs(settings.step_secs));
        let mut window = Window { page, play: &episode.play, screenshots: settings.screenshots };
        self.stage.step(&mut window, action)
    }

    fn images(&mut self) -> Vec<(ImageRef, Vec<u8>)> {
        self.stage.images()
    }

    fn evaluate(&mut self) -> Result<Verdict, WorldError> {
        let _running = self.stop.begin();
        let settings = &self.shared.settings;
        let episode = self.episode.as_mut().ok_or_else(no_episode)?;
        if let Some(verdict) = &episode.verdict {
            return verdict.clone();
        }
        let page = episode.page.as_mut().ok_or_else(no_episode)?;
        page.until(Instant::now() + Duration::from_secs(settings.step_secs));
        page.settle()?;
        let verdict = match &episode.play {
            Play::Family(task) => {
                let state = page.value(super::families::STATE).map_err(WorldError::from);
                state.and_then(|state| task.verdict(&state))
            }
            Play::MiniWob(task) => task.verdict(page, self.stage.ended()),
            Play::Row(task) => task.verdict(page),
        };
        // Another try may do, otherwise.
        if verdict.is_ok() || matches!(verdict, Err(WorldError::Invalid(_))) {
            episode.verdict = Some(verdict.clone());
            if let Some(page) = episode.page.take() {
                page.close();
            }
        }
        verdict
    }

    fn close(&mut self) {
        let page = self.episode.take().and_then(|episode| episode.page);
        if let Some(page) = page {
            page.close();
            self.shared.engine.tidy();
        }
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn interrupt(&self) -> Interrupt {
        let (stop, waker) = (self.stop.clone(), self.waker.clone());
        Arc::new(move || {
            stop.interrupt();
            if let Some(waker) = &*waker.lock().unwrap_or_else(PoisonError::into_inner) {
                // Who has gone needs no waking.
                let _ = waker.send(Message::Wake);
            }
        })
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.close();
    }
}
