//! The actor around [`Conversations`], and the address under which it is reached through its restarts.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures::FutureExt;
use openclaw_journal::{Journal, JournalError, Record, TurnId, fault};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, rpc::CallResult};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::conversations::{
    Arrival, ArrivedRequest, Conversations, Feedback, FeedbackOutcome, SessionsConfig, TurnCompleted,
};

/// How often idle sessions are looked for.
const SWEEP_PERIOD: Duration = Duration::from_secs(10);
/// How long a request waits for a restarting actor before it is answered without a session.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries to reach a restarting actor.
const RETRY_PERIOD: Duration = Duration::from_millis(20);
/// How long a request waits for a place in the journal's queue; what it says is then kept here for a while.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(1);
/// Facts kept while the journal is away; the oldest go first.
const MOST_UNSENT: usize = 16_384;
/// How long a start waits for the journal to write what an earlier incarnation has told it.
const RESTORE_PATIENCE: Duration = Duration::from_secs(3);

/// What sessions are told and asked.
#[derive(Debug)]
pub enum SessionsMessage {
    /// A request has arrived and is about to be answered.
    RequestArrived(Arc<ArrivedRequest>, RpcReplyPort<Arrival>),
    /// A response is complete.
    TurnCompleted(TurnCompleted, RpcReplyPort<()>),
    /// A person rated or commented a response.
    Feedback(Feedback, RpcReplyPort<FeedbackOutcome>),
    /// A person took a turn out: nothing that follows counts.
    Withdrawn(TurnId),
    /// Answers.
    Ping(RpcReplyPort<()>),
    /// Time to look for idle sessions.
    Sweep,
}

/// What starts a [`Sessions`].
#[derive(Clone)]
pub struct SessionsArguments {
    /// Limits and defaults.
    pub config: SessionsConfig,
    /// Where sessions are restored from, and what becomes of turns is told.
    pub journal: Journal,
    /// The address to answer at.
    pub address: SessionsAddress,
}

/// The actor.
#[derive(Debug, Default)]
pub struct Sessions;

/// What the actor keeps.
pub struct SessionsState {
    conversations: Conversations,
    journal: Journal,
    /// What the journal had no place for.
    unsent: VecDeque<Record>,
}

impl Actor for Sessions {
    type Msg = SessionsMessage;
    type State = SessionsState;
    type Arguments = SessionsArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<SessionsMessage>,
        SessionsArguments { config, journal, address }: SessionsArguments,
    ) -> Result<SessionsState, ActorProcessingErr> {
        let conversations = restore(config, &journal).await?;
        let mut state = SessionsState { conversations, journal, unsent: VecDeque::new() };
        state.tell_journal().await;
        myself.send_interval(SWEEP_PERIOD, || SessionsMessage::Sweep);
        address.current.send_replace(Some(myself));
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<SessionsMessage>,
        message: SessionsMessage,
        state: &mut SessionsState,
    ) -> Result<(), ActorProcessingErr> {
        let now = Instant::now();
        match message {
            SessionsMessage::RequestArrived(request, reply) => {
                fault::point("sessions.arrive");
                let arrival = state.conversations.arrive(&request, now);
                // First the journal, then the answer: what the request says of the turn before is written before the
                // turn that it begins.
                state.tell_journal().await;
                // A client that hung up no longer waits for the answer.
                let _ = reply.send(arrival);
            }
            SessionsMessage::TurnCompleted(completed, reply) => {
                state.conversations.complete(completed, now);
                let _ = reply.send(());
            }
            SessionsMessage::Feedback(feedback, reply) => {
                let outcome = state.conversations.feedback(feedback);
                state.tell_journal().await;
                let _ = reply.send(outcome);
            }
            SessionsMessage::Withdrawn(turn) => drop(state.conversations.forget_turn(&turn)),
            SessionsMessage::Ping(reply) => drop(reply.send(())),
            SessionsMessage::Sweep => state.conversations.sweep(now),
        }
        state.tell_journal().await;
        metrics::gauge!("openclaw_sessions_open_sessions").set(state.conversations.open_sessions() as f64);
        metrics::gauge!("openclaw_sessions_waiting_turns").set(state.conversations.waiting_turns() as f64);
        Ok(())
    }
}

impl SessionsState {
    /// Waits for the journal only for the first fact that it has no place for: conversations do not stop with it.
    async fn tell_journal(&mut self) {
        let patience = if self.unsent.is_empty() { JOURNAL_PATIENCE } else { Duration::ZERO };
        self.unsent.extend(self.conversations.news());
        while let Some(record) = self.unsent.front() {
            let mut submitted = Box::pin(self.journal.submit(record.clone()));
            let told = match submitted.as_mut().now_or_never() {
                Some(told) => told.is_ok(),
                None => timeout(patience, submitted).await.is_ok_and(|told| told.is_ok()),
            };
            if !told {
                break;
            }
            self.unsent.pop_front();
        }
        while self.unsent.len() > MOST_UNSENT {
            self.unsent.pop_front();
            warn!("the journal is away: what became of a turn is lost");
            metrics::counter!("openclaw_sessions_records_dropped_total").increment(1);
        }
    }
}

/// Sessions as an earlier incarnation, or an earlier process, left them.
async fn restore(config: SessionsConfig, journal: &Journal) -> Result<Conversations, JournalError> {
    // What an earlier incarnation has submitted would else be found in the state it had before. This record is about
    // no turn and changes nothing, but is answered after all that.
    let behind = Record::TurnRetried { turn: TurnId("".into()) };
    if timeout(RESTORE_PATIENCE, journal.record(behind)).await.is_err() {
        warn!("the journal does not write: sessions are restored from what it has");
    }
    let (now, clock) = (Instant::now(), SystemTime::now());
    let since = clock - Duration::from_secs(config.idle_timeout_secs);
    let mut conversations = Conversations::new(config);
    for recorded in journal.open_turns(since).await? {
        let ago = clock.duration_since(recorded.completed).unwrap_or_default();
        conversations.restore(recorded, now.checked_sub(ago).unwrap_or(now));
    }
    conversations.sweep(now);
    let (sessions, waiting) = (conversations.open_sessions(), conversations.waiting_turns());
    if sessions + waiting > 0 {
        info!(sessions, waiting, "sessions restored");
    }
    Ok(conversations)
}

/// Where the sessions actor is, whichever incarnation.
#[derive(Clone, Debug)]
pub struct SessionsAddress {
    current: Arc<watch::Sender<Option<ActorRef<SessionsMessage>>>>,
}

impl Default for SessionsAddress {
    fn default() -> Self {
        Self { current: Arc::new(watch::Sender::new(None)) }
    }
}

impl SessionsAddress {
    /// Tells of a request before it is answered. While the actor is away for long, the request is answered as a side
    /// turn of no session: serving does not depend on learning.
    pub async fn arrive(&self, request: ArrivedRequest) -> Arrival {
        let request = Arc::new(request);
        let arrival = self.ask(|reply| SessionsMessage::RequestArrived(request.clone(), reply)).await;
        arrival.unwrap_or_else(|| {
            warn!("sessions does not answer: a request is served without a session");
            metrics::counter!("openclaw_sessions_unreachable_total").increment(1);
            request.without_session()
        })
    }

    /// Tells of a complete response. Once this returns, the request that follows finds the turn. An actor that is
    /// away finds it in the journal.
    pub async fn complete(&self, completed: TurnCompleted) {
        let told = self.ask(|reply| SessionsMessage::TurnCompleted(completed.clone(), reply)).await;
        if told.is_none() {
            warn!(turn = %completed.turn.id, "sessions is away: a turn may have no next state");
            metrics::counter!("openclaw_sessions_unreachable_total").increment(1);
        }
    }

    /// Gives feedback on a response; `None` when the actor does not answer.
    pub async fn feedback(&self, feedback: Feedback) -> Option<FeedbackOutcome> {
        self.ask(|reply| SessionsMessage::Feedback(feedback.clone(), reply)).await
    }

    /// Tells that a person took a turn out, once the journal has it. An actor that is away finds it there.
    pub fn withdrawn(&self, turn: TurnId) {
        if let Some(actor) = &*self.current.borrow() {
            // Fails only when it is on its way down.
            let _ = actor.cast(SessionsMessage::Withdrawn(turn));
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        message: impl Fn(RpcReplyPort<T>) -> SessionsMessage,
    ) -> Option<T> {
        let mut current = self.current.subscribe();
        let answer = async {
            loop {
                let actor = current.wait_for(Option::is_some).await.ok()?.clone()?;
                if let Ok(CallResult::Success(answer)) = actor.call(&message, None).await {
                    return Some(answer);
                }
                // It is on its way down; its successor will take its place at this address.
                sleep(RETRY_PERIOD).await;
            }
        };
        timeout(PATIENCE, answer).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sessions::RequestMarks;
    use openclaw_journal::TurnKind;

    fn request() -> ArrivedRequest {
        let marks = RequestMarks { session_header: Some("s".to_owned()), ..RequestMarks::default() };
        ArrivedRequest::new(marks, Arc::new(vec![json!({"role": "user", "content": "hi"})]), false)
    }

    fn arguments(address: &SessionsAddress) -> SessionsArguments {
        let journal = Journal::in_memory();
        SessionsArguments { config: SessionsConfig::default(), journal, address: address.clone() }
    }

    #[tokio::test]
    async fn a_request_finds_the_actor_that_took_the_place_of_a_stopped_one() {
        let address = SessionsAddress::default();
        let (first, ended) = Actor::spawn(None, Sessions, arguments(&address)).await.expect("it starts");
        assert_eq!(address.arrive(request()).await.index, 1);
        first.stop(None);
        ended.await.expect("it ended");
        let waiting = tokio::spawn({
            let address = address.clone();
            async move { address.arrive(request()).await }
        });
        tokio::task::yield_now().await;
        let _second = Actor::spawn(None, Sessions, arguments(&address)).await.expect("it starts again");
        assert_eq!(waiting.await.expect("no panic").kind, TurnKind::Main);
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_actor_a_request_becomes_a_side_turn() {
        let arrival = SessionsAddress::default().arrive(request()).await;
        assert_eq!((arrival.kind, arrival.session.to_string().as_str()), (TurnKind::Side, "s"));
    }
}
