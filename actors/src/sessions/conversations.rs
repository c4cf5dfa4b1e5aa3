//! Pairs each main turn with its next state. A turn whose next state never comes is dropped when its session ends.
//!
//! Pairing goes by content: a request answers turn k when its history holds k's request and then k's reply. So retries,
//! regenerated replies, branches and interleaved conversations under one name cannot be mistaken for feedback.
//!
//! What is kept here is little: the turns themselves lie in the journal, which is told what becomes of them and from
//! which everything here can be made again.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use openclaw_journal::{Record, RecordedTurn, SessionId, Turn, TurnId, TurnKind, TurnMark};
use serde_json::Value;

mod feedback;
mod pairing;

pub use self::feedback::{Feedback, FeedbackOutcome};
use self::pairing::Trust;
use super::{
    classify::{DefaultTurnType, classify},
    histories::{Histories, KEYS_OF_A_TURN, keys_of},
    identify::{RequestMarks, stated_session},
    lonely::Lonely,
    mark::{Fingerprint, Recognise},
    provisional::Provisionals,
    recency::RecencyMap,
    transcript::Transcript,
    withheld::Withheld,
};

/// What sessions are told. `[actors.sessions]` of a topology file sets the first part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionsConfig {
    /// A session without requests for this long ends. Default 1800.
    pub idle_timeout_secs: u64,
    /// What a request is when it does not say: `auto` (default) reads the traffic.
    pub default_turn_type: DefaultTurnType,
    /// Most sessions kept; beyond it the one idle the longest ends. Default 16384.
    pub max_sessions: usize,
    /// Most turns waiting for their next state, over all sessions. Default 16384.
    pub max_pending_turns: usize,
    /// Histories remembered per session that names itself by nothing else. Default 64.
    pub max_histories: usize,
    /// What a user said next is settled after this long at the latest, and may be learnt from. With 0 it is at once.
    /// Default 60.
    pub settle_secs: u64,
    /// Next states per session that may still be taken back; the oldest is settled to make room. Default 16.
    pub max_provisional: usize,
    /// The method shows hints to a teacher. Default false.
    pub teaches: bool,
}

impl Default for SessionsConfig {
    fn default() -> Self {
        Self {
            idle_timeout_secs: 1800,
            default_turn_type: DefaultTurnType::Auto,
            max_sessions: 16_384,
            max_pending_turns: 16_384,
            max_histories: 64,
            settle_secs: 60,
            max_provisional: 16,
            teaches: false,
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
        let transcript = Transcript::of(marks.person.as_deref(), &messages);
        Self { marks, messages, transcript, has_tools }
    }

    /// What a request is while nobody keeps its session.
    pub fn without_session(&self) -> Arrival {
        let stated = stated_session(&self.marks, &self.messages);
        let fingerprint = fingerprint(&self.transcript, stated.is_some(), true);
        Arrival {
            session: stated.unwrap_or_else(fresh_session),
            kind: TurnKind::Side,
            index: 0,
            trainable: false,
            fingerprint,
        }
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
    /// `X-No-Train` was not set, neither now nor with words of its history.
    pub trainable: bool,
    /// Recognises it later.
    pub fingerprint: Fingerprint,
}

/// A response reached its end; sent before the client sees the end.
#[derive(Clone, Debug)]
pub struct TurnCompleted {
    /// The turn.
    pub turn: Arc<Turn>,
    /// How it is recognised later.
    pub mark: TurnMark,
}

#[derive(Debug)]
struct Session {
    main_turns: u32,
    last_request: Option<u64>,
    waiting: Vec<TurnId>,
    histories: VecDeque<u64>,
    withheld: Withheld,
    /// Names of requests that were no part of the conversation.
    side_requests: VecDeque<u64>,
    last_active: Instant,
}

#[derive(Debug)]
struct Waiting {
    session: SessionId,
    mark: TurnMark,
    completed: Instant,
    /// What a person rated it: what follows says why.
    rated: Option<i8>,
}

/// Why a turn waits for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    /// It is never trained on.
    NotTrained,
    /// Something followed it, or nothing ever will.
    Over,
    /// Feedback of this name followed it.
    Rated(u64),
}

/// All conversations, their turns in wait, and the names of turns that are settled.
#[derive(Debug)]
pub struct Conversations {
    config: SessionsConfig,
    sessions: RecencyMap<SessionId, Session>,
    waiting: RecencyMap<TurnId, Waiting>,
    settled: RecencyMap<TurnId, Settled>,
    provisionals: Provisionals,
    /// What sessions without a name are found by.
    by_history: Histories,
    /// What the journal is still to be told.
    untold: Vec<Record>,
    lonely: Lonely,
}

impl Conversations {
    /// None yet.
    pub fn new(config: SessionsConfig) -> Self {
        Self {
            config,
            sessions: RecencyMap::default(),
            waiting: RecencyMap::default(),
            settled: RecencyMap::default(),
            provisionals: Provisionals::default(),
            by_history: Histories::default(),
            untold: Vec::new(),
            lonely: Lonely::default(),
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

    /// Conversations of one reply that nothing followed; 0 unless there are so many that it is their client.
    pub fn lonely_conversations(&self) -> u64 {
        self.lonely.conversations()
    }

    /// What has become of turns since the last call, in order, for the journal.
    pub fn news(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.untold)
    }

    /// Takes in a request before it is answered: what it carries is the next state of turns before it.
    pub fn arrive(&mut self, request: &ArrivedRequest, now: Instant) -> Arrival {
        let ArrivedRequest { marks, messages, transcript, has_tools } = request;
        let stated = stated_session(marks, messages);
        let kind = classify(marks, self.config.default_turn_type, messages, transcript, *has_tools);
        let named = stated.is_some();
        let (session, trust) = match stated {
            Some(session) => (session, Trust::Name),
            None => match self.recognise(transcript, marks.retry) {
                Some(recognised) => recognised,
                None => (fresh_session(), Trust::History),
            },
        };
        let history = transcript.whole();
        let mut arrival = Arrival {
            session: session.clone(),
            kind,
            index: 0,
            trainable: !marks.no_train && !self.holds_withheld(&session, transcript, 0),
            fingerprint: fingerprint(transcript, named, marks.session_done),
        };
        if kind == TurnKind::Main {
            self.pair(&session, trust, request, now);
            let session = self.open(&session, now);
            session.withheld.note(history, marks.no_train);
            if session.last_request.replace(history) != Some(history) {
                session.main_turns += 1;
            }
            arrival.index = session.main_turns;
        } else if let Some(session) = self.sessions.touch(&session) {
            session.last_active = now;
            if marks.no_train {
                session.withheld.note(history, true);
            }
            arrival.index = session.main_turns;
        }
        if marks.session_done {
            // Its turns stay a while for explicit feedback, but no later request can answer them.
            self.forget(&session);
            self.untold.push(Record::SessionEnded { session });
        }
        arrival
    }

    /// Keeps a main turn until its next state arrives. One that is known already stays as it is.
    pub fn complete(&mut self, completed: TurnCompleted, now: Instant) {
        let TurnCompleted { turn, mark } = completed;
        if self.waiting.contains(&turn.id) || self.settled.contains(&turn.id) {
            return;
        }
        if turn.kind == TurnKind::Main {
            self.remember(&turn.session, &mark);
            self.provisionals.answered(&turn.session, mark.request(), mark.reply);
        }
        let session = self.sessions.get(&turn.session);
        let is_side = session.is_some_and(|session| session.side_requests.contains(&mark.request()));
        if turn.kind == TurnKind::Main && turn.trainable && is_side {
            self.drop_turn(turn.id.clone(), "side_request");
        } else if turn.kind == TurnKind::Main && turn.trainable {
            self.wait(&turn.id, &turn.session, mark, now);
        } else {
            self.settle(turn.id.clone(), Settled::NotTrained);
        }
    }

    /// Makes again what a recorded turn left behind. To be told oldest first.
    pub fn restore(&mut self, recorded: RecordedTurn, completed: Instant) {
        let RecordedTurn { turn, session, index, kind, trainable, mark, waiting, rated, .. } = recorded;
        let timeout = Duration::from_secs(self.config.idle_timeout_secs);
        let known = self.sessions.get(&session);
        if known.is_some_and(|known| completed.saturating_duration_since(known.last_active) >= timeout) {
            self.end(&session, "idle");
        }
        if mark.last {
            self.forget(&session);
        } else if kind == TurnKind::Main {
            let open = self.open(&session, completed);
            open.main_turns = index;
            open.last_request = Some(mark.request());
            open.withheld.note(mark.request(), !trainable);
            self.remember(&session, &mark);
        } else if let Some(open) = self.sessions.touch(&session) {
            open.last_active = completed;
            if !trainable {
                open.withheld.note(mark.request(), true);
            }
        }
        if waiting {
            self.wait(&turn, &session, mark, completed);
            if let Some(waiting) = self.waiting.touch(&turn) {
                waiting.rated = rated;
            }
        } else if kind == TurnKind::Main && trainable {
            self.settle(turn, Settled::Over);
        } else {
            self.settle(turn, Settled::NotTrained);
        }
    }

    fn wait(&mut self, id: &TurnId, session_id: &SessionId, mark: TurnMark, now: Instant) {
        if let Some(session) = self.sessions.touch(session_id).filter(|_| !mark.last) {
            session.last_active = now;
            let same = |other: &TurnId| self.waiting.get(other).is_some_and(|w| w.mark.repeats(&mark));
            // The same request answered by the same words is one turn.
            let repeated: Vec<TurnId> = session.waiting.iter().filter(|other| same(other)).cloned().collect();
            session.waiting.retain(|other| !repeated.contains(other));
            session.waiting.push(id.clone());
            for other in repeated {
                self.drop_turn(other, "retried");
            }
        }
        self.waiting
            .insert(id.clone(), Waiting { session: session_id.clone(), mark, completed: now, rated: None });
        while self.waiting.len() > self.config.max_pending_turns {
            let Some((oldest, dropped)) = self.waiting.pop_oldest() else { break };
            if let Some(session) = self.sessions.touch(&dropped.session) {
                session.waiting.retain(|id| *id != oldest);
            }
            self.give_up(oldest, dropped.rated, "overflow");
        }
    }

    /// Next states that an earlier incarnation had yet to settle.
    pub fn settle_earlier(&mut self, turns: Vec<TurnId>) {
        self.tell_settled(turns);
    }

    /// Waits no longer for what follows a turn; whether it did. Whoever asks has told the journal.
    pub fn forget_turn(&mut self, turn: &TurnId) -> bool {
        if let Some(session) = self.provisionals.find(turn).map(|(session, _)| session.clone()) {
            self.provisionals.remove(&session, turn);
        }
        self.take(turn).is_some()
    }

    /// Settles next states that nothing has spoken against for long enough, and ends idle sessions; their turns had no
    /// next state.
    pub fn sweep(&mut self, now: Instant) {
        let settled = self.provisionals.settle(now, Duration::from_secs(self.config.settle_secs));
        self.tell_settled(settled);
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
            .filter(|(_, w)| idle(w.completed) && !self.sessions.contains(&w.session))
            .map(|(id, _)| id.clone())
            .collect();
        for id in orphans {
            self.drop_turn(id, "session_done");
        }
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
                withheld: Withheld::default(),
                side_requests: VecDeque::new(),
                last_active: now,
            };
            self.sessions.insert(id.clone(), session);
        }
        let session = self.sessions.touch(id).expect("inserted above if it was missing");
        session.last_active = now;
        session
    }

    fn end(&mut self, id: &SessionId, reason: &'static str) {
        let only_one = self.sessions.get(id).filter(|session| session.main_turns == 1);
        let waits = only_one.and_then(|session| self.waiting.get(session.waiting.first()?));
        if waits.is_some_and(|waiting| !waiting.mark.named) {
            self.lonely.end();
        }
        for turn in self.forget(id) {
            self.drop_turn(turn, reason);
        }
    }

    fn forget(&mut self, id: &SessionId) -> Vec<TurnId> {
        let settled = self.provisionals.end(id);
        self.tell_settled(settled);
        let Some(session) = self.sessions.remove(id) else { return Vec::new() };
        for history in session.histories {
            self.by_history.remove(history, id);
        }
        session.waiting
    }

    /// Waits for the turn no longer; none where it did not.
    fn take(&mut self, id: &TurnId) -> Option<Waiting> {
        let waiting = self.waiting.remove(id)?;
        if let Some(session) = self.sessions.touch(&waiting.session) {
            session.waiting.retain(|other| other != id);
        }
        self.settle(id.clone(), Settled::Over);
        Some(waiting)
    }

    fn drop_turn(&mut self, turn: TurnId, reason: &'static str) {
        let rated = self.waiting.remove(&turn).and_then(|waiting| waiting.rated);
        self.give_up(turn, rated, reason);
    }

    /// A turn that was rated is learnt from all the same.
    fn give_up(&mut self, turn: TurnId, rated: Option<i8>, reason: &'static str) {
        self.settle(turn.clone(), Settled::Over);
        match rated {
            Some(_) => self.tell_feedback(turn, rated, None, false),
            None => self.untold.push(Record::TurnDropped { turn, reason }),
        }
    }

    fn settle(&mut self, id: TurnId, why: Settled) {
        self.settled.insert(id, why);
        while self.settled.len() > self.config.max_pending_turns.saturating_mul(8) {
            self.settled.pop_oldest();
        }
    }

    /// Remembers the histories that a session without a name is found by.
    fn remember(&mut self, session_id: &SessionId, mark: &TurnMark) {
        if mark.named || mark.last {
            return;
        }
        let Some(session) = self.sessions.touch(session_id) else { return };
        for history in keys_of(mark) {
            self.by_history.add(history, session_id);
            session.histories.push_back(history);
            if session.histories.len() > self.config.max_histories.saturating_mul(KEYS_OF_A_TURN)
                && let Some(oldest) = session.histories.pop_front()
            {
                self.by_history.remove(oldest, session_id);
            }
        }
    }
}

fn fingerprint(transcript: &Transcript, named: bool, last: bool) -> Fingerprint {
    let (chain, before) = (transcript.chain.as_slice().into(), transcript.before(transcript.entries.len()));
    Fingerprint { chain, before, named, last }
}

fn fresh_session() -> SessionId {
    SessionId(format!("session-{}", uuid::Uuid::new_v4().simple()).into())
}

#[cfg(test)]
mod tests;
