//! What became of a turn, in words.

use openclaw_journal::{NextState, OWN_SESSIONS, Story, TurnKind, TurnState};
use serde::Serialize;

/// What became of a turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fate {
    /// `answered`, `waiting`, `followed`, `judged`, `ready`, `leased`, `trained`, `dropped` or `quarantined`.
    pub state: TurnState,
    /// It is handed out to nobody until an operator decides.
    pub dead: bool,
    /// In words, such as `trained in version 3 at step 3`.
    pub words: String,
    /// The version that learnt from it.
    pub version: Option<u64>,
    /// The step that took it.
    pub step: Option<u64>,
}

impl Fate {
    /// Of this turn.
    pub fn of(story: &Story) -> Self {
        let row = &story.row;
        let step = row.step.unwrap_or(0);
        let reason = row.reason.as_deref().unwrap_or("no reason is recorded");
        let words = match (row.state, &story.died) {
            (_, Some((inbox, attempts))) => {
                let why = row.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                format!(
                    "given up by {inbox} after {attempts} tries{why}: waiting for `openclaw-rl dead retry` or `drop`"
                )
            }
            (TurnState::Answered, _) if row.turn.kind == TurnKind::Side => {
                "not trained on: a side request".into()
            }
            (TurnState::Answered, _) if row.turn.session.0.starts_with(OWN_SESSIONS) => {
                "not trained on: a step of a held-out task".into()
            }
            (TurnState::Answered, _) => {
                "not trained on: it, or words of its history, came with X-No-Train".into()
            }
            (TurnState::Waiting, _) => "waiting for what follows it".into(),
            (TurnState::Followed, _) => "waiting for a judge".into(),
            (TurnState::Judged, _) => "waiting for a teacher".into(),
            (TurnState::Held, _) => "waiting for the end of its episode and of its group".into(),
            (TurnState::Ready, _) if row.provisional && is_bare(row.next_state.as_ref()) => {
                "waiting for words that say why it was rated so".into()
            }
            (TurnState::Ready, _) if row.provisional => {
                "waiting for a request that shows what followed it in its history".into()
            }
            (TurnState::Ready, _) => "waiting for a batch".into(),
            (TurnState::Leased, _) => match story.learnt {
                Some(version) => {
                    format!("trained in version {version} at step {step}, which is not on the disk yet")
                }
                None => format!("in the batch of step {step}"),
            },
            (TurnState::Trained, _) => {
                let version = story.learnt.or(row.version).unwrap_or(0);
                format!("trained in version {version} at step {step}")
            }
            (TurnState::Dropped, _) => format!("dropped: {}", why_dropped(reason)),
            (TurnState::Quarantined, _) => format!("withheld with step {step}: {reason}"),
        };
        let version = match row.state {
            TurnState::Trained => story.learnt.or(row.version),
            TurnState::Leased => story.learnt,
            _ => None,
        };
        Self { state: row.state, dead: story.died.is_some(), words, version, step: row.step }
    }
}

/// A thumb without words.
fn is_bare(next: Option<&NextState>) -> bool {
    next.is_some_and(|next| next.rating.is_some() && next.text.is_empty())
}

/// The reason that is recorded, as a person would say it.
fn why_dropped(reason: &str) -> &str {
    match reason {
        "idle" => "nothing followed before its session went idle",
        "session_done" => "its session ended with it",
        "no_train" => "what followed came with X-No-Train",
        "retried" => "its client asked again, and another reply took its place",
        "side_request" => "it answered a request of the client that is no part of the conversation",
        "overflow" => "its session had too many open turns",
        "backlog" => "too many turns were open",
        "size" => "the journal was full, and nobody had judged it",
        "greedy" => "an older journal does not say how likely its tokens were",
        "stale" => "its version was too old when its batch was made",
        "empty" => "the reply is empty",
        "truncated" => "the reply was cut at its limit",
        "repetition" => "the reply repeats itself",
        "misaligned" => "its streams of numbers do not align",
        "no_signal" => "neither the judge nor a teacher had anything to say",
        "episode_abandoned" => "its episode was abandoned",
        "operator" => "an operator dropped it",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_reason_in_the_code_has_words() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let read = |file: &str| std::fs::read_to_string(root.join(file)).expect("it is in the tree");
        // Where turns are dropped, and how the reason is written there.
        let places = [
            ("actors/src/optimizer/admission.rs", "return Some(\""),
            ("actors/src/sessions/conversations/pairing.rs", "TurnDropped { turn, reason: \""),
            ("actors/src/sessions/conversations.rs", "self.drop_turn(turn.id.clone(), \""),
            ("actors/src/sessions/conversations.rs", "self.give_up(oldest, dropped.rated, \""),
            ("actors/src/sessions/conversations.rs", "self.drop_turn(other, \""),
            ("actors/src/sessions/conversations.rs", "self.drop_turn(id, \""),
            ("actors/src/sessions/conversations.rs", "self.end(&session, \""),
            ("actors/src/teacher.rs", "TurnDropped { turn, reason: \""),
            ("journal/src/episodes.rs", "const ABANDONED: &str = \""),
            ("journal/src/retention.rs", "=> (\""),
        ];
        for (file, before) in places {
            let text = read(file);
            let reasons: Vec<&str> =
                text.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect();
            assert!(!reasons.is_empty(), "{file} has no {before}");
            for reason in reasons {
                assert_ne!(why_dropped(reason), reason, "{file}");
            }
        }
    }
}
