//! A bounded queue of work that outlives the actor reading it.
//!
//! ractor mailboxes are unbounded and die with their actor, so work waits here instead. A reader *leases* a
//! message and acks it when its effect is safe; a lease dropped before that (a panic, a killed actor) puts the
//! message back at the front. A message that keeps killing its reader ends among the dead letters. A place is
//! given free by the ack, not by the lease, so a slow reader is felt by its senders.

use std::{
    collections::VecDeque,
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// Most dead letters kept for inspection; older ones go.
const DEAD_LETTERS_KEPT: usize = 64;

/// Limits of an [`Inbox`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxLimits {
    /// Most messages that wait or are leased.
    pub capacity: usize,
    /// A message whose lease was dropped this often is a dead letter.
    pub max_attempts: u32,
}

impl Default for InboxLimits {
    fn default() -> Self {
        Self { capacity: 1024, max_attempts: 3 }
    }
}

/// A bounded, leased, acked queue. Clones are addresses of the same queue.
pub struct Inbox<M> {
    shared: Arc<Shared<M>>,
}

impl<M> Clone for Inbox<M> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<M> {
    name: String,
    max_attempts: u32,
    places: Arc<Semaphore>,
    arrived: Notify,
    queue: Mutex<Queue<M>>,
}

struct Queue<M> {
    waiting: VecDeque<Item<M>>,
    leased: usize,
    paused: bool,
    dead: VecDeque<M>,
    dead_count: u64,
}

struct Item<M> {
    message: M,
    attempt: u32,
    sent: Instant,
    place: OwnedSemaphorePermit,
}

/// The inbox had no place; the message is handed back.
#[derive(Debug, PartialEq, Eq)]
pub struct Full<M>(pub M);

impl<M> fmt::Display for Full<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("inbox is full")
    }
}

/// What an operator sees of an inbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboxStatus {
    /// Messages nobody reads yet.
    pub waiting: usize,
    /// Messages being worked on.
    pub leased: usize,
    /// Most of both together.
    pub capacity: usize,
    /// How long the message that is next has waited.
    pub oldest_wait: Duration,
    /// Messages given up on, ever.
    pub dead_letters: u64,
    /// Nothing is handed out.
    pub paused: bool,
}

/// An inbox as an operator sees it, whatever it holds.
pub trait AnyInbox: Send + Sync {
    /// [`Inbox::name`].
    fn name(&self) -> &str;
    /// [`Inbox::status`].
    fn status(&self) -> InboxStatus;
    /// [`Inbox::pause`].
    fn pause(&self);
    /// [`Inbox::resume`].
    fn resume(&self);
}

impl<M: Send + 'static> AnyInbox for Inbox<M> {
    fn name(&self) -> &str {
        self.name()
    }

    fn status(&self) -> InboxStatus {
        self.status()
    }

    fn pause(&self) {
        self.pause();
    }

    fn resume(&self) {
        self.resume();
    }
}

impl<M: Send + 'static> Inbox<M> {
    /// An empty inbox. `name` labels its metrics and must come from the topology, not from data.
    pub fn new(name: impl Into<String>, limits: InboxLimits) -> Self {
        Self {
            shared: Arc::new(Shared {
                name: name.into(),
                max_attempts: limits.max_attempts.max(1),
                places: Arc::new(Semaphore::new(limits.capacity.max(1))),
                arrived: Notify::new(),
                queue: Mutex::new(Queue {
                    waiting: VecDeque::new(),
                    leased: 0,
                    paused: false,
                    dead: VecDeque::new(),
                    dead_count: 0,
                }),
            }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Puts `message` at the end, as soon as there is a place. Send only downstream: two full inboxes that send
    /// to each other wait for ever.
    pub async fn send(&self, message: M) {
        let place = self.shared.places.clone().acquire_owned().await.expect("the semaphore is never closed");
        self.push(message, place);
    }

    /// Puts `message` at the end, or hands it back.
    pub fn try_send(&self, message: M) -> Result<(), Full<M>> {
        match self.shared.places.clone().try_acquire_owned() {
            Ok(place) => {
                self.push(message, place);
                Ok(())
            }
            Err(_) => {
                metrics::counter!("openclaw_inbox_refused_total", "inbox" => self.shared.name.clone())
                    .increment(1);
                Err(Full(message))
            }
        }
    }

    fn push(&self, message: M, place: OwnedSemaphorePermit) {
        let item = Item { message, attempt: 0, sent: Instant::now(), place };
        let mut queue = self.shared.lock();
        queue.waiting.push_back(item);
        self.shared.report_depth(&queue);
        drop(queue);
        self.shared.arrived.notify_one();
    }

    /// The next message, as soon as there is one and the inbox is not paused. Safe to cancel.
    pub async fn lease(&self) -> Lease<M> {
        loop {
            let arrived = self.shared.arrived.notified();
            tokio::pin!(arrived);
            // Registered before the look, so that a message that arrives between the two is not slept over.
            arrived.as_mut().enable();
            if let Some(lease) = self.try_lease() {
                return lease;
            }
            arrived.await;
        }
    }

    /// The next message, if there is one and the inbox is not paused.
    pub fn try_lease(&self) -> Option<Lease<M>> {
        let mut queue = self.shared.lock();
        if queue.paused {
            return None;
        }
        let item = queue.waiting.pop_front()?;
        queue.leased += 1;
        if !queue.waiting.is_empty() {
            self.shared.arrived.notify_one();
        }
        drop(queue);
        metrics::histogram!("openclaw_inbox_wait_seconds", "inbox" => self.shared.name.clone())
            .record(item.sent.elapsed().as_secs_f64());
        Some(Lease { item: Some(item), shared: self.shared.clone() })
    }

    /// Hands nothing out until [`Inbox::resume`]; leases already out go on.
    pub fn pause(&self) {
        self.shared.lock().paused = true;
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.shared.lock().paused = false;
        self.shared.arrived.notify_waiters();
        self.shared.arrived.notify_one();
    }

    /// What an operator sees.
    pub fn status(&self) -> InboxStatus {
        let queue = self.shared.lock();
        InboxStatus {
            waiting: queue.waiting.len(),
            leased: queue.leased,
            capacity: queue.waiting.len() + queue.leased + self.shared.places.available_permits(),
            oldest_wait: queue.waiting.front().map_or(Duration::ZERO, |item| item.sent.elapsed()),
            dead_letters: queue.dead_count,
            paused: queue.paused,
        }
    }

    /// Messages that wait or are leased.
    pub fn depth(&self) -> usize {
        let queue = self.shared.lock();
        queue.waiting.len() + queue.leased
    }

    /// Takes the latest dead letters.
    pub fn take_dead_letters(&self) -> Vec<M> {
        self.shared.lock().dead.drain(..).collect()
    }
}

impl<M> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, Queue<M>> {
        // No code of ours panics between lock and unlock with the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report_depth(&self, queue: &Queue<M>) {
        metrics::gauge!("openclaw_inbox_depth_messages", "inbox" => self.name.clone())
            .set((queue.waiting.len() + queue.leased) as f64);
    }

    fn give_back(&self, mut item: Item<M>) {
        let mut queue = self.lock();
        queue.leased -= 1;
        item.attempt += 1;
        let outcome = if item.attempt < self.max_attempts {
            queue.waiting.push_front(item);
            "redelivered"
        } else {
            if queue.dead.len() == DEAD_LETTERS_KEPT {
                queue.dead.pop_front();
            }
            queue.dead.push_back(item.message);
            queue.dead_count += 1;
            drop(item.place);
            "dead_letter"
        };
        self.report_depth(&queue);
        drop(queue);
        metrics::counter!("openclaw_inbox_unacked_total", "inbox" => self.name.clone(), "outcome" => outcome)
            .increment(1);
        self.arrived.notify_one();
    }
}

/// A message being worked on. Dropping it un-acked gives it back.
pub struct Lease<M> {
    item: Option<Item<M>>,
    shared: Arc<Shared<M>>,
}

impl<M> Lease<M> {
    /// The work is done and its effect safe: the message leaves the inbox.
    pub fn ack(mut self) {
        let item = self.item.take();
        let mut queue = self.shared.lock();
        queue.leased -= 1;
        self.shared.report_depth(&queue);
        drop(queue);
        drop(item);
        metrics::counter!("openclaw_inbox_acked_total", "inbox" => self.shared.name.clone()).increment(1);
    }

    /// How often this message was given back before.
    pub fn attempt(&self) -> u32 {
        self.item().attempt
    }

    /// When it was sent.
    pub fn sent(&self) -> Instant {
        self.item().sent
    }

    fn item(&self) -> &Item<M> {
        self.item.as_ref().expect("a lease holds its item until it is acked or dropped")
    }
}

impl<M> Deref for Lease<M> {
    type Target = M;
    fn deref(&self) -> &M {
        &self.item().message
    }
}

impl<M> Drop for Lease<M> {
    fn drop(&mut self) {
        if let Some(item) = self.item.take() {
            self.shared.give_back(item);
        }
    }
}

impl<M: fmt::Debug> fmt::Debug for Lease<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.item().message).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;

    fn inbox(capacity: usize, max_attempts: u32) -> Inbox<u32> {
        Inbox::new("test", InboxLimits { capacity, max_attempts })
    }

    #[tokio::test]
    async fn a_dropped_lease_is_redelivered_first() {
        let inbox = inbox(4, 3);
        inbox.send(1).await;
        inbox.send(2).await;
        drop(inbox.lease().await);
        let again = inbox.lease().await;
        assert_eq!((*again, again.attempt()), (1, 1));
        again.ack();
        assert_eq!(*inbox.lease().await, 2);
    }

    #[tokio::test]
    async fn a_message_that_keeps_failing_becomes_a_dead_letter_and_frees_its_place() {
        let inbox = inbox(1, 2);
        inbox.send(7).await;
        for _ in 0..2 {
            drop(inbox.lease().await);
        }
        let status = inbox.status();
        assert_eq!((status.waiting, status.leased, status.dead_letters, status.capacity), (0, 0, 1, 1));
        assert_eq!(inbox.take_dead_letters(), [7]);
        assert_eq!(inbox.try_send(8), Ok(()));
    }

    #[tokio::test]
    async fn a_place_is_free_after_the_ack_not_after_the_lease() {
        let inbox = inbox(1, 3);
        inbox.send(1).await;
        let lease = inbox.lease().await;
        assert_eq!(inbox.try_send(2), Err(Full(2)));
        let waiting_sender = tokio::spawn({
            let inbox = inbox.clone();
            async move { inbox.send(3).await }
        });
        lease.ack();
        waiting_sender.await.expect("the sender does not panic");
        assert_eq!(*inbox.lease().await, 3);
    }

    #[tokio::test]
    async fn a_paused_inbox_takes_and_keeps_messages() {
        let inbox = inbox(4, 3);
        inbox.pause();
        inbox.send(1).await;
        assert!(inbox.try_lease().is_none());
        let reader = tokio::spawn({
            let inbox = inbox.clone();
            async move { inbox.lease().await.ack() }
        });
        inbox.resume();
        reader.await.expect("the reader gets the message after the pause");
        assert_eq!(inbox.depth(), 0);
    }

    #[tokio::test]
    async fn every_reader_waiting_is_woken_even_when_one_gives_up() {
        let inbox = inbox(8, 3);
        {
            // A reader that is told of a message and goes away before it looks.
            let mut impatient = Box::pin(inbox.lease());
            let waker = futures::task::noop_waker();
            let mut context = std::task::Context::from_waker(&waker);
            assert!(impatient.as_mut().poll(&mut context).is_pending());
            inbox.send(1).await;
        }
        assert_eq!(*inbox.lease().await, 1);
    }

    #[tokio::test]
    async fn a_panicking_reader_loses_nothing() {
        let inbox = inbox(16, 3);
        for n in 0..10 {
            inbox.send(n).await;
        }
        let reader = tokio::spawn({
            let inbox = inbox.clone();
            async move {
                loop {
                    let lease = inbox.lease().await;
                    assert!(*lease != 4 || lease.attempt() > 0, "four");
                    lease.ack();
                }
            }
        });
        assert!(reader.await.expect_err("the reader ends by its panic").is_panic());
        let mut left = Vec::new();
        while let Some(lease) = inbox.try_lease() {
            left.push(*lease);
            lease.ack();
        }
        assert_eq!(left, [4, 5, 6, 7, 8, 9]);
    }
}
