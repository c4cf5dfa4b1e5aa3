//! The table of leases: who holds one, until when, and what was asked of it. It knows no clock, no socket and no world, and
//! holds what it is given for each lease.

use std::{
    collections::BTreeMap,
    hash::Hasher,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use siphasher::sip::SipHasher13;
use tokio::sync::watch;

/// What a table allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Tasks that have a lease, at once.
    pub task_slots: usize,
    /// Leases of one task, at once.
    pub run_slots: usize,
    /// A lease ends this long after its last sign of life, in seconds; the most that a client may ask for.
    pub ttl_secs: f64,
    /// Answers that are kept of a lease, in MiB: one more and it takes no request that could come again.
    pub answers_mb: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { task_slots: 16, run_slots: 8, ttl_secs: 60.0, answers_mb: 64 }
    }
}

/// An answer, as it is sent and sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Of HTTP.
    pub status: u16,
    /// JSON.
    pub body: Bytes,
}

/// Why nothing was asked of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Too many tasks have leases.
    #[error("all task slots are taken")]
    TaskSlots,
    /// Too many leases of this task.
    #[error("all run slots of this task are taken")]
    RunSlots,
    /// There will be no more leases.
    #[error("the server stops")]
    Stopping,
    /// It ended, or never was.
    #[error("the lease has ended, or never was one")]
    Gone,
    /// Another request had this `request_id`.
    #[error("another request of this lease had the same request_id")]
    Reused,
    /// Its answers take too much memory.
    #[error("the answers of this lease take too much memory")]
    Answers,
}

impl Denied {
    /// As clients tell it apart.
    pub fn code(self) -> &'static str {
        match self {
            Self::TaskSlots => "TASK_SLOTS_EXHAUSTED",
            Self::RunSlots => "RUN_SLOTS_EXHAUSTED",
            Self::Stopping => "STOPPING",
            Self::Gone => "LEASE_GONE",
            Self::Reused => "REQUEST_ID_REUSED",
            Self::Answers => "ANSWERS_EXHAUSTED",
        }
    }
}

/// Where the answer of a request goes. Dropped, there will be none.
#[derive(Debug)]
pub struct Pen {
    reply: watch::Sender<Option<Reply>>,
    kept: Option<Arc<AtomicUsize>>,
}

impl Pen {
    /// Answers whoever waits, and whoever asks again.
    pub fn write(self, reply: Reply) {
        if let Some(kept) = &self.kept {
            kept.fetch_add(reply.body.len(), Ordering::Relaxed);
        }
        self.reply.send_replace(Some(reply));
    }
}

/// Where the answer of a request will be, or is.
pub type Awaited = watch::Receiver<Option<Reply>>;

/// What became of a request.
#[derive(Debug)]
pub enum Begun {
    /// It is to be done, and answered.
    New(Pen, Awaited),
    /// It came before: this is its answer, now or later.
    Again(Awaited),
}

/// A lease that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocated {
    /// Names it.
    pub id: String,
    /// It was there: the request came again.
    pub reused: bool,
    /// How long it lives without a sign of life.
    pub ttl: Duration,
}

struct Lease<W> {
    task_key: String,
    /// The request that asked for it.
    request_id: Option<String>,
    ttl: Duration,
    expires: Instant,
    /// It takes no request any more; its slot is free when its world is.
    ended: bool,
    calls: BTreeMap<String, Call>,
    kept: Arc<AtomicUsize>,
    held: W,
}

impl<W> Lease<W> {
    fn is_live(&self, now: Instant) -> bool {
        !self.ended && now < self.expires
    }
}

struct Call {
    fingerprint: u64,
    awaited: Awaited,
}

/// The table; `W` is what is held for each lease.
pub struct Leases<W> {
    limits: Limits,
    leases: BTreeMap<String, Lease<W>>,
    stopping: bool,
}

impl<W> Leases<W> {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Self { limits, leases: BTreeMap::new(), stopping: false }
    }

    /// A lease for a task, or the one that the same request has got before. `id` and `hold` are for a new one.
    pub fn allocate<E: From<Denied>>(
        &mut self,
        task_key: &str,
        request_id: Option<&str>,
        ttl: Option<Duration>,
        now: Instant,
        id: String,
        hold: impl FnOnce() -> Result<W, E>,
    ) -> Result<Allocated, E> {
        if self.stopping {
            return Err(Denied::Stopping.into());
        }
        if let Some(request_id) = request_id {
            let same = |lease: &&mut Lease<W>| {
                lease.is_live(now)
                    && lease.task_key == task_key
                    && lease.request_id.as_deref() == Some(request_id)
            };
            if let Some((id, lease)) = self.leases.iter_mut().find(|(_, lease)| same(lease)) {
                lease.expires = now + lease.ttl;
                return Ok(Allocated { id: id.clone(), reused: true, ttl: lease.ttl });
            }
        }
        let mut runs: BTreeMap<&str, usize> = BTreeMap::new();
        for lease in self.leases.values() {
            *runs.entry(&lease.task_key).or_default() += 1;
        }
        match runs.get(task_key) {
            Some(runs) if *runs >= self.limits.run_slots => return Err(Denied::RunSlots.into()),
            None if runs.len() >= self.limits.task_slots => return Err(Denied::TaskSlots.into()),
            _ => {}
        }
        let most = Duration::from_secs_f64(self.limits.ttl_secs);
        let ttl = ttl.map_or(most, |ttl| ttl.min(most));
        let lease = Lease {
            task_key: task_key.to_owned(),
            request_id: request_id.map(str::to_owned),
            ttl,
            expires: now + ttl,
            ended: false,
            calls: BTreeMap::new(),
            kept: Arc::default(),
            held: hold()?,
        };
        self.leases.insert(id.clone(), lease);
        Ok(Allocated { id, reused: false, ttl })
    }

    fn live(&mut self, id: &str, now: Instant) -> Result<&mut Lease<W>, Denied> {
        let lease = self.leases.get_mut(id).filter(|lease| lease.is_live(now));
        lease.ok_or(Denied::Gone)
    }

    /// A sign of life; how long it lives now.
    pub fn heartbeat(&mut self, id: &str, now: Instant) -> Result<Duration, Denied> {
        let lease = self.live(id, now)?;
        lease.expires = now + lease.ttl;
        Ok(lease.ttl)
    }

    /// What is held for it. It is no sign of life.
    pub fn held(&mut self, id: &str, now: Instant) -> Result<&W, Denied> {
        self.live(id, now).map(|lease| &lease.held)
    }

    /// A request, which is a sign of life. One without a name is done, whatever came before.
    pub fn begin(
        &mut self,
        id: &str,
        request_id: Option<&str>,
        fingerprint: u64,
        now: Instant,
    ) -> Result<(Begun, &W), Denied> {
        let most = self.limits.answers_mb << 20;
        let lease = self.live(id, now)?;
        lease.expires = now + lease.ttl;
        let (reply, awaited) = watch::channel(None);
        let Some(request_id) = request_id else {
            return Ok((Begun::New(Pen { reply, kept: None }, awaited), &lease.held));
        };
        match lease.calls.get(request_id) {
            Some(call) if call.fingerprint != fingerprint => Err(Denied::Reused),
            Some(call) => Ok((Begun::Again(call.awaited.clone()), &lease.held)),
            None if lease.kept.load(Ordering::Relaxed) >= most => Err(Denied::Answers),
            None => {
                let call = Call { fingerprint, awaited: awaited.clone() };
                lease.calls.insert(request_id.to_owned(), call);
                // The name counts, too.
                lease.kept.fetch_add(request_id.len() + size_of::<Call>(), Ordering::Relaxed);
                let pen = Pen { reply, kept: Some(lease.kept.clone()) };
                Ok((Begun::New(pen, awaited), &lease.held))
            }
        }
    }

    /// A request that was begun is not done after all, and may come again.
    pub fn forget(&mut self, id: &str, request_id: Option<&str>) {
        if let Some((lease, request_id)) = self.leases.get_mut(id).zip(request_id) {
            lease.calls.remove(request_id);
        }
    }

    /// Ends a lease; whether it was one. What was kept of it goes, its slot stays taken until [`Leases::free`].
    pub fn end(&mut self, id: &str) -> bool {
        match self.leases.get_mut(id) {
            Some(lease) if !lease.ended => {
                lease.ended = true;
                lease.calls.clear();
                true
            }
            _ => false,
        }
    }

    /// Ends all whose time is over. How many.
    pub fn expire(&mut self, now: Instant) -> usize {
        let over = self.leases.iter().filter(|(_, lease)| !lease.ended && now >= lease.expires);
        let over: Vec<String> = over.map(|(id, _)| id.clone()).collect();
        over.iter().filter(|id| self.end(id)).count()
    }

    /// Ends all, for good. How many.
    pub fn end_all(&mut self) -> usize {
        self.stopping = true;
        let ids: Vec<String> = self.leases.keys().cloned().collect();
        ids.iter().filter(|id| self.end(id)).count()
    }

    /// Nothing of the world of a lease is left: its slot is free.
    pub fn free(&mut self, id: &str) -> Option<W> {
        self.leases.remove(id).map(|lease| lease.held)
    }

    /// What is held for leases, and whether each has ended.
    pub fn all(&self) -> impl Iterator<Item = (&str, bool, &W)> {
        self.leases.iter().map(|(id, lease)| (id.as_str(), lease.ended, &lease.held))
    }

    /// How many leases there are, and how many of them have ended and are not free yet.
    pub fn count(&self) -> (usize, usize) {
        let ended = self.leases.values().filter(|lease| lease.ended).count();
        (self.leases.len() - ended, ended)
    }

    /// What it allows.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

/// Tells requests apart that have the same name.
pub fn fingerprint(route: &str, body: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(route.as_bytes());
    hasher.write_u8(0);
    hasher.write(body);
    hasher.finish()
}
