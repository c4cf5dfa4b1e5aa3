//! A bounded queue of work that outlives the actor reading it.
//!
//! ractor mailboxes are unbounded and die with their actor, so work waits here instead. A reader *leases* a
//! message and acks it when its effect is safe; one that is not acked comes back. What that costs depends on whose
//! fault it was: a reader that panics or [fails][Lease::fail] with a message uses up one of its few attempts, one that
//! is killed uses up one of its many interruptions, and one that [postpones][Lease::postpone] it uses up nothing, so
//! that work for somebody who is away for an hour waits and does not die. A message without attempts left is a dead
//! letter. A place is given free by the ack, not by the lease, so a slow reader is felt by its senders.

mod meters;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use self::meters::Meters;

/// Most dead letters that wait for somebody to read them; more are only counted.
const DEAD_LETTERS_KEPT: usize = 64;
/// A message whose reader was killed this often is a dead letter: it may be why.
const MOST_INTERRUPTIONS: u32 = 32;
/// First and longest rest of a message that is given back.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Limits of an [`Inbox`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxLimits {
    /// Most messages that wait or are leased.
    pub capacity: usize,
    /// A message that failed this often is a dead letter.
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
    meters: Meters,
    max_attempts: u32,
    places: Arc<Semaphore>,
    arrived: Notify,
    died: Notify,
    queue: Mutex<Queue<M>>,
}

struct Queue<M> {
    waiting: VecDeque<Item<M>>,
    /// Given back for a while, by when they may be leased again and in the order of their giving back.
    resting: BTreeMap<(Instant, u64), Item<M>>,
    leased: usize,
    paused: bool,
    given_back: u64,
    dead: VecDeque<Item<M>>,
    dead_count: u64,
    /// Messages that failed for a reason and are neither acked nor dead.
    failing: usize,
    last_reason: Option<Arc<str>>,
}

struct Item<M> {
    message: M,
    sent: Instant,
    attempts: u32,
    interruptions: u32,
    rests: u32,
    /// Why it failed last.
    reason: Option<Arc<str>>,
    /// Free once the message is acked or dead; none for one that was left.
    place: Option<OwnedSemaphorePermit>,
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
    /// Messages nobody reads yet, those that rest included.
    pub waiting: usize,
    /// Messages that were given back and wait a while before they are read again.
    pub resting: usize,
    /// Messages being worked on.
    pub leased: usize,
    /// Most of both together.
    pub capacity: usize,
    /// How long the oldest message that nobody reads has waited.
    pub oldest_wait: Duration,
    /// Times a message was given back, ever.
    pub redeliveries: u64,
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
        let name = name.into();
        Self {
            shared: Arc::new(Shared {
                meters: Meters::new(&name, limits.capacity.max(1)),
                name,
                max_attempts: limits.max_attempts.max(1),
                places: Arc::new(Semaphore::new(limits.capacity.max(1))),
                arrived: Notify::new(),
                died: Notify::new(),
                queue: Mutex::new(Queue {
                    waiting: VecDeque::new(),
                    resting: BTreeMap::new(),
                    leased: 0,
                    paused: false,
                    given_back: 0,
                    dead: VecDeque::new(),
                    dead_count: 0,
                    failing: 0,
                    last_reason: None,
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
        self.push(message, Some(place));
    }

    /// Puts `message` at the end, over the limit where there is no place: for what has no time to wait for one.
    pub fn leave(&self, message: M) {
        let place = self.shared.places.clone().try_acquire_owned().ok();
        self.push(message, place);
    }

    /// Puts `message` at the end, or hands it back.
    pub fn try_send(&self, message: M) -> Result<(), Full<M>> {
        match self.shared.places.clone().try_acquire_owned() {
            Ok(place) => {
                self.push(message, Some(place));
                Ok(())
            }
            Err(_) => {
                self.shared.meters.refused.increment(1);
                Err(Full(message))
            }
        }
    }

    fn push(&self, message: M, place: Option<OwnedSemaphorePermit>) {
        let sent = Instant::now();
        let item = Item { message, sent, attempts: 0, interruptions: 0, rests: 0, reason: None, place };
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
            let rested_at = self.shared.lock().rested_at();
            match rested_at {
                Some(rested_at) => drop(timeout_at(rested_at, arrived).await),
                None => arrived.await,
            }
        }
    }

    /// The next message, if there is one and the inbox is not paused.
    pub fn try_lease(&self) -> Option<Lease<M>> {
        let mut queue = self.shared.lock();
        if queue.paused {
            return None;
        }
        let item = queue.next(Instant::now())?;
        queue.leased += 1;
        if !queue.waiting.is_empty() || !queue.resting.is_empty() {
            self.shared.arrived.notify_one();
        }
        drop(queue);
        self.shared.meters.wait.record(item.sent.elapsed());
        Some(Lease { item: Some(item), shared: self.shared.clone() })
    }

    /// Hands nothing out until [`Inbox::resume`]; leases already out go on.
    pub fn pause(&self) {
        self.shared.lock().paused = true;
        self.shared.meters.paused.set(1.0);
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.shared.lock().paused = false;
        self.shared.meters.paused.set(0.0);
        self.shared.arrived.notify_waiters();
        self.shared.arrived.notify_one();
    }

    /// What an operator sees.
    pub fn status(&self) -> InboxStatus {
        let queue = self.shared.lock();
        let unread = || queue.waiting.iter().chain(queue.resting.values());
        let waiting = queue.waiting.len() + queue.resting.len();
        InboxStatus {
            waiting,
            resting: queue.resting.len(),
            leased: queue.leased,
            capacity: waiting + queue.leased + self.shared.places.available_permits(),
            oldest_wait: unread().map(|item| item.sent.elapsed()).max().unwrap_or_default(),
            redeliveries: queue.given_back,
            dead_letters: queue.dead_count,
            paused: queue.paused,
        }
    }

    /// Messages that wait or are leased.
    pub fn depth(&self) -> usize {
        self.shared.lock().depth()
    }

    /// Why messages fail that are still to be done, if they do: the last reason that was given for one.
    pub fn failing(&self) -> Option<Arc<str>> {
        let queue = self.shared.lock();
        queue.last_reason.clone().filter(|_| queue.failing > 0)
    }

    /// What `read` makes of the oldest dead letter, of how often it was tried and of why it failed last, as soon as
    /// there is one. It stays until it is buried.
    pub async fn dead_letter<T>(&self, read: impl Fn(&M, u32, Option<&str>) -> T) -> T {
        loop {
            let died = self.shared.died.notified();
            tokio::pin!(died);
            died.as_mut().enable();
            if let Some(item) = self.shared.lock().dead.front() {
                return read(&item.message, item.attempts + item.interruptions, item.reason.as_deref());
            }
            died.await;
        }
    }

    /// Forgets the oldest dead letter.
    pub fn bury(&self) {
        self.shared.lock().dead.pop_front();
    }
}

impl<M> Queue<M> {
    fn depth(&self) -> usize {
        self.waiting.len() + self.resting.len() + self.leased
    }

    /// What has rested goes first: it is the oldest.
    fn next(&mut self, now: Instant) -> Option<Item<M>> {
        match self.resting.first_entry() {
            Some(first) if first.key().0 <= now => Some(first.remove()),
            _ => self.waiting.pop_front(),
        }
    }

    /// When there will be something to lease without a further message.
    fn rested_at(&self) -> Option<Instant> {
        self.resting.first_key_value().map(|((at, _), _)| *at).filter(|_| !self.paused)
    }
}

/// Why a message comes back.
#[derive(Clone, Copy)]
enum GivenBack {
    Failed,
    Panicked,
    Interrupted,
    Postponed,
}

impl<M> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, Queue<M>> {
        // No code of ours panics between lock and unlock with the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report_depth(&self, queue: &Queue<M>) {
        self.meters.depth.set(queue.depth() as f64);
    }

    fn give_back(&self, mut item: Item<M>, why: GivenBack) {
        let mut queue = self.lock();
        queue.leased -= 1;
        queue.given_back += 1;
        match why {
            GivenBack::Failed | GivenBack::Panicked => item.attempts += 1,
            GivenBack::Interrupted => item.interruptions += 1,
            GivenBack::Postponed => {}
        }
        let dies = item.attempts >= self.max_attempts || item.interruptions >= MOST_INTERRUPTIONS;
        let outcome = match why {
            _ if dies => {
                drop(item.place.take());
                queue.failing -= usize::from(item.reason.is_some());
                queue.dead_count += 1;
                if queue.dead.len() < DEAD_LETTERS_KEPT {
                    queue.dead.push_back(item);
                }
                self.died.notify_one();
                &self.meters.dead
            }
            GivenBack::Panicked | GivenBack::Interrupted => {
                queue.waiting.push_front(item);
                &self.meters.redelivered
            }
            GivenBack::Failed | GivenBack::Postponed => {
                let rest = REST.0.saturating_mul(1 << item.rests.min(16)).min(REST.1);
                item.rests += 1;
                let key = (Instant::now() + rest, queue.given_back);
                queue.resting.insert(key, item);
                &self.meters.postponed
            }
        };
        self.report_depth(&queue);
        drop(queue);
        outcome.increment(1);
        self.arrived.notify_one();
    }
}

/// A message being worked on. Dropping it un-acked gives it back, to be read next.
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
        queue.failing -= usize::from(item.as_ref().is_some_and(|item| item.reason.is_some()));
        self.shared.report_depth(&queue);
        drop(queue);
        drop(item);
        self.shared.meters.acked.increment(1);
    }

    /// The work cannot be done now, through no fault of the message: it rests, longer each time, and uses up no
    /// attempt.
    pub fn postpone(self) {
        self.give_back(GivenBack::Postponed);
    }

    /// The work cannot be done for this message: it uses up an attempt, and rests before the next.
    pub fn fail(self) {
        self.give_back(GivenBack::Failed);
    }

    /// The same, and why: who reads the dead letter, or asks what is wrong meanwhile, is told.
    pub fn fail_for(mut self, reason: impl Into<Arc<str>>) {
        let reason = reason.into();
        let item = self.item.as_mut().expect("a lease holds its item until it is acked or dropped");
        let is_first = item.reason.replace(reason.clone()).is_none();
        let mut queue = self.shared.lock();
        queue.failing += usize::from(is_first);
        queue.last_reason = Some(reason);
        drop(queue);
        self.give_back(GivenBack::Failed);
    }

    fn give_back(mut self, why: GivenBack) {
        if let Some(item) = self.item.take() {
            self.shared.give_back(item, why);
        }
    }

    /// Puts `message` in the place of the one that was sent.
    pub fn replace(&mut self, message: M) {
        self.item.as_mut().expect("a lease holds its item until it is acked or dropped").message = message;
    }

    /// How often this message has failed before.
    pub fn attempt(&self) -> u32 {
        self.item().attempts
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
            let panicked = std::thread::panicking();
            let why = if panicked { GivenBack::Panicked } else { GivenBack::Interrupted };
            self.shared.give_back(item, why);
        }
    }
}

impl<M: fmt::Debug> fmt::Debug for Lease<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.item().message).finish()
    }
}

#[cfg(test)]
mod tests;
