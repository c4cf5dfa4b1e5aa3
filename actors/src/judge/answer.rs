//! What a model said to one question of a judge. A vote or a hint is read from a finished answer alone: what a model that
//! was cut off had said by then may be the opposite of what it was about to say.

use crate::prompts;

/// One answer, as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub text: String,
    pub ending: Ending,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its writer ended it.
    Finished,
    /// It reached the most tokens it could have.
    Cut,
    /// Something else ended it: a filter, a call of a tool.
    Broken,
}

/// Why nothing can be read from an answer that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// [`Ending::Cut`].
    Cut,
    /// [`Ending::Broken`].
    Broken,
    /// Nothing stands behind its thought.
    NoText,
}

impl Unread {
    /// The label of the counter.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Broken => "unfinished",
            Self::NoText => "no_text",
        }
    }
}

impl Ending {
    /// Of a chat endpoint's `finish_reason`; the words for an end vary among servers, and some say none.
    pub fn of(finish_reason: &str) -> Self {
        match finish_reason.to_ascii_lowercase().as_str() {
            "" | "stop" | "eos" | "eos_token" | "end_turn" | "stop_sequence" => Self::Finished,
            "length" | "max_tokens" | "model_length" => Self::Cut,
            _ => Self::Broken,
        }
    }
}

impl Answer {
    /// What a vote or a hint may be read from.
    pub fn readable(&self) -> Result<&str, Unread> {
        match self.ending {
            Ending::Cut => Err(Unread::Cut),
            Ending::Broken => Err(Unread::Broken),
            Ending::Finished => match prompts::behind_thought(&self.text) {
                "" => Err(Unread::NoText),
                text => Ok(text),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_answer_is_read_behind_its_thought_and_no_other() {
        let thought = "<think>\nmaybe \\boxed{1}\n</think>\n\n";
        for (finish_reason, text, expected) in [
            ("stop", "\\boxed{1}".to_owned(), Ok("\\boxed{1}")),
            ("", "\\boxed{1}".to_owned(), Ok("\\boxed{1}")),
            ("STOP", format!("{thought}\\boxed{{-1}}"), Ok("\\boxed{-1}")),
            ("stop", "maybe \\boxed{1}</think>so \\boxed{0}".to_owned(), Ok("so \\boxed{0}")),
            ("stop", "Well.\n<think>maybe \\boxed{1}".to_owned(), Ok("Well.")),
            ("stop", thought.to_owned(), Err(Unread::NoText)),
            ("stop", "<think>maybe \\boxed{1}".to_owned(), Err(Unread::NoText)),
            ("stop", " \n".to_owned(), Err(Unread::NoText)),
            ("length", "\\boxed{1}".to_owned(), Err(Unread::Cut)),
            ("MAX_TOKENS", "\\boxed{1}".to_owned(), Err(Unread::Cut)),
            ("content_filter", "\\boxed{1}".to_owned(), Err(Unread::Broken)),
        ] {
            let answer = Answer { text, ending: Ending::of(finish_reason) };
            assert_eq!(answer.readable(), expected, "{finish_reason} {}", answer.text);
        }
    }
}
