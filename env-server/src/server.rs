//! What the routes share: environments, the table of leases with their worlds, and the care for what has ended.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use openclaw_environments::{
    wire::{self, Counts, Listed, ListedUser},
    world::{Environment, Split, WorldError},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    config::Config,
    images::Images,
    leases::{Allocated, Begun, Denied, Leases, Reply},
    meters,
    stage::Stage,
    worker::Worker,
};

/// How often is looked for leases whose time is over, and worlds that do not end.
const CARE: Duration = Duration::from_millis(50);
/// Of a world that was interrupted and goes on.
const STUCK: Duration = Duration::from_secs(30);
/// Until a world that was closed is gone, before its lease's end is told anyway.
const CLOSE: Duration = Duration::from_secs(60);

/// A server without its sockets.
pub struct Server {
    pub(crate) config: Config,
    leases: Mutex<Leases<Worker>>,
    images: Arc<Mutex<Images>>,
}

/// Whose lease is asked for, and for how long.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// The environment, needed where there are several.
    pub env: Option<&'a str>,
    /// One of its users.
    pub user: Option<&'a str>,
    /// Leases of the same one share its run slots.
    pub task_key: &'a str,
    /// Names the request.
    pub request_id: Option<&'a str>,
    /// The lease's, if it is less than the server's.
    pub ttl: Option<Duration>,
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It cannot be read.
    #[error("{0}")]
    Request(String),
    /// By the table of leases.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// By the world.
    #[error(transparent)]
    World(#[from] WorldError),
    /// Too many requests wait already.
    #[error("too many requests of this lease wait already")]
    Busy,
}

impl Fault {
    /// As it is answered.
    pub fn reply(&self) -> Reply {
        let told = |code: &str| json!({"ok": false, "error": self.to_string(), "code": code});
        match self {
            Self::Request(_) => reply(400, &told("BAD_REQUEST")),
            Self::Busy => reply(429, &told("BUSY")),
            Self::Denied(denied) => {
                let status = match denied {
                    Denied::TaskSlots | Denied::RunSlots => 429,
                    Denied::Stopping => 503,
                    Denied::Gone => 410,
                    Denied::Reused => 409,
                    Denied::Answers => 413,
                };
                reply(status, &told(denied.code()))
            }
            Self::World(error) => {
                let status = if matches!(error, WorldError::NoTask(_)) { 404 } else { 500 };
                reply(status, &wire::fault(error))
            }
        }
    }

    /// For metrics.
    fn reason(&self) -> &'static str {
        match self {
            Self::Request(_) => "BAD_REQUEST",
            Self::Busy => "BUSY",
            Self::Denied(denied) => denied.code(),
            Self::World(error) => error.name(),
        }
    }
}

/// An answer of JSON.
pub fn reply(status: u16, body: &Value) -> Reply {
    Reply { status, body: Bytes::from(body.to_string()) }
}

impl Server {
    /// With no lease yet.
    pub fn new(config: Config) -> Arc<Self> {
        let leases = Mutex::new(Leases::new(config.limits.clone()));
        let images = Arc::new(Mutex::new(Images::new(config.image_bytes)));
        Arc::new(Self { config, leases, images })
    }

    fn leases(&self) -> MutexGuard<'_, Leases<Worker>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has been shown.
    pub fn images(&self) -> MutexGuard<'_, Images> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An environment, and its name.
    pub fn environment(
        &self,
        env: Option<&str>,
        user: Option<&str>,
    ) -> Result<(&str, Arc<dyn Environment>), Fault> {
        let all = &self.config.environments;
        let names = || all.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let (name, served) = match env {
            Some(env) => all
                .get_key_value(env)
                .ok_or_else(|| Fault::Request(format!("env: there is no \"{env}\", but {}", names())))?,
            None if all.len() == 1 => all.iter().next().expect("it has one"),
            None => return Err(Fault::Request(format!("env: which of {}", names()))),
        };
        let Some(user) = user else { return Ok((name, served.environment.clone())) };
        let found = served.environment.users().into_iter().find(|known| *known.name == *user);
        let found = found.ok_or_else(|| Fault::Request(format!("user: {name} has no \"{user}\"")))?;
        Ok((name, found.environment))
    }

    /// A lease, or the one that this request has got before.
    pub fn allocate(self: &Arc<Self>, wanted: &Wanted<'_>) -> Result<Allocated, Fault> {
        let (name, environment) = self.environment(wanted.env, wanted.user)?;
        let task_key = format!("{name}/{}", wanted.task_key);
        let id = format!("lease-{:032x}", rand::random::<u128>());
        let worker = {
            let (server, id, name, images) = (self.clone(), id.clone(), name.to_owned(), self.images.clone());
            let lease_id = id.clone();
            move || {
                let stage = move |environment, seat| Stage::new(environment, name, seat, images, lease_id);
                Worker::start(environment, stage, move || server.is_gone(&id))
            }
        };
        let hold = || {
            let broken = |error| Fault::World(WorldError::Broken(format!("no thread for it: {error}")));
            worker().map_err(broken)
        };
        let now = Instant::now();
        let allocated = self.leases().allocate(&task_key, wanted.request_id, wanted.ttl, now, id, hold)?;
        if allocated.reused {
            meters::repeated();
        }
        Ok(allocated)
    }

    /// A world's thread has ended, whatever it was that ended it.
    fn is_gone(&self, id: &str) {
        let mut leases = self.leases();
        if leases.end(id) {
            meters::ended("died", 1);
        }
        leases.free(id);
        // A world that panicked has not let go of them.
        self.images().release(id);
    }

    /// A sign of life, which waits for nothing; how long the lease lives now.
    pub fn heartbeat(&self, id: &str) -> Result<Duration, Fault> {
        Ok(self.leases().heartbeat(id, Instant::now())?)
    }

    /// Whether a lease has not ended.
    pub fn is_live(&self, id: &str) -> bool {
        self.leases().held(id, Instant::now()).is_ok()
    }

    /// Ends what the world does; the lease goes on.
    pub fn interrupt(&self, id: &str) -> Result<(), Fault> {
        let worker = self.leases().held(id, Instant::now())?.clone();
        worker.interrupt();
        Ok(())
    }

    /// Asks a world for something, or for what the same request has got before. What runs goes on, whoever waits for it.
    pub async fn ask(
        &self,
        id: &str,
        request_id: Option<&str>,
        fingerprint: u64,
        job: impl FnOnce(&mut Stage) -> Result<Value, Fault> + Send + 'static,
    ) -> Result<Reply, Fault> {
        let mut awaited = {
            let mut leases = self.leases();
            match leases.begin(id, request_id, fingerprint, Instant::now())? {
                (Begun::Again(awaited), _) => {
                    meters::repeated();
                    awaited
                }
                (Begun::New(pen, awaited), worker) => {
                    let work = move |stage: &mut Stage| {
                        let answer = job(stage);
                        // What came of it was cut off by the end of the lease.
                        let answer = if stage.is_stopped() { Err(Denied::Gone.into()) } else { answer };
                        pen.write(match answer {
                            Ok(value) => reply(200, &value),
                            Err(fault) => {
                                meters::failed(fault.reason());
                                fault.reply()
                            }
                        });
                    };
                    if let Err(fault) = worker.ask(Box::new(work)) {
                        leases.forget(id, request_id);
                        return Err(fault);
                    }
                    awaited
                }
            }
        };
        let answer = awaited.wait_for(Option::is_some).await;
        // Without an answer the thread has ended, and the lease with it.
        let answer = answer.map(|answer| answer.clone()).ok().flatten();
        answer.ok_or_else(|| Denied::Gone.into())
    }

    /// Ends a lease, and waits until nothing is left of its world; whether it was one.
    pub async fn close(&self, id: &str) -> bool {
        let (found, worker) = {
            let mut leases = self.leases();
            let worker = leases.all().find(|(known, ..)| *known == id).map(|(_, _, worker)| worker.clone());
            (leases.end(id), worker)
        };
        if found {
            meters::ended("closed", 1);
        }
        if let Some(worker) = worker {
            worker.stop();
            if timeout(CLOSE, worker.gone()).await.is_err() {
                tracing::warn!(lease = id, "a world that was closed does not end");
            }
        }
        found
    }

    /// Ends leases whose time is over and worlds that do not keep to their limits, for ever.
    pub async fn care(&self) {
        loop {
            self.look(Instant::now());
            sleep(CARE).await;
        }
    }

    fn look(&self, now: Instant) {
        let (interrupted, stopped) = {
            let mut leases = self.leases();
            let expired = leases.expire(now);
            if expired > 0 {
                tracing::info!(expired, "leases have ended without a sign of life");
                meters::ended("expired", expired);
            }
            let overdue = |(id, ended, worker): (&str, bool, &Worker)| match worker.overdue(now) {
                Some(late) if !ended => Some((id.to_owned(), late, worker.clone())),
                _ => None,
            };
            let overdue: Vec<_> = leases.all().filter_map(overdue).collect();
            for (id, late, _) in &overdue {
                if *late > STUCK && leases.end(id) {
                    tracing::warn!(lease = id.as_str(), "a world does not keep to its limits");
                    meters::ended("stuck", 1);
                }
            }
            let stopped = leases.all().filter(|(_, ended, _)| *ended).map(|(_, _, worker)| worker.clone());
            let stopped: Vec<Worker> = stopped.collect();
            let (live, ending) = leases.count();
            meters::leases(live, ending);
            (overdue, stopped)
        };
        for (_, _, worker) in interrupted {
            worker.interrupt();
        }
        for worker in stopped {
            worker.stop();
        }
    }

    /// Ends all leases, and waits until nothing is left of their worlds.
    pub async fn stop(&self) {
        let workers: Vec<Worker> = {
            let mut leases = self.leases();
            meters::ended("stopped", leases.end_all());
            leases.all().map(|(_, _, worker)| worker.clone()).collect()
        };
        let all_gone = async {
            for worker in &workers {
                worker.stop();
            }
            for worker in &workers {
                worker.gone().await;
            }
        };
        // One that has just begun is told again by `care`, which goes on meanwhile.
        if timeout(CLOSE, all_gone).await.is_err() {
            tracing::warn!("some worlds do not end, and end with the process");
        }
    }

    /// How many leases live, and how many of those that ended are not gone yet.
    pub fn count(&self) -> (usize, usize) {
        self.leases().count()
    }

    /// Every environment, as it is listed.
    pub fn listed(&self) -> Vec<Listed> {
        let counts = |environment: &dyn Environment| Counts {
            train: environment.tasks(Split::Train),
            held_out: environment.tasks(Split::HeldOut),
        };
        let all = self.config.environments.iter().map(|(name, served)| {
            let environment = &*served.environment;
            let users = environment
                .users()
                .into_iter()
                .map(|user| ListedUser { name: user.name.to_string(), tasks: counts(&*user.environment) });
            Listed {
                name: name.clone(),
                kind: served.kind.clone(),
                steps: environment.spec().steps,
                patience_secs: environment.spec().patience.as_secs_f64(),
                agent: environment.agent().name().to_owned(),
                tasks: counts(environment),
                users: users.collect(),
            }
        });
        all.collect()
    }
}
