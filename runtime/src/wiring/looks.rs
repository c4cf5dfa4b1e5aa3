//! What each role says of itself in `status`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use openclaw_actors::{
    engine::Engine,
    rollout::{Progress, Schedule},
    sessions::SessionsAddress,
};
use openclaw_journal::{Backlog, inbox::Inbox};
use openclaw_model::StepReport;
use tokio::sync::watch;

use super::Builder;
use crate::{
    admin::{Seen, TokenRates},
    topology::Frozen,
};

impl Builder<'_> {
    /// Puts up what every role but the simulated users says.
    pub(super) fn looks(
        &mut self,
        policies: &[Engine],
        bases: &BTreeMap<Frozen, Engine>,
        sessions: &SessionsAddress,
        in_flight: &watch::Receiver<usize>,
        steps: &watch::Receiver<Option<StepReport>>,
        rates: &TokenRates,
    ) {
        let panel = &mut self.panel;
        let (in_flight, most) = (in_flight.clone(), self.topology.actors.gateway.max_in_flight);
        panel.look("gateway", move || says(format!("{} of {most} requests in flight", *in_flight.borrow())));
        for engine in policies.iter().chain(bases.values()) {
            let (engine, rates) = (engine.clone(), rates.clone());
            panel.look(engine.name().to_owned(), move || {
                let status = engine.status();
                let rate = rates.of(engine.name()).map(|rate| format!(", {} tok/s", thousands(rate)));
                let detail = format!("{} sequences{}", status.sequences, rate.unwrap_or_default());
                Seen { version: status.up.then_some(status.version), detail, ..Seen::default() }
            });
        }
        let (evaluations, judged) = (self.inboxes.evaluations.clone(), self.inboxes.judged.clone());
        panel.look("judge", move || says(at_work(&evaluations)));
        panel.look("teacher", move || says(at_work(&judged)));
        let (versions, samples) = (self.versions.clone(), self.inboxes.samples.clone());
        let (steps, totals) = (steps.clone(), self.journal.totals());
        let batch = self.topology.actors.optimizer.batch_samples;
        let training = self.training.clone();
        panel.look("optimizer", move || {
            let (step, leased) = (totals.borrow().steps, samples.status().leased);
            let loss = steps.borrow().map(|report| format!(", loss {:.3}", report.loss)).unwrap_or_default();
            let progress = || format!("step {step}, {leased} of {batch} samples{loss}");
            let detail = training.collecting().hint().unwrap_or_else(progress);
            Seen { version: Some(versions.number()), detail, ..Seen::default() }
        });
        let versions = self.versions.clone();
        panel.look("publisher", move || Seen { version: Some(versions.number()), ..Seen::default() });
        let journal = self.journal.clone();
        panel.look("journal", move || {
            let (turns, waiting) = (journal.totals().borrow().turns, journal.queue().waiting);
            says(format!("{turns} turns, {waiting} records to write"))
        });
        let backlog = self.journal.backlog();
        panel.look("dispatcher", move || {
            let Backlog { to_judge, to_teach, ready, dead, .. } = *backlog.borrow();
            says(format!("{to_judge} to judge, {to_teach} to teach, {ready} to train, {dead} dead"))
        });
        let (backlog, sessions) = (self.journal.backlog(), sessions.clone());
        panel.look("sessions", move || {
            let Backlog { waiting, provisional, .. } = *backlog.borrow();
            let advice = advice(sessions.lonely_conversations());
            Seen { advice, ..says(in_sessions(waiting, provisional)) }
        });
    }
}

/// What a group of simulated users says.
pub fn rollout(schedule: Arc<Mutex<Schedule>>) -> impl Fn() -> Seen + Send + Sync {
    move || {
        let schedule = schedule.lock().unwrap_or_else(PoisonError::into_inner);
        let told = schedule.progress().into_iter().map(|(user, progress)| match progress {
            Progress::Open => format!("{user} goes on"),
            Progress::Satisfied { sessions } => format!("{user} satisfied after {sessions}"),
            Progress::Unsatisfied => format!("{user} gave up"),
        });
        says(told.collect::<Vec<_>>().join(", "))
    }
}

/// What a worker is at, and why work comes back to it.
fn at_work<M: Send + 'static>(inbox: &Inbox<M>) -> String {
    let in_flight = format!("{} in flight", inbox.status().leased);
    inbox.failing().map_or_else(|| in_flight.clone(), |reason| format!("{in_flight}; {reason}"))
}

/// What turns wait for, and what an operator should know of their clients.
fn in_sessions(waiting: u64, provisional: u64) -> String {
    let mut parts = vec![format!("{waiting} turns wait for what follows")];
    if provisional > 0 {
        parts.push(format!("{provisional} for a request that shows it"));
    }
    parts.join("; ")
}

/// For a client whose conversations cannot be followed.
fn advice(lonely: u64) -> Option<String> {
    let told = format!(
        "{lonely} conversations of one reply; nothing followed: does your client rewrite its history? Send \
         X-Session-Id (README, \"Use it with your agent\")"
    );
    (lonely > 0).then_some(told)
}

pub(super) fn says(detail: String) -> Seen {
    Seen { detail, ..Seen::default() }
}

/// `840`, `1.2k`, `31k`.
fn thousands(number: f64) -> String {
    match number {
        ..1000.0 => format!("{number:.0}"),
        ..10_000.0 => format!("{:.1}k", number / 1000.0),
        _ => format!("{:.0}k", number / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use openclaw_environments::{registry, world::users_of};

    use super::*;

    #[test]
    fn rates_are_short() {
        assert_eq!([0.0, 839.6, 1249.0, 31_400.0].map(thousands), ["0", "840", "1.2k", "31k"]);
    }

    #[tokio::test]
    async fn a_worker_that_is_slow_says_so_and_what_to_set() {
        let inbox = Inbox::new("judge", openclaw_journal::inbox::InboxLimits::default());
        inbox.send(1).await;
        inbox.lease().await.fail_for("slow: raise `a.key`");
        assert_eq!(at_work(&inbox), "0 in flight; slow: raise `a.key`");
    }

    #[test]
    fn a_client_that_is_not_understood_is_told_of() {
        assert_eq!(in_sessions(3, 0), "3 turns wait for what follows");
        assert_eq!(in_sessions(3, 2), "3 turns wait for what follows; 2 for a request that shows it");
        assert_eq!(advice(0), None);
        assert!(advice(5).is_some_and(|told| told.starts_with("5 conversations of one reply; nothing")));
    }

    #[test]
    fn a_group_tells_how_far_each_user_has_come() {
        let environment = registry::make("calculator", registry::Table::new()).unwrap();
        let users = ["student", "ta"].map(|name| users_of(name, &environment)).concat();
        let schedule = Arc::new(Mutex::new(Schedule::new(&users, 1)));
        let first = schedule.lock().unwrap().start().unwrap();
        schedule.lock().unwrap().end(&first, false);
        assert_eq!(rollout(schedule)().detail, "student gave up, ta goes on");
    }
}
