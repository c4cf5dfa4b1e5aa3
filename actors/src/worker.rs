//! An actor that works through an inbox, a bounded number of messages at a time.
//!
//! Its ractor mailbox carries control alone, so that a drain or a status never waits behind work.

use std::{future::Future, marker::PhantomData, sync::Arc, time::Duration};

use openclaw_journal::inbox::{Inbox, Lease};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tracing::{Instrument, Span, error};

/// How often the deadline of a message that is late is doubled at most.
const MOST_DOUBLINGS: u32 = 4;

/// How long the work on a message may take that has failed so many times before. What it costs to give a slow one more
/// time is bounded by its attempts.
pub fn patience(deadline: Duration, failures: u32) -> Duration {
    deadline.saturating_mul(1 << failures.min(MOST_DOUBLINGS))
}

/// What a role does with a message.
pub trait Work: Send + Sync + 'static {
    /// What its inbox holds.
    type Message: Send + Sync + 'static;

    /// Role for logs and metrics: `judge`, `teacher`, ..
    const ROLE: &'static str;

    /// What the work on a message is told of as, in logs and traces.
    fn span(_: &Self::Message) -> Span {
        Span::none()
    }

    /// Does the work, then acks. A lease dropped un-acked is redelivered.
    fn handle(&self, lease: Lease<Self::Message>) -> impl Future<Output = ()> + Send;
}

/// What starts a [`Worker`].
pub struct WorkerArguments<W: Work> {
    /// The work.
    pub work: Arc<W>,
    /// Where it comes from.
    pub inbox: Inbox<W::Message>,
    /// Most messages at a time.
    pub concurrency: usize,
}

/// Control of a [`Worker`].
pub enum WorkerControl {
    /// Takes no further message, finishes those it has, answers, and stops.
    Drain(RpcReplyPort<()>),
    /// How many messages it is working on.
    InFlight(RpcReplyPort<usize>),
    /// The loop that leases ended by itself.
    #[doc(hidden)]
    Ended(String),
}

/// The actor.
pub struct Worker<W>(PhantomData<fn() -> W>);

impl<W> Default for Worker<W> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<W: Work> Actor for Worker<W> {
    type Msg = WorkerControl;
    type State = Pool;
    type Arguments = WorkerArguments<W>;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: WorkerArguments<W>,
    ) -> Result<Pool, ActorProcessingErr> {
        Ok(Pool::start(myself, arguments))
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        control: WorkerControl,
        pool: &mut Pool,
    ) -> Result<(), ActorProcessingErr> {
        match control {
            WorkerControl::Drain(reply) => {
                pool.drain();
                pool.drained = Some(reply);
            }
            WorkerControl::InFlight(reply) => drop(reply.send(*pool.in_flight.borrow())),
            WorkerControl::Ended(message) if pool.drained.is_none() => return Err(message.into()),
            WorkerControl::Ended(_) => {
                // The asker may have given up waiting.
                pool.drained.take().map(|reply| reply.send(()));
                myself.stop(Some("drained".to_owned()));
            }
        }
        Ok(())
    }
}

/// The tasks of one incarnation; they end with it, and their leases go back.
pub struct Pool {
    leasing: JoinHandle<()>,
    draining: watch::Sender<bool>,
    in_flight: watch::Receiver<usize>,
    drained: Option<RpcReplyPort<()>>,
}

impl Pool {
    fn start<W: Work>(myself: ActorRef<WorkerControl>, arguments: WorkerArguments<W>) -> Self {
        let (draining, drain_asked) = watch::channel(false);
        let (report, in_flight) = watch::channel(0);
        let leasing = tokio::spawn(async move {
            work_through(arguments, drain_asked, report).await;
            // Fails only when the actor is gone, and then nobody needs to know.
            let _ = myself.cast(WorkerControl::Ended(format!("{} stopped leasing", W::ROLE)));
        });
        Self { leasing, draining, in_flight, drained: None }
    }

    fn drain(&self) {
        self.draining.send_replace(true);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.leasing.abort();
    }
}

async fn work_through<W: Work>(
    WorkerArguments { work, inbox, concurrency }: WorkerArguments<W>,
    mut drain_asked: watch::Receiver<bool>,
    report: watch::Sender<usize>,
) {
    let mut running = JoinSet::new();
    let mut leasing = true;
    while leasing || !running.is_empty() {
        tokio::select! {
            _ = drain_asked.wait_for(|asked| *asked), if leasing => leasing = false,
            Some(ended) = running.join_next(), if !running.is_empty() => {
                if let Err(failure) = ended && failure.is_panic() {
                    // Its lease was dropped while it unwound: the message is back in the inbox.
                    error!(role = W::ROLE, %failure, "a task panicked");
                    metrics::counter!("openclaw_worker_panics_total", "role" => W::ROLE).increment(1);
                }
            }
            lease = inbox.lease(), if leasing && running.len() < concurrency.max(1) => {
                let (work, span) = (work.clone(), W::span(&lease));
                running.spawn(async move { work.handle(lease).await }.instrument(span));
            }
        }
        report.send_replace(running.len());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use openclaw_journal::inbox::InboxLimits;

    struct Adder {
        sum: AtomicU32,
        panics_on: u32,
        done: watch::Sender<u32>,
    }

    impl Work for Adder {
        type Message = u32;
        const ROLE: &'static str = "adder";

        async fn handle(&self, lease: Lease<u32>) {
            assert!(*lease != self.panics_on || lease.attempt() > 0, "unlucky number");
            self.sum.fetch_add(*lease, Ordering::SeqCst);
            lease.ack();
            self.done.send_modify(|done| *done += 1);
        }
    }

    #[tokio::test]
    async fn a_panic_in_one_message_neither_loses_it_nor_stops_the_others() {
        let inbox = Inbox::new("adder", InboxLimits { capacity: 100, max_attempts: 3 });
        let (done, mut all_done) = watch::channel(0);
        let work = Arc::new(Adder { sum: 0.into(), panics_on: 5, done });
        for n in 1..=10 {
            inbox.send(n).await;
        }
        let arguments = WorkerArguments { work: work.clone(), inbox: inbox.clone(), concurrency: 3 };
        let (actor, task) =
            Actor::spawn(None, Worker::default(), arguments).await.expect("pre_start cannot fail");
        all_done.wait_for(|done| *done == 10).await.expect("the sender lives in the work");
        ractor::call!(actor, WorkerControl::Drain).expect("the worker drains");
        task.await.expect("the worker stops after a drain");
        assert_eq!((work.sum.load(Ordering::SeqCst), inbox.depth()), (55, 0));
    }

    #[tokio::test]
    async fn a_killed_worker_gives_its_messages_back() {
        struct Stuck;
        impl Work for Stuck {
            type Message = u32;
            const ROLE: &'static str = "stuck";
            async fn handle(&self, _lease: Lease<u32>) {
                std::future::pending().await
            }
        }
        let inbox = Inbox::new("stuck", InboxLimits::default());
        inbox.send(1).await;
        let arguments = WorkerArguments { work: Arc::new(Stuck), inbox: inbox.clone(), concurrency: 1 };
        let (actor, task) =
            Actor::spawn(None, Worker::default(), arguments).await.expect("pre_start cannot fail");
        while inbox.status().leased == 0 {
            tokio::task::yield_now().await;
        }
        actor.kill();
        task.await.expect("the worker ends");
        assert_eq!(*inbox.lease().await, 1);
    }
}
