//! The actor around [`Conversations`], and the address under which it is reached through its restarts.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Once,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures::FutureExt;
use openclaw_journal::{
    Journal, JournalError, Receipt, Record, Recorded, SessionId, TurnId, TurnState, fault,
};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, rpc::CallResult};
use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{
    abandoned,
    conversations::{
        Arrival, ArrivedRequest, Conversations, Feedback, FeedbackOutcome, SessionsConfig, TurnCompleted,
    },
};

/// How often idle episodes are looked for.
const EPISODES_PERIOD: Duration = Duration::from_secs(60);
/// How often idle sessions, and what time settles, are looked for.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);
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
    /// A client ended a session, with no request to be answered. Its answer is none where the journal did not take it.
    SessionEnded(Arc<ArrivedRequest>, RpcReplyPort<Option<SessionId>>),
    /// A response is complete.
    TurnCompleted(TurnCompleted, RpcReplyPort<()>),
    /// A person rated or commented a response. Its answer is none where the journal did not take it.
    Feedback(Feedback, RpcReplyPort<Option<FeedbackOutcome>>),
    /// A person took a turn out: nothing that follows counts.
    Withdrawn(TurnId),
    /// Answers.
    Ping(RpcReplyPort<()>),
    /// Time to look for idle sessions and for what is settled.
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
    /// Told to whoever has the address.
    lonely: Arc<AtomicU64>,
    journal: Journal,
    /// What the journal had no place for.
    unsent: VecDeque<Fact>,
    /// How long nothing happens in an episode that is abandoned.
    idle: Duration,
    /// When such were looked for.
    looked: Instant,
}

/// What the journal is to be told, and who waits for its commit.
struct Fact {
    record: Record,
    told: Option<oneshot::Sender<Receipt>>,
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
        let idle = Duration::from_secs(config.idle_timeout_secs);
        let conversations = restore(config, &journal).await?;
        let (lonely, unsent) = (address.lonely.clone(), VecDeque::new());
        let mut state =
            SessionsState { conversations, lonely, journal, unsent, idle, looked: Instant::now() };
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
            SessionsMessage::SessionEnded(request, reply) => {
                let session = state.conversations.arrive(&request, now).session;
                let receipt = state.watch_news();
                // In a task: a journal that does not write holds up who waits for it, and no conversation.
                tokio::spawn(async move {
                    let is_kept = kept(receipt).await.is_some();
                    reply.send(is_kept.then_some(session))
                });
            }
            SessionsMessage::Feedback(feedback, reply) => {
                let outcome = state.conversations.feedback(feedback, now);
                let receipt = state.watch_news();
                tokio::spawn(async move {
                    reply.send(match (outcome, kept(receipt).await) {
                        (_, None) => None,
                        // A person took the turn out meanwhile.
                        (FeedbackOutcome::Applied, Some(Recorded::Stale)) => Some(FeedbackOutcome::TooLate),
                        (FeedbackOutcome::Repeated, _) => Some(FeedbackOutcome::Applied),
                        (outcome, _) => Some(outcome),
                    })
                });
            }
            SessionsMessage::Withdrawn(turn) => drop(state.conversations.forget_turn(&turn)),
            SessionsMessage::Ping(reply) => drop(reply.send(())),
            SessionsMessage::Sweep => {
                state.conversations.sweep(now);
                state.close_idle_episodes(now);
            }
        }
        state.tell_journal().await;
        state.lonely.store(state.conversations.lonely_conversations(), Ordering::Relaxed);
        metrics::gauge!("openclaw_sessions_open_sessions").set(state.conversations.open_sessions() as f64);
        metrics::gauge!("openclaw_sessions_waiting_turns").set(state.conversations.waiting_turns() as f64);
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<SessionsMessage>,
        state: &mut SessionsState,
    ) -> Result<(), ActorProcessingErr> {
        state.leave_news();
        Ok(())
    }
}

impl SessionsState {
    /// In a task: nobody waits for it.
    fn close_idle_episodes(&mut self, now: Instant) {
        if now.duration_since(self.looked) < EPISODES_PERIOD.min(self.idle) {
            return;
        }
        self.looked = now;
        let (journal, idle) = (self.journal.clone(), self.idle);
        tokio::spawn(async move {
            if let Err(error) = abandoned::close(&journal, idle).await {
                warn!(error = error.line(), "idle episodes cannot be closed");
            }
        });
    }

    /// Time to go: the journal has them, whether it can write now or not.
    fn leave_news(&mut self) {
        self.take_news();
        self.unsent.drain(..).for_each(|Fact { record, .. }| self.journal.leave(record));
    }

    fn take_news(&mut self) {
        for record in self.conversations.news() {
            let told = match &record {
                Record::NextStateUndone { turn } => {
                    let (told, receipt) = oneshot::channel();
                    tokio::spawn(tell_if_too_late(self.journal.clone(), turn.clone(), receipt));
                    Some(told)
                }
                _ => None,
            };
            self.unsent.push_back(Fact { record, told });
        }
    }

    /// Will have the receipt of the last thing that a message brought; none where it brought nothing.
    fn watch_news(&mut self) -> Option<oneshot::Receiver<Receipt>> {
        let before = self.unsent.len();
        self.take_news();
        let last = self.unsent.range_mut(before..).next_back()?;
        let (told, receipt) = oneshot::channel();
        last.told = Some(told);
        Some(receipt)
    }

    /// Waits for a place in the journal only for the first fact that it has no place for: conversations do not stop with it.
    async fn tell_journal(&mut self) {
        let patience = if self.unsent.is_empty() { JOURNAL_PATIENCE } else { Duration::ZERO };
        self.take_news();
        while let Some(Fact { record, .. }) = self.unsent.front() {
            let mut submitted = Box::pin(self.journal.submit(record.clone()));
            let receipt = match submitted.as_mut().now_or_never() {
                Some(receipt) => Some(receipt),
                None => timeout(patience, submitted).await.ok(),
            };
            let Some(receipt) = receipt else { break };
            if let Some(told) = self.unsent.pop_front().and_then(|fact| fact.told) {
                // Whoever asked may have gone away.
                let _ = told.send(receipt);
            }
        }
        while self.unsent.len() > MOST_UNSENT {
            self.unsent.pop_front();
            warn!("the journal is away: what became of a turn is lost");
            metrics::counter!("openclaw_sessions_records_dropped_total").increment(1);
        }
    }
}

/// Counts a next state that was learnt from before it could be taken back.
async fn tell_if_too_late(journal: Journal, turn: TurnId, receipt: oneshot::Receiver<Receipt>) {
    static TOLD: Once = Once::new();
    // One that is left behind for the next start is not counted.
    let Ok(receipt) = receipt.await else { return };
    if is_too_late(&journal, &turn, receipt).await {
        metrics::counter!("openclaw_sessions_disproved_late_total").increment(1);
        TOLD.call_once(|| {
            warn!(
                %turn,
                "what was learnt from as a user's answer was a side request of the client; further ones are counted. \
                 Raise `actors.sessions.settle_secs`, or send X-Turn-Type: side"
            );
        });
    }
}

/// Whether a batch had the turn when its next state was to be taken back.
async fn is_too_late(journal: &Journal, turn: &TurnId, receipt: Receipt) -> bool {
    let Ok(Recorded::Stale) = receipt.committed().await else { return false };
    let row = journal.turn(turn).await.ok().flatten();
    row.is_some_and(|row| matches!(row.state, TurnState::Leased | TurnState::Trained))
}

/// What the journal made of a message's news, once it is committed: `None` when it is not kept. Without news there is
/// nothing to lose.
async fn kept(receipt: Option<oneshot::Receiver<Receipt>>) -> Option<Recorded> {
    let Some(receipt) = receipt else { return Some(Recorded::Stale) };
    let kept = match receipt.await {
        Ok(receipt) => receipt.committed().await,
        Err(_) => Err(JournalError::Closed),
    };
    if let Err(error) = &kept {
        warn!(error = error.line(), "what a client said is not kept");
    }
    kept.ok()
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
    conversations.settle_earlier(journal.provisional_turns().await?);
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
    lonely: Arc<AtomicU64>,
}

impl Default for SessionsAddress {
    fn default() -> Self {
        Self { current: Arc::new(watch::Sender::new(None)), lonely: Arc::default() }
    }
}

impl SessionsAddress {
    /// Conversations of one reply that nothing followed; 0 unless there are so many that it is their client.
    pub fn lonely_conversations(&self) -> u64 {
        self.lonely.load(Ordering::Relaxed)
    }

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

    /// Gives feedback on a response, and returns after its commit; `None` when it is not kept yet, and is to be given
    /// again.
    pub async fn feedback(&self, feedback: Feedback) -> Option<FeedbackOutcome> {
        self.ask(|reply| SessionsMessage::Feedback(feedback.clone(), reply)).await.flatten()
    }

    /// Ends a session, and returns its name after the commit; `None` when that is not kept yet, and is to be said again.
    pub async fn end(&self, request: ArrivedRequest) -> Option<SessionId> {
        let request = Arc::new(request);
        self.ask(|reply| SessionsMessage::SessionEnded(request.clone(), reply)).await.flatten()
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
mod tests;
