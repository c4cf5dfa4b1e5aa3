//! The page: what a person sees of a run in a browser. Conversations with what was made of each turn, the learning
//! curve, the versions, and what two of them answer to the same prompt.
//!
//! `assets` is what the browser runs, public because there is nothing in it; `routes` is the data, for the run's owner
//! on the socket and whoever holds the operator's token on the port; `overview`, `story`, `episodes`, `film`, `reply`, `tokens`, `fate` and
//! `learning` are its shapes; `received` keeps what was judged, for `status` too; `comparison` has two versions answer.

mod assets;
mod comparison;
mod episodes;
pub(crate) mod fate;
mod film;
mod learning;
mod overview;
mod received;
mod reply;
mod routes;
mod story;
#[cfg(test)]
mod tests;
mod tokens;

use std::{net::SocketAddr, sync::Arc};

use openclaw_actors::{engine::EngineText, rollback::Rollback};
use openclaw_journal::Journal;
use serde::Serialize;

pub(crate) use self::{
    assets::{assets, guarded},
    routes::router,
};
pub use self::{
    comparison::{CONTEXT_TOKENS, Comparison},
    film::Films,
    received::Received,
};

/// What the page reads and asks. Clones share it.
#[derive(Clone)]
pub struct Page {
    journal: Journal,
    text: EngineText,
    rollback: Rollback,
    comparison: Arc<Comparison>,
    /// Samples of a full batch.
    batch_samples: usize,
    /// The method shows hints to a teacher.
    teaches: bool,
    received: Received,
    films: Films,
    /// Tells the answers of this process from those of another.
    process: u64,
}

impl Page {
    /// Of the run that `comparison` asks versions of, which learns from `batch_samples` at once, and from hints where it
    /// `teaches`.
    pub fn new(comparison: Comparison, films: Films, batch_samples: usize, teaches: bool) -> Self {
        let rollback = comparison.rollback.clone();
        Self {
            received: Received::new(rollback.journal.clone()),
            journal: rollback.journal.clone(),
            text: comparison.text.clone(),
            rollback,
            comparison: Arc::new(comparison),
            films,
            batch_samples,
            teaches,
            process: rand::random(),
        }
    }

    /// How replies were received, for whoever else asks.
    pub fn received(&self) -> Received {
        self.received.clone()
    }
}

/// Where the page is.
pub fn url(address: SocketAddr) -> String {
    format!("http://{address}/")
}

/// A text, or its beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Text {
    /// What is shown.
    text: String,
    /// Characters of the whole; more than are shown where it was cut.
    chars: usize,
}

impl Text {
    /// At most `limit` characters of it.
    fn cut(text: &str, limit: usize) -> Self {
        let chars = text.chars().count();
        Self { text: text.chars().take(limit).collect(), chars }
    }
}
