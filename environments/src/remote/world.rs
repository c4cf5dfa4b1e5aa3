//! A world that is a lease of a server: it begins with an episode, beats while it lives, and is given back.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{task::AbortHandle, time::sleep};

use super::{Shared, line::Line};
use crate::{
    stop::Stop,
    wire,
    world::{Action, ImageRef, Interrupt, Observation, Outcome, Part, Task, Verdict, World, WorldError},
};

/// Until a lease is given back; after that it ends by itself.
const CLOSE: Duration = Duration::from_secs(10);
/// Of images that nobody has asked for.
const IMAGE_BYTES: usize = 256 << 20;

/// A world.
pub(super) struct Leased {
    line: Arc<Line>,
    shared: Arc<Shared>,
    stop: Arc<Stop>,
    /// Told to whoever interrupts, too.
    lease: Arc<std::sync::Mutex<Option<Lease>>>,
    images: Vec<(ImageRef, Vec<u8>)>,
    seen: BTreeSet<String>,
}

struct Lease {
    id: String,
    heart: AbortHandle,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.heart.abort();
    }
}

impl Leased {
    pub(super) fn new(line: Arc<Line>, shared: Arc<Shared>) -> Self {
        let lease = Arc::default();
        Self { line, shared, stop: Stop::new(), lease, images: Vec::new(), seen: BTreeSet::new() }
    }

    fn lease(&self) -> std::sync::MutexGuard<'_, Option<Lease>> {
        self.lease.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Asks, until there is an answer or the world is interrupted.
    fn ask(&self, route: &'static str, body: Value, until: Instant) -> Result<Value, WorldError> {
        let (line, stop) = (self.line.clone(), self.stop.clone());
        self.line.io.wait_for(async move {
            tokio::select! {
                answer = line.post(route, body, until) => answer,
                () = stop.wanted() => Err(WorldError::Interrupted),
            }
        })
    }

    /// Asks something of the lease.
    fn of_lease(
        &mut self,
        route: &'static str,
        mut body: Value,
        until: Instant,
    ) -> Result<Value, WorldError> {
        let id = self.lease().as_ref().map(|lease| lease.id.clone());
        let id =
            id.ok_or_else(|| WorldError::Broken("no task was begun, or its lease is over".to_owned()))?;
        body["lease_id"] = id.into();
        body["request_id"] = wire::fresh_id().into();
        self.ask(route, body, until)
    }

    fn until(&self) -> Instant {
        Instant::now() + self.shared.patience()
    }

    fn allocate(&self, task: &Task, until: Instant) -> Result<Lease, WorldError> {
        let env = &self.shared.listed()?.name;
        let body = json!({
            "task_key": format!("{env}/{}", task.id), "env": env, "user": self.shared.user.as_deref(),
            "request_id": wire::fresh_id(),
        });
        let told = self.ask("/allocate", body, until)?;
        let (Some(id), Some(ttl)) = (told["lease_id"].as_str(), told["ttl_secs"].as_f64()) else {
            return Err(self.shared.odd("/allocate", "it tells no lease_id and ttl_secs"));
        };
        let beat = Duration::try_from_secs_f64(ttl / 3.0).unwrap_or(Duration::from_secs(1));
        let beat = beat.max(Duration::from_millis(10));
        let (line, body) = (self.line.clone(), json!({"lease_id": id}));
        let heart = self.line.io.spawn(async move {
            loop {
                sleep(beat).await;
                // Whether the lease is over the next request is told, too.
                if let Err(error) = line.once("/heartbeat", &body, beat).await {
                    tracing::debug!(%error, "a heartbeat was lost");
                }
            }
        });
        Ok(Lease { id: id.to_owned(), heart })
    }

    /// Fetches what an observation shows and was not shown before: its bytes go with the lease.
    fn look_at(&mut self, seen: &Observation) -> Result<(), WorldError> {
        let parts = seen.results.iter().flat_map(|result| &result.parts).chain(&seen.parts);
        let shown: Vec<ImageRef> = parts
            .filter_map(|part| match part {
                Part::Image(image) => Some(image.clone()),
                Part::Text(_) => None,
            })
            .chain(seen.shot.as_ref().map(|shot| shot.image.clone()))
            .collect();
        for image in shown {
            if !self.seen.insert(image.sha256.clone()) {
                continue;
            }
            let (line, until) = (self.line.clone(), Instant::now() + self.line.wait);
            let route = format!("/image/{}", image.sha256);
            let bytes = self.line.io.wait_for(async move { line.bytes(&route, until).await })?;
            let mut digest = String::new();
            for byte in Sha256::digest(&bytes) {
                write!(digest, "{byte:02x}").expect("a text takes all");
            }
            if digest != image.sha256 {
                return Err(self.shared.odd("/image", &format!("{} has other bytes", image.sha256)));
            }
            let held: usize = self.images.iter().map(|(_, bytes)| bytes.len()).sum();
            if held + bytes.len() > IMAGE_BYTES {
                return Err(WorldError::Broken(format!("images of more than {IMAGE_BYTES} bytes")));
            }
            self.images.push((image, bytes));
        }
        Ok(())
    }
}

impl World for Leased {
    fn reset(&mut self, task: &Task) -> Result<Observation, WorldError> {
        self.close();
        let stop = self.stop.clone();
        let _running = stop.begin();
        let until = self.until();
        let lease = self.allocate(task, until)?;
        *self.lease() = Some(lease);
        let place = json!({"split": task.split.name(), "number": task.number});
        let mut told = self.of_lease("/reset", json!({"task": place}), until)?;
        let begun =
            wire::read_task(told["task"].take()).map_err(|problem| self.shared.odd("/reset", &problem))?;
        if begun != *task {
            return Err(self.shared.odd("/reset", &format!("{} is another task there now", task.id)));
        }
        let seen = wire::read_observation(told["observation"].take())
            .map_err(|problem| self.shared.odd("/reset", &problem))?;
        self.look_at(&seen)?;
        Ok(seen)
    }

    fn step(&mut self, action: &Action) -> Result<Outcome, WorldError> {
        let stop = self.stop.clone();
        let _running = stop.begin();
        let told = self.of_lease("/step", json!({"action": wire::action(action)}), self.until())?;
        let outcome = wire::read_outcome(told).map_err(|problem| self.shared.odd("/step", &problem))?;
        self.look_at(&outcome.observation)?;
        Ok(outcome)
    }

    fn images(&mut self) -> Vec<(ImageRef, Vec<u8>)> {
        std::mem::take(&mut self.images)
    }

    fn evaluate(&mut self) -> Result<Verdict, WorldError> {
        let stop = self.stop.clone();
        let _running = stop.begin();
        let mut told = self.of_lease("/evaluate", json!({}), self.until())?;
        wire::read_verdict(told["verdict"].take()).map_err(|problem| self.shared.odd("/evaluate", &problem))
    }

    fn close(&mut self) {
        self.images.clear();
        self.seen.clear();
        let Some(lease) = self.lease().take() else { return };
        let (line, body) = (self.line.clone(), json!({"lease_id": lease.id}));
        let closed = self.line.io.wait_for(async move {
            let until = Instant::now() + CLOSE.min(line.wait);
            line.post("/close", body, until).await
        });
        if let Err(error) = closed {
            tracing::warn!(%error, "a lease is not given back, and ends by itself");
        }
    }

    fn interrupt(&self) -> Interrupt {
        let (stop, lease, line) = (self.stop.clone(), self.lease.clone(), self.line.clone());
        Arc::new(move || {
            stop.interrupt();
            let lease = lease.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let Some(body) = lease.as_ref().map(|lease| json!({"lease_id": lease.id})) else { return };
            let told = line.clone();
            line.io.spawn(async move {
                // Where it is lost, the step there ends by its own limits, or with the lease.
                if let Err(error) = told.once("/interrupt", &body, CLOSE).await {
                    tracing::debug!(%error, "an interrupt was lost");
                }
            });
        })
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        self.close();
    }
}
