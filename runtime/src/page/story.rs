//! Conversations and turns as the page shows them.

use std::time::{SystemTime, UNIX_EPOCH};

use openclaw_journal::{NextStateKind, SessionRow, Story, Told, Turn, TurnKind, TurnState, Verdict, Vote};
use openclaw_model::{FinishReason, Tokenizer};
use serde::Serialize;
use serde_json::Value;

use super::{Text, fate::Fate, reply::ReplyParts, tokens::Tokens};

/// Characters of a message that are shown of a request, of a vote and of a hint.
const MESSAGE_CHARS: usize = 2000;
/// Characters of each part of a reply, and of what followed it.
const REPLY_CHARS: usize = 8000;
/// Characters of a conversation's opening in a list.
const OPENING_CHARS: usize = 200;
/// Most of a list within a turn: messages, votes, hints.
const MOST_PARTS: usize = 16;

/// A conversation in the list.
#[derive(Debug, Serialize)]
pub(super) struct SessionView {
    /// Its name.
    session: String,
    /// What a further page starts before.
    place: u64,
    /// What was said first.
    opening: Text,
    /// Its turns that are kept.
    turns: u64,
    /// The same by where they stand.
    states: Vec<(TurnState, u64)>,
    /// Verdicts of +1 among its latest turns.
    approved: usize,
    /// Verdicts of -1 among them.
    rejected: usize,
    /// Verdicts of 0, and turns whose votes could not be read.
    neutral: usize,
    /// The version that answered last.
    version: Option<u64>,
    /// When its first kept turn was answered.
    first_unix_ms: u64,
    /// When its latest was.
    last_unix_ms: u64,
}

impl From<SessionRow> for SessionView {
    fn from(row: SessionRow) -> Self {
        let count = |reward| row.rewards.iter().filter(|found| **found == reward).count();
        let (approved, rejected) = (count(Some(1)), count(Some(-1)));
        let opening = row.opening.as_ref().and_then(opening);
        Self {
            session: row.session.to_string(),
            place: row.place,
            opening: Text::cut(&opening.unwrap_or_default(), OPENING_CHARS),
            turns: row.states.iter().map(|(_, count)| count).sum(),
            approved,
            rejected,
            neutral: row.rewards.len() - approved - rejected,
            states: row.states,
            version: row.version,
            first_unix_ms: unix_ms(row.first),
            last_unix_ms: unix_ms(row.last),
        }
    }
}

/// What its user said last before the reply.
pub(super) fn opening(turn: &Turn) -> Option<String> {
    let user = turn.messages.iter().rev().find(|message| message["role"] == "user");
    user.or(turn.messages.last()).map(words)
}

/// A turn, with all that is known of it.
#[derive(Debug, Serialize)]
pub(super) struct TurnView {
    /// Its id.
    turn: String,
    /// Its conversation.
    session: String,
    /// What a further page starts after.
    place: u64,
    /// Its number in its conversation.
    index: u32,
    /// `main`, or `side`: never trained on.
    kind: TurnKind,
    /// When it was answered.
    at_unix_ms: u64,
    /// The version that drew it.
    version: u64,
    /// At this temperature.
    temperature: f32,
    /// Tokens of its prompt.
    prompt_tokens: usize,
    /// Why it ended.
    finish: FinishReason,
    /// What was new in its request: the messages behind the last reply.
    asked: Vec<Message>,
    /// What the policy replied.
    reply: ReplyParts,
    /// What followed.
    next_state: Option<Following>,
    /// What the judge made of it.
    verdict: Option<VerdictView>,
    /// The rating that a person gave in the place of a verdict.
    rated: Option<i8>,
    /// A person wrote the hint.
    corrected: bool,
    /// A person may still rate it, write its hint or take it out.
    changeable: bool,
    /// The hints that were kept, the most promising first; or the one that a person wrote.
    hints: Vec<Text>,
    /// What the hint writer said, vote by vote.
    hint_answers: Vec<Option<Text>>,
    /// The reply, token by token.
    tokens: Tokens,
    /// What became of it.
    fate: Fate,
}

/// A message of a request.
#[derive(Debug, Serialize)]
pub(super) struct Message {
    role: String,
    text: Text,
}

/// What followed a turn.
#[derive(Debug, Serialize)]
struct Following {
    kind: NextStateKind,
    text: Text,
    rating: Option<i8>,
    is_error: bool,
    /// Why a rule of the environment rated it.
    by_rule: Option<Text>,
}

/// The majority and its votes.
#[derive(Debug, Serialize)]
struct VerdictView {
    /// +1, -1 or 0; none when no vote could be read.
    reward: Option<i8>,
    /// The rule that decided instead of votes.
    rule: Option<String>,
    votes: Vec<VoteView>,
}

/// One vote.
#[derive(Debug, Serialize)]
struct VoteView {
    /// +1, -1 or 0; none when it could not be read.
    vote: Vote,
    /// What the judge said; none where it did not arrive.
    answer: Option<Text>,
}

impl TurnView {
    /// With at most `tokens` of its tokens.
    pub fn new(story: &Story, tokenizer: &Tokenizer, tokens: usize) -> Self {
        let row = &story.row;
        let (turn, completion) = (&row.turn, &row.turn.completion);
        let following = row.next_state.as_ref().map(|next| Following {
            kind: next.kind,
            text: Text::cut(&next.text, REPLY_CHARS),
            rating: next.rating,
            is_error: next.is_error,
            by_rule: next.by_rule.as_deref().map(|reason| Text::cut(reason, MESSAGE_CHARS)),
        });
        let hints = row.hints.iter().take(MOST_PARTS).map(|hint| Text::cut(hint, MESSAGE_CHARS));
        Self {
            turn: turn.id.to_string(),
            session: turn.session.to_string(),
            place: story.place,
            index: turn.index,
            kind: turn.kind,
            at_unix_ms: unix_ms(row.completed),
            version: completion.policy_version,
            temperature: completion.temperature,
            prompt_tokens: completion.prompt_ids.len(),
            finish: completion.finish_reason,
            asked: asked(&turn.messages),
            reply: ReplyParts::cut(&completion.text, &completion.split, REPLY_CHARS),
            next_state: following,
            verdict: row.verdict.as_ref().map(|verdict| VerdictView::new(verdict, &row.answers)),
            rated: row.rated,
            corrected: row.corrected.is_some(),
            changeable: row.state.is_open() && row.state != TurnState::Leased && story.died.is_none(),
            hints: hints.collect(),
            hint_answers: answers(&row.hint_answers),
            tokens: Tokens::of(completion, row.signal.as_ref(), tokenizer, tokens),
            fate: Fate::of(story),
        }
    }
}

impl VerdictView {
    fn new(verdict: &Verdict, said: &[Option<String>]) -> Self {
        let mut said = answers(said).into_iter();
        let votes = verdict.votes.iter().take(MOST_PARTS);
        let votes = votes.map(|vote| VoteView { vote: *vote, answer: said.next().flatten() });
        Self { reward: verdict.reward, rule: verdict.rule.clone(), votes: votes.collect() }
    }
}

fn answers(said: &[Option<String>]) -> Vec<Option<Text>> {
    let cut = |answer: &Option<String>| answer.as_deref().map(|answer| Text::cut(answer, MESSAGE_CHARS));
    said.iter().take(MOST_PARTS).map(cut).collect()
}

/// The messages behind the last reply.
pub(super) fn asked(messages: &[Value]) -> Vec<Message> {
    let last_reply = messages.iter().rposition(|message| message["role"] == "assistant");
    let new = &messages[last_reply.map_or(0, |place| place + 1)..];
    // The latest are the ones that were answered.
    let new = &new[new.len().saturating_sub(MOST_PARTS)..];
    let message = |message: &Value| Message {
        role: message["role"].as_str().unwrap_or("unknown").to_owned(),
        text: Text::cut(&words(message), MESSAGE_CHARS),
    };
    new.iter().map(message).collect()
}

fn words(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A turn of a conversation, or why it cannot be shown.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Shown {
    /// It is shown.
    Turn(Box<TurnView>),
    /// Its parts cannot be read.
    Unreadable {
        /// Which.
        turn: String,
        /// What a further page starts after.
        place: u64,
        /// Why.
        unreadable: String,
    },
}

impl Shown {
    /// With at most `tokens` of its tokens.
    pub fn new(Told { place, turn, story }: Told, tokenizer: &Tokenizer, tokens: usize) -> Self {
        match story {
            Ok(story) => Self::Turn(Box::new(TurnView::new(&story, tokenizer, tokens))),
            Err(error) => Self::Unreadable { turn: turn.to_string(), place, unreadable: error.line() },
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
