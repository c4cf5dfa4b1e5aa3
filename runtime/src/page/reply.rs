//! A reply as the page shows it: what was thought, said and called, each apart, as its split divides it.

use openclaw_model::ReplySplit;
use serde::Serialize;

use super::Text;

/// Most calls that are shown of one reply.
const MOST_CALLS: usize = 16;

/// The parts of a reply, without the marks between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ReplyParts {
    /// None where nothing was thought.
    thinking: Option<Text>,
    /// What its reader is told.
    words: Text,
    /// The tool calls, as they were drawn.
    calls: Vec<Text>,
}

impl ReplyParts {
    /// Of `text`, which `split` divides; at most `limit` characters of each part.
    pub fn cut(text: &str, split: &ReplySplit, limit: usize) -> Self {
        // Newlines beside a mark belong to it.
        let part = |part: &str| Text::cut(part.trim_matches('\n'), limit);
        Self {
            thinking: Some(part(split.thinking(text))).filter(|thinking| thinking.chars > 0),
            words: part(&split.words(text)),
            calls: split.called(text).take(MOST_CALLS).map(part).collect(),
        }
    }
}
