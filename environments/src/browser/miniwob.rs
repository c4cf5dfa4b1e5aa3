//! Tasks of MiniWoB++: pages that make themselves from a seed and say their own reward.
use std::path::Path;

use serde_json::{Value, json};

use super::{devtools::CallError, page::Page};
use crate::{
    gui::Ended,
    world::{Split, Verdict, WorldError},
};

/// Begins an episode. Its clock shows another time at each look, and no agent of ours is so slow that it would run out.
const BEGIN: &str = "(() => { \
     Math.seedrandom(SEED); \
     core.EPISODE_MAX_TIME = 2000000000; \
     core.startEpisodeReal(); \
     clearInterval(core.CD_TIMER); \
     const display = document.getElementById('reward-display'); \
     if (display) display.style.display = 'none'; \
     return true; })()";

/// What is asked for, once the page is ready.
const ASKED: &str = "(() => { \
     if (!WOB_TASK_READY) return null; \
     const said = core.getUtterance(); \
     return typeof said === 'string' ? said : said.utterance; })()";

/// How it stands.
const STANDS: &str = "({done: WOB_DONE_GLOBAL === true, reward: WOB_RAW_REWARD_GLOBAL})";

/// A task of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WobTask {
    pub(super) id: String,
    name: String,
    seed: u64,
}

impl WobTask {
    pub(super) fn new(name: &str, split: Split, number: u64) -> Self {
        Self { id: format!("{name}/{split}/{number}"), name: name.to_owned(), seed: split.seed(number) }
    }

    /// Whether there is such a page.
    pub(super) fn check(pages: &Path, name: &str) -> Result<(), String> {
        let plain = |char: char| char.is_ascii_alphanumeric() || char == '-';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(format!("{name:?} is no name of a task"));
        }
        let page = pages.join(format!("miniwob/{name}.html"));
        if page.is_file() { Ok(()) } else { Err(format!("there is no {}", page.display())) }
    }

    /// Begins. What it asks for.
    pub(super) fn begin(&self, page: &mut Page) -> Result<String, WorldError> {
        page.go(&format!("file:///pages/miniwob/{}.html", self.name))?;
        // As a text: a number above 2^53 would be another one there.
        page.value(&BEGIN.replace("SEED", &json!(self.seed.to_string()).to_string()))?;
        loop {
            page.settle()?;
            if let Some(said) = page.value(ASKED)?.as_str() {
                let words: Vec<&str> = said.split_whitespace().collect();
                return Ok(words.join(" "));
            }
        }
    }

    /// Whether the page has ended the episode, and its reward, from -1 to 1.
    pub(super) fn stands(&self, page: &mut Page) -> Result<(bool, f64), WorldError> {
        let stands = match page.value(STANDS) {
            Ok(stands) => stands,
            Err(CallError::Said(why)) => {
                return Err(WorldError::Invalid(format!("{} does not say its reward: {why}", self.name)));
            }
            Err(CallError::World(error)) => return Err(error),
        };
        match (&stands["done"], stands["reward"].as_f64()) {
            (Value::Bool(done), Some(reward)) if reward.is_finite() => Ok((*done, reward)),
            _ => Err(WorldError::Invalid(format!("{} has no reward: {stands}", self.name))),
        }
    }

    /// A page that has not ended the episode was not solved.
    pub(super) fn verdict(&self, page: &mut Page, _: Option<Ended>) -> Result<Verdict, WorldError> {
        let (done, raw) = self.stands(page)?;
        let success = done && raw > 0.0;
        let reward = if done { raw as f32 } else { -1.0 };
        let numbers = [("raw_reward".to_owned(), raw), ("page_ended".to_owned(), f64::from(u8::from(done)))];
        Ok(Verdict { reward, success, numbers: numbers.into() })
    }
}
