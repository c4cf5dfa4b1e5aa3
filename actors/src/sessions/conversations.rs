//! Pairs each main turn with its next state. A turn whose next state never comes is dropped when its session ends.
//!
//! Pairing goes by content: a request answers turn k when its history holds k's request and then k's reply. So retries,
//! regenerated replies, branches and interleaved conversations under one name cannot be mistaken for feedback.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::Value;

use super::{
    classify::{DefaultTurnType, classify},
    identify::{RequestMarks, stated_session},
    name::Name,
    next_state::next_state,
    recency::RecencyMap,
    transcript::{Author, Transcript, follow, reply_hash, says_anything},
};
use crate::turn::{Evaluate, NextState, NextStateKind, SessionId, Turn, TurnId, TurnKind};

/// The `[actors.sessions]` table of the topology file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionsConfig {
    /// A session without requests for this long ends. Default 1800.
    pub idle_timeout_secs: u64,
    /// What a request is when it does not say: `auto` (default) reads the traffic.
    pub default_turn_type: DefaultTurnType,
    /// Most sessions kept; beyond it the one idle the longest ends. Default 4096.
    pub max_sessions: usize,
    /// Most turns waiting for their next state, over all sessions. Default 1024.
    pub max_pending_turns: usize,
    /// Histories remembered per session that names itself by nothing else. Default 64.
    pub max_histories: usize,
}

impl Default for SessionsConfig {
    fn default() -> Self {
        Self {
            idle_timeout_secs: 1800,
            default_turn_type: DefaultTurnType::Auto,
            max_sessions: 4096,
            max_pending_turns: 1024,
            max_histories: 64,
        }
    }
}

/// A request as it arrives: what it says of itself, and its messages as the client sent them.
#[derive(Clone, Debug)]
pub struct ArrivedRequest {
    marks: RequestMarks,
    messages: Arc<Vec<Value>>,
    transcript: Transcript,
    has_tools: bool,
}

impl ArrivedRequest {
    /// Reads a request.
    pub fn new(marks: RequestMarks, messages: Arc<Vec<Value>>, has_tools: bool) -> Self {
        let transcript = Transcript::read(&messages);
        Self { marks, messages, transcript, has_tools }
    }

    /// What a request is while nobody keeps its session.
    pub fn without_session(&self) -> Arrival {
        let stated = stated_session(&self.marks, &self.messages);
        let fingerprint = Fingerprint {
            chain: self.transcript.chain.as_slice().into(),
            named: stated.is_some(),
            last: true,
        };
        Arrival {
            session: stated.unwrap_or_else(fresh_session),
            kind: TurnKind::Side,
            index: 0,
            trainable: false,
            fingerprint,
        }
    }
}

/// Recognises a request when a later one carries it as history.
#[derive(Clone, Debug, PartialEq)]
pub struct Fingerprint {
    /// Names of the request's prefixes, the empty one first, the whole request last.
    chain: Arc<[u64]>,
    /// The session gave its name; else its histories are remembered to find it again.
    named: bool,
    /// The request ended its session.
    last: bool,
}

impl Fingerprint {
    fn history(&self) -> u64 {
        *self.chain.last().expect("a transcript's chain starts with one element")
    }

    fn length(&self) -> usize {
        self.chain.len() - 1
    }
}

/// What sessions made of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// Its conversation.
    pub session: SessionId,
    /// Whether it may be trained on.
    pub kind: TurnKind,
    /// Number of the main turn in its session, from 1; a retry keeps the number.
    pub index: u32,
    /// `X-No-Train` was not set.
    pub trainable: bool,
    /// Comes back with [`TurnCompleted`].
    pub fingerprint: Fingerprint,
}

/// A response reached its end; sent before the client sees the end.
#[derive(Clone, Debug)]
pub struct TurnCompleted {
    /// The turn.
    pub turn: Arc<Turn>,
    /// The reply as an assistant message: `content`, `tool_calls`.
    pub reply: Value,
    /// Of the request it answered.
    pub fingerprint: Fingerprint,
}

/// A rating or a remark on one response.
#[derive(Clone, Debug, PartialEq)]
pub struct Feedback {
    /// The response's id.
    pub turn: TurnId,
    /// +1 or -1.
    pub rating: Option<i8>,
    /// Words.
    pub text: Option<String>,
}

/// What became of feedback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedbackOutcome {
    /// It is the turn's next state.
    Applied,
    /// The turn was evaluated or dropped before.
    TooLate,
    /// The turn is never trained on.
    NotTrained,
    /// No such turn.
    Unknown,
}

#[derive(Debug)]
struct Session {
    main_turns: u32,
    last_request: Option<u64>,
    waiting: Vec<TurnId>,
    histories: VecDeque<u64>,
    last_active: Instant,
}

#[derive(Debug)]
struct Waiting {
    turn: Arc<Turn>,
    fingerprint: Fingerprint,
    reply: u64,
    says_anything: bool,
    completed: Instant,
}

/// All conversations, their turns in wait, and the names of turns that are settled.
#[derive(Debug)]
pub struct Conversations {
    config: SessionsConfig,
    sessions: RecencyMap<SessionId, Session>,
    waiting: RecencyMap<TurnId, Waiting>,
    settled: RecencyMap<TurnId, FeedbackOutcome>,
    by_history: HashMap<u64, SessionId>,
}

impl Conversations {
    /// None yet.
    pub fn new(config: SessionsConfig) -> Self {
        Self {
            config,
            sessions: RecencyMap::default(),
            waiting: RecencyMap::default(),
            settled: RecencyMap::default(),
            by_history: HashMap::new(),
        }
    }

    /// Sessions that have not ended.
    pub fn open_sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Turns that wait for their next state.
    pub fn waiting_turns(&self) -> usize {
        self.waiting.len()
    }

    /// Takes in a request before it is answered: what it carries is the next state of turns before it.
    pub fn arrive(&mut self, request: &ArrivedRequest, now: Instant) -> (Arrival, Vec<Evaluate>) {
        let ArrivedRequest { marks, messages, transcript, has_tools } = request;
        let stated = stated_session(marks, messages);
        let kind = classify(marks, self.config.default_turn_type, messages, transcript, *has_tools);
        let named = stated.is_some();
        let session = stated.or_else(|| self.recognise(transcript)).unwrap_or_else(fresh_session);
        let history = transcript.whole();
        let mut arrival = Arrival {
            session: session.clone(),
            kind,
            index: 0,
            trainable: !marks.no_train,
            fingerprint: Fingerprint {
                chain: transcript.chain.as_slice().into(),
                named,
                last: marks.session_done,
            },
        };
        let mut evaluations = Vec::new();
        if kind == TurnKind::Main {
            evaluations = self.pair(&session, named, messages, transcript);
            let session = self.open(&session, now);
            if session.last_request.replace(history) != Some(history) {
                session.main_turns += 1;
            }
            arrival.index = session.main_turns;
        } else if let Some(session) = self.sessions.touch(&session) {
            session.last_active = now;
            arrival.index = session.main_turns;
        }
        if marks.session_done {
            // Its turns stay a while for explicit feedback, but no later request can answer them.
            self.forget(&session);
        }
        (arrival, evaluations)
    }

    /// Keeps a main turn until its next state arrives.
    pub fn complete(&mut self, completed: TurnCompleted, now: Instant) {
        let TurnCompleted { turn, reply, fingerprint } = completed;
        let id = turn.id.clone();
        let session_id = turn.session.clone();
        let reply_hash = reply_hash(&reply);
        if turn.kind == TurnKind::Side {
            return self.settle(id, FeedbackOutcome::NotTrained);
        }
        if !fingerprint.named && !fingerprint.last {
            let after = follow(fingerprint.history(), Author::Assistant, reply_hash);
            self.remember_history(&session_id, request_key(fingerprint.history()));
            self.remember_history(&session_id, after);
        }
        if !turn.trainable {
            count_drop("no_train", 1);
            return self.settle(id, FeedbackOutcome::NotTrained);
        }
        if let Some(session) = self.sessions.touch(&session_id).filter(|_| !fingerprint.last) {
            session.last_active = now;
            let same = |other: &TurnId| {
                self.waiting.get(other).is_some_and(|w| {
                    w.fingerprint.history() == fingerprint.history() && w.reply == reply_hash
                })
            };
            // The same request answered by the same words is one turn.
            let repeated: Vec<TurnId> = session.waiting.iter().filter(|other| same(other)).cloned().collect();
            session.waiting.retain(|other| !repeated.contains(other));
            session.waiting.push(id.clone());
            for other in repeated {
                self.waiting.remove(&other);
                self.settle(other, FeedbackOutcome::TooLate);
                count_drop("retried", 1);
            }
        }
        let says_anything = says_anything(&reply);
        self.waiting
            .insert(id, Waiting { turn, fingerprint, reply: reply_hash, says_anything, completed: now });
        while self.waiting.len() > self.config.max_pending_turns {
            let Some((oldest, dropped)) = self.waiting.pop_oldest() else { break };
            if let Some(session) = self.sessions.touch(&dropped.turn.session) {
                session.waiting.retain(|id| *id != oldest);
            }
            self.settle(oldest, FeedbackOutcome::TooLate);
            count_drop("overflow", 1);
        }
    }

    /// Takes explicit feedback as a turn's next state.
    pub fn feedback(&mut self, feedback: Feedback) -> (FeedbackOutcome, Option<Evaluate>) {
        let Some(waiting) = self.take(&feedback.turn) else {
            let outcome = self.settled.get(&feedback.turn).copied().unwrap_or(FeedbackOutcome::Unknown);
            return (outcome, None);
        };
        let next_state = NextState {
            kind: NextStateKind::Feedback,
            text: feedback.text.unwrap_or_default(),
            rating: feedback.rating,
            is_error: false,
        };
        (FeedbackOutcome::Applied, Some(Evaluate { turn: waiting.turn, next_state }))
    }

    /// Ends idle sessions; their turns had no next state.
    pub fn sweep(&mut self, now: Instant) {
        let timeout = Duration::from_secs(self.config.idle_timeout_secs);
        let idle = |since: Instant| now.saturating_duration_since(since) >= timeout;
        let ended: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| idle(session.last_active))
            .map(|(id, _)| id.clone())
            .collect();
        for session in ended {
            self.end(&session, "idle");
        }
        let orphans: Vec<TurnId> = self
            .waiting
            .iter()
            .filter(|(_, w)| idle(w.completed) && !self.sessions.contains(&w.turn.session))
            .map(|(id, _)| id.clone())
            .collect();
        for id in orphans {
            self.waiting.remove(&id);
            self.settle(id, FeedbackOutcome::TooLate);
            count_drop("session_done", 1);
        }
    }

    /// The turns of a session that `messages` answer, settled.
    fn pair(
        &mut self,
        session: &SessionId,
        named: bool,
        messages: &[Value],
        transcript: &Transcript,
    ) -> Vec<Evaluate> {
        let Some(turns) = self.sessions.get(session).map(|session| session.waiting.clone()) else {
            return Vec::new();
        };
        let find = |answers: &dyn Fn(&Waiting) -> Option<usize>| -> Vec<(TurnId, usize)> {
            let newest_first = turns.iter().rev();
            newest_first.filter_map(|id| Some((id.clone(), answers(self.waiting.get(id)?)?))).collect()
        };
        let mut found = find(&|waiting| waiting.kept_in(transcript));
        // The rest trusts the session's name more than the history: one turn at most.
        if named && found.is_empty() {
            found = find(&|waiting| waiting.moved_in(transcript));
            found.truncate(1);
        }
        if named && found.is_empty() {
            found = find(&|waiting| waiting.reworded_in(transcript));
            found.truncate(1);
        }
        let mut evaluations = Vec::new();
        for (id, reply) in found {
            let Some(next_state) = next_state(messages, transcript, reply) else { continue };
            let waiting = self.take(&id).expect("found among the waiting turns just now");
            let kind = match next_state.kind {
                NextStateKind::User => "user",
                NextStateKind::Tool => "tool",
                NextStateKind::Feedback => "feedback",
            };
            metrics::counter!("openclaw_sessions_next_states_total", "kind" => kind).increment(1);
            evaluations.push(Evaluate { turn: waiting.turn, next_state });
        }
        // Turns are judged in the order in which they happened.
        evaluations.reverse();
        evaluations
    }

    /// The session whose history is the longest prefix of this one.
    fn recognise(&self, transcript: &Transcript) -> Option<SessionId> {
        let length = transcript.entries.len();
        for known in (1..=length).rev() {
            let history = transcript.chain[known];
            let ends_with_reply = transcript.entries[known - 1].author == Author::Assistant;
            if let Some(session) = self.by_history.get(&history).filter(|_| ends_with_reply) {
                return Some(session.clone());
            }
            let Some(session) = self.by_history.get(&request_key(history)) else { continue };
            let goes_on = transcript.entries.get(known).is_some_and(|next| next.author == Author::Assistant);
            // The same request again is a retry while its session is still there; later it is someone new.
            let retried = known == length
                && self.sessions.get(session).is_some_and(|session| session.last_request == Some(history));
            if goes_on || retried {
                return Some(session.clone());
            }
        }
        None
    }

    fn open(&mut self, id: &SessionId, now: Instant) -> &mut Session {
        if !self.sessions.contains(id) {
            while self.sessions.len() >= self.config.max_sessions.max(1) {
                let oldest = self.sessions.iter().next().map(|(id, _)| id.clone());
                self.end(&oldest.expect("there is at least one session"), "session_overflow");
            }
            let session = Session {
                main_turns: 0,
                last_request: None,
                waiting: Vec::new(),
                histories: VecDeque::new(),
                last_active: now,
            };
            self.sessions.insert(id.clone(), session);
        }
        let session = self.sessions.touch(id).expect("inserted above if it was missing");
        session.last_active = now;
        session
    }

    fn end(&mut self, id: &SessionId, reason: &'static str) {
        for turn in self.forget(id) {
            if self.waiting.remove(&turn).is_some() {
                self.settle(turn, FeedbackOutcome::TooLate);
                count_drop(reason, 1);
            }
        }
    }

    fn forget(&mut self, id: &SessionId) -> Vec<TurnId> {
        let Some(session) = self.sessions.remove(id) else { return Vec::new() };
        for history in session.histories {
            forget_history(&mut self.by_history, history, id);
        }
        session.waiting
    }

    fn take(&mut self, id: &TurnId) -> Option<Waiting> {
        let waiting = self.waiting.remove(id)?;
        if let Some(session) = self.sessions.touch(&waiting.turn.session) {
            session.waiting.retain(|other| other != id);
        }
        self.settle(id.clone(), FeedbackOutcome::TooLate);
        Some(waiting)
    }

    fn settle(&mut self, id: TurnId, outcome: FeedbackOutcome) {
        self.settled.insert(id, outcome);
        while self.settled.len() > self.config.max_pending_turns.saturating_mul(8) {
            self.settled.pop_oldest();
        }
    }

    fn remember_history(&mut self, session_id: &SessionId, history: u64) {
        let Some(session) = self.sessions.touch(session_id) else { return };
        self.by_history.insert(history, session_id.clone());
        session.histories.push_back(history);
        if session.histories.len() > self.config.max_histories.saturating_mul(2)
            && let Some(oldest) = session.histories.pop_front()
        {
            forget_history(&mut self.by_history, oldest, session_id);
        }
    }
}

impl Waiting {
    /// The history holds the request and right after it the reply.
    fn kept_in(&self, transcript: &Transcript) -> Option<usize> {
        self.place(transcript).filter(|&place| transcript.entries[place].hash == self.reply)
    }

    /// The history was rewritten (a compaction, another system prompt), but its last reply is this one.
    fn moved_in(&self, transcript: &Transcript) -> Option<usize> {
        let last = transcript.entries.iter().rposition(|entry| entry.author == Author::Assistant)?;
        // An earlier reply of the same words, before this turn's request, is not this reply.
        let before_this_turn = self.fingerprint.chain.contains(&transcript.chain[last + 1]);
        (self.says_anything && !before_this_turn && transcript.entries[last].hash == self.reply)
            .then_some(last)
    }

    /// The history holds the request, and after it a reply that the client put into other words.
    fn reworded_in(&self, transcript: &Transcript) -> Option<usize> {
        self.place(transcript)
    }

    fn place(&self, transcript: &Transcript) -> Option<usize> {
        let place = self.fingerprint.length();
        let entry = transcript.entries.get(place)?;
        (transcript.chain[place] == self.fingerprint.history() && entry.author == Author::Assistant)
            .then_some(place)
    }
}

/// Removes a history, unless another session has taken it over.
fn forget_history(by_history: &mut HashMap<u64, SessionId>, history: u64, owner: &SessionId) {
    if by_history.get(&history) == Some(owner) {
        by_history.remove(&history);
    }
}

/// A request's history under another name than the same history as a prefix.
fn request_key(history: u64) -> u64 {
    Name::new().text("request").number(history).finish()
}

fn fresh_session() -> SessionId {
    SessionId(format!("session-{}", uuid::Uuid::new_v4().simple()).into())
}

fn count_drop(reason: &'static str, turns: u64) {
    metrics::counter!("openclaw_sessions_turns_dropped_total", "reason" => reason).increment(turns);
}

#[cfg(test)]
mod tests;
