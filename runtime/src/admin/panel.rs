//! What an operator sees of each role beside its supervision, and what can be done to it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use openclaw_actors::engine::Engine;
use openclaw_journal::inbox::{AnyInbox, Inbox};
use tokio::{sync::watch, time::Instant};

use crate::supervisor::ChildSpec;

/// Time constant of a token rate.
const RATE_SECS: f64 = 5.0;

/// What an actor or a role says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The version that it serves or trains.
    pub version: Option<u64>,
    /// What it is at.
    pub detail: String,
    /// What an operator should look into, although nothing has failed.
    pub advice: Option<String>,
}

type Look = Box<dyn Fn() -> Seen + Send + Sync>;
type Factory = Box<dyn Fn(usize) -> ChildSpec + Send + Sync>;

/// Every role's.
#[derive(Default)]
pub struct Panel {
    looks: BTreeMap<String, Look>,
    inboxes: BTreeMap<&'static str, Arc<dyn AnyInbox>>,
    gates: BTreeMap<&'static str, Gate>,
    factories: BTreeMap<&'static str, Factory>,
}

impl Panel {
    /// How an actor, or each of a role, is seen.
    pub fn look(&mut self, name: impl Into<String>, look: impl Fn() -> Seen + Send + Sync + 'static) {
        self.looks.insert(name.into(), Box::new(look));
    }

    /// Where a role's work waits.
    pub fn inbox<M: Send + 'static>(&mut self, role: &'static str, inbox: &Inbox<M>) {
        self.inboxes.insert(role, Arc::new(inbox.clone()));
    }

    /// What a role without an inbox waits at while it is paused.
    pub fn gate(&mut self, role: &'static str, gate: Gate) {
        self.gates.insert(role, gate);
    }

    /// Makes one more of a role, with this number.
    pub fn factory(&mut self, role: &'static str, make: impl Fn(usize) -> ChildSpec + Send + Sync + 'static) {
        self.factories.insert(role, Box::new(make));
    }

    /// What an actor says of itself, or its role of it.
    pub fn seen(&self, name: &str, role: &str) -> Seen {
        self.looks.get(name).or_else(|| self.looks.get(role)).map(|look| look()).unwrap_or_default()
    }

    /// Where a role's work waits.
    pub fn inbox_of(&self, role: &str) -> Option<&dyn AnyInbox> {
        self.inboxes.get(role).map(AsRef::as_ref)
    }

    /// Pauses or resumes a role. `None` for one that cannot be; else whether it was so already.
    pub fn set_paused(&self, role: &str, paused: bool) -> Option<bool> {
        if let Some(inbox) = self.inboxes.get(role) {
            let already = inbox.status().paused == paused;
            if paused {
                inbox.pause()
            } else {
                inbox.resume()
            }
            return Some(already);
        }
        self.gates.get(role).map(|gate| gate.set_paused(paused))
    }

    /// Roles that can be paused.
    pub fn pausable(&self) -> Vec<&'static str> {
        self.inboxes.keys().chain(self.gates.keys()).copied().collect()
    }

    /// One more of a role, with this number; `None` for a role that has a fixed number of actors.
    pub fn make(&self, role: &str, number: usize) -> Option<ChildSpec> {
        self.factories.get(role).map(|make| make(number))
    }

    /// Roles that can be scaled.
    pub fn scalable(&self) -> Vec<&'static str> {
        self.factories.keys().copied().collect()
    }
}

/// Stops those who come to it while it is paused.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// Returns once it is not paused.
    pub async fn pass(&self) {
        let mut paused = self.0.subscribe();
        paused.wait_for(|paused| !paused).await.expect("`self` holds the sender");
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        *self.0.borrow()
    }

    /// Pauses or resumes; whether it was so already.
    fn set_paused(&self, paused: bool) -> bool {
        self.0.send_replace(paused) == paused
    }
}

/// How fast engines draw tokens, lately: someone looks now and then, everyone reads.
#[derive(Clone)]
pub struct TokenRates(Arc<Mutex<Rates>>);

struct Rates {
    engines: Vec<(Engine, Rate)>,
    looked: Instant,
}

#[derive(Default)]
struct Rate {
    tokens: u64,
    per_sec: f64,
}

impl TokenRates {
    /// Of these engines.
    pub fn new(engines: &[Engine]) -> Self {
        let engines = engines.iter().map(|engine| (engine.clone(), Rate::default())).collect();
        Self(Arc::new(Mutex::new(Rates { engines, looked: Instant::now() })))
    }

    /// Looks at what was drawn since the last look.
    pub fn look(&self) {
        let mut rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let secs = rates.looked.elapsed().as_secs_f64();
        if secs == 0.0 {
            return;
        }
        rates.looked = Instant::now();
        for (engine, rate) in &mut rates.engines {
            let tokens = engine.status().generated_tokens;
            let now = tokens.saturating_sub(rate.tokens) as f64 / secs;
            rate.per_sec += (now - rate.per_sec) * (1.0 - (-secs / RATE_SECS).exp());
            rate.tokens = tokens;
        }
    }

    /// Tokens per second of one engine, if it is among these.
    pub fn of(&self, name: &str) -> Option<f64> {
        let rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rates.engines.iter().find(|(engine, _)| engine.name() == name).map(|(_, rate)| rate.per_sec)
    }

    /// Tokens per second of all of them.
    pub fn total(&self) -> f64 {
        let rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rates.engines.iter().map(|(_, rate)| rate.per_sec).sum()
    }
}

#[cfg(test)]
mod tests {
    use openclaw_journal::inbox::InboxLimits;

    use super::*;

    #[tokio::test]
    async fn a_paused_gate_lets_nobody_pass_until_it_is_resumed() {
        let mut panel = Panel::default();
        let gate = Gate::default();
        panel.gate("rollout", gate.clone());
        assert_eq!(panel.set_paused("rollout", true), Some(false));
        assert_eq!(panel.set_paused("rollout", true), Some(true));
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.pass().await }
        });
        tokio::task::yield_now().await;
        assert!(gate.is_paused() && !waiting.is_finished());
        assert_eq!(panel.set_paused("rollout", false), Some(false));
        waiting.await.unwrap();
    }

    #[test]
    fn what_is_said_of_an_actor_goes_before_what_is_said_of_its_role() {
        let mut panel = Panel::default();
        let saying = |detail: &str| {
            let seen = Seen { detail: detail.into(), ..Seen::default() };
            move || seen.clone()
        };
        panel.look("judge", saying("all"));
        panel.look("judge.1", saying("one"));
        panel.inbox("judge", &Inbox::<u32>::new("judge", InboxLimits::default()));
        assert_eq!(panel.seen("judge.0", "judge").detail, "all");
        assert_eq!(panel.seen("judge.1", "judge").detail, "one");
        assert_eq!(panel.seen("gateway", "gateway"), Seen::default());
        assert_eq!(panel.set_paused("judge", true), Some(false));
        assert!(panel.inbox_of("judge").unwrap().status().paused);
        assert_eq!((panel.set_paused("gateway", true), panel.pausable()), (None, vec!["judge"]));
        assert!(panel.make("judge", 1).is_none());
    }
}
