//! Carries committed work from the journal into the inboxes of the stages.
//!
//! No stage sends work to another: what one has recorded, this actor reads in the order of its commits and hands to the
//! next, as fast as that one's inbox has places. What does not fit waits on disk. It also tells the journal of the turns
//! that an inbox gave up.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use openclaw_journal::{
    Evaluate, Journal, JournalError, Judged, Record, Sample, TurnId, fault, inbox::Inbox,
};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tracing::{debug, warn};

/// Rows read at once: what is in memory beyond the inboxes' capacity.
const PAGE: usize = 8;
/// Between the tries to read a journal that failed.
const RETRY_PERIOD: Duration = Duration::from_millis(500);

/// Where one stage's work goes, and how far it has gone; both outlive the actor. Clones share them.
pub struct Route<M> {
    inbox: Inbox<M>,
    /// The journal's number of the last change that was carried.
    cursor: Arc<AtomicU64>,
}

impl<M> Clone for Route<M> {
    fn clone(&self) -> Self {
        Self { inbox: self.inbox.clone(), cursor: self.cursor.clone() }
    }
}

impl<M> Route<M> {
    /// From the beginning: everything that an earlier process did not get to is carried again.
    pub fn to(inbox: Inbox<M>) -> Self {
        Self { inbox, cursor: Arc::default() }
    }
}

/// What starts a [`Dispatcher`]: the stages that this node has.
#[derive(Clone)]
pub struct DispatcherArguments {
    /// Where work comes from.
    pub journal: Journal,
    /// To the judges.
    pub evaluations: Option<Route<Evaluate>>,
    /// To the teachers.
    pub judged: Option<Route<Judged>>,
    /// To the optimizer.
    pub samples: Option<Route<Sample>>,
}

/// Control of a [`Dispatcher`].
pub enum DispatcherControl {
    /// Answers.
    Ping(RpcReplyPort<()>),
    /// One of its tasks ended.
    #[doc(hidden)]
    Ended(String),
}

/// The actor.
pub struct Dispatcher;

/// One incarnation's tasks; they end with it.
pub struct Carrying(JoinHandle<()>);

impl Drop for Carrying {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Actor for Dispatcher {
    type Msg = DispatcherControl;
    type State = Carrying;
    type Arguments = DispatcherArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: DispatcherArguments,
    ) -> Result<Carrying, ActorProcessingErr> {
        let DispatcherArguments { journal, evaluations, judged, samples } = arguments;
        let mut tasks = JoinSet::new();
        serve(&mut tasks, &journal, evaluations);
        serve(&mut tasks, &journal, judged);
        serve(&mut tasks, &journal, samples);
        Ok(Carrying(tokio::spawn(async move {
            let Some(ended) = tasks.join_next().await else { return };
            let reason = ended.err().map_or_else(|| "a task ended".to_owned(), |failure| failure.to_string());
            // Fails only when the actor is gone, and then nobody needs to know.
            let _ = myself.cast(DispatcherControl::Ended(reason));
        })))
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        control: DispatcherControl,
        _: &mut Carrying,
    ) -> Result<(), ActorProcessingErr> {
        match control {
            // The asker may have given up waiting.
            DispatcherControl::Ping(reply) => drop(reply.send(())),
            DispatcherControl::Ended(reason) => return Err(reason.into()),
        }
        Ok(())
    }
}

/// Work of one stage.
trait Carried: Send + Sync + Sized + 'static {
    /// What is committed and not settled, behind the change numbered `after`.
    fn read(
        journal: &Journal,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(u64, Self)>, JournalError>> + Send;

    fn turn(&self) -> &TurnId;
}

impl Carried for Evaluate {
    async fn read(journal: &Journal, after: u64, limit: usize) -> Result<Vec<(u64, Self)>, JournalError> {
        journal.evaluations(after, limit).await
    }

    fn turn(&self) -> &TurnId {
        &self.turn.id
    }
}

impl Carried for Judged {
    async fn read(journal: &Journal, after: u64, limit: usize) -> Result<Vec<(u64, Self)>, JournalError> {
        journal.judged(after, limit).await
    }

    fn turn(&self) -> &TurnId {
        &self.turn.id
    }
}

impl Carried for Sample {
    async fn read(journal: &Journal, after: u64, limit: usize) -> Result<Vec<(u64, Self)>, JournalError> {
        journal.samples(after, limit).await
    }

    fn turn(&self) -> &TurnId {
        &self.turn.id
    }
}

fn serve<M: Carried>(tasks: &mut JoinSet<()>, journal: &Journal, route: Option<Route<M>>) {
    let Some(route) = route else { return };
    tasks.spawn(tell_of_the_dead(journal.clone(), route.inbox.clone()));
    tasks.spawn(carry(journal.clone(), route));
}

async fn carry<M: Carried>(journal: Journal, Route { inbox, cursor }: Route<M>) {
    let mut changes = journal.backlog();
    loop {
        // Before the look, so that what is committed after it is not slept over.
        changes.mark_unchanged();
        match M::read(&journal, cursor.load(Ordering::Acquire), PAGE).await {
            Ok(page) if page.is_empty() => {
                if changes.changed().await.is_err() {
                    return;
                }
            }
            Ok(page) => {
                for (seq, work) in page {
                    fault::point("dispatcher.before");
                    let turn = work.turn().clone();
                    inbox.send(work).await;
                    fault::point("dispatcher.after");
                    cursor.store(seq, Ordering::Release);
                    debug!(%turn, inbox = inbox.name(), seq, "handed on");
                    metrics::counter!("openclaw_dispatcher_turns_total", "inbox" => inbox.name().to_owned())
                        .increment(1);
                }
            }
            Err(error) => {
                warn!(inbox = inbox.name(), %error, "the journal cannot be read");
                sleep(RETRY_PERIOD).await;
            }
        }
    }
}

/// A turn that its inbox gave up is marked in the journal, where an operator finds it.
async fn tell_of_the_dead<M: Carried>(journal: Journal, inbox: Inbox<M>) {
    loop {
        let read = |work: &M, attempts: u32, reason: Option<&str>| {
            (work.turn().clone(), attempts, reason.map(str::to_owned))
        };
        let (turn, attempts, reason) = inbox.dead_letter(read).await;
        warn!(%turn, attempts, inbox = inbox.name(), reason, "a turn is given up until it is retried");
        let died = Record::TurnDied { turn, inbox: inbox.name().to_owned(), attempts, reason };
        match journal.record(died).await {
            Ok(_) => inbox.bury(),
            Err(error) => {
                warn!(inbox = inbox.name(), %error, "a dead turn cannot be recorded");
                sleep(RETRY_PERIOD).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
