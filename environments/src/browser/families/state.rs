//! How a page stands: read from it, and compared with the goal.

use serde_json::Value;

use super::FamilyTask;
use crate::world::{Verdict, WorldError};

/// An expression of JavaScript: which buttons were clicked, and how each control is.
pub(in crate::browser) const STATE: &str = "(() => { \
     const values = {}; \
     for (const one of document.querySelectorAll('[data-control]')) { \
         const number = one.dataset.control; \
         if (one.type === 'radio') { \
             values[number] ??= ''; \
             if (one.checked) values[number] = one.value; \
         } else values[number] = one.type === 'checkbox' ? String(one.checked) : one.value; } \
     return {clicked, values}; })()";

/// What was read.
struct State {
    clicked: Vec<usize>,
    values: Vec<String>,
}

impl FamilyTask {
    /// How near the goal is, from 0 to 1, and whether the task is over: its last button was clicked, or a wrong one.
    pub(in crate::browser) fn stands(&self, state: &Value) -> Result<(f64, bool), WorldError> {
        let state = self.read(state)?;
        let over = state.clicked.len() >= self.clicks.len() || !self.clicks.starts_with(&state.clicked);
        let most = self.distance(&State { clicked: Vec::new(), values: self.start() });
        let near = 1.0 - self.distance(&state) as f64 / most.max(1) as f64;
        Ok((near.max(0.0), over))
    }

    /// How it came out.
    pub(in crate::browser) fn verdict(&self, state: &Value) -> Result<Verdict, WorldError> {
        let (rate, _) = self.stands(state)?;
        let numbers = [("rate".to_owned(), rate)].into();
        Ok(Verdict { reward: (2.0 * rate - 1.0) as f32, success: rate >= 1.0, numbers })
    }

    /// Controls that are not as they should be, and clicks that are missing. Wrong clicks cannot be taken back.
    fn distance(&self, state: &State) -> usize {
        let pairs = self.controls.iter().zip(&state.values);
        let wrong = pairs.filter(|(control, value)| control.goal != **value).count();
        let right = self.clicks.iter().zip(&state.clicked).take_while(|(is, should)| is == should).count();
        let sent = right == self.clicks.len();
        // A form that was sent while it was wrong was not done at all.
        let missing = if sent && wrong > 0 { 1 } else { 0 };
        wrong + self.clicks.len() - right + missing
    }

    fn start(&self) -> Vec<String> {
        self.controls.iter().map(|control| control.start.clone()).collect()
    }

    fn read(&self, state: &Value) -> Result<State, WorldError> {
        let invalid =
            || WorldError::Invalid(format!("the page of {} is not as it was made: {state}", self.id));
        let numbers = state["clicked"].as_array().ok_or_else(invalid)?;
        let clicked = numbers.iter().map(|number| number.as_u64().map(|number| number as usize));
        let value = |number: usize| state["values"][number.to_string()].as_str().map(str::to_owned);
        let values = (0..self.controls.len()).map(value);
        match (clicked.collect(), values.collect()) {
            (Some(clicked), Some(values)) => Ok(State { clicked, values }),
            _ => Err(invalid()),
        }
    }
}
