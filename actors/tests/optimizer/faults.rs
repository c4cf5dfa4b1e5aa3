//! The optimizer's thread or the publisher panics at each place where it can; whoever ends is started again.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fail::FailScenario;
use openclaw_actors::{
    journal::{JournalActor, JournalControl},
    methods::{MethodConfig, MethodKind},
    optimizer::{Optimizer, OptimizerArguments, OptimizerConfig, TrainingSlot},
    publisher::{Publish, Publisher, Versions},
    resume::Resume,
    worker::{Worker, WorkerArguments},
};
use openclaw_journal::{
    Journal, JournalConfig, Retention, Sample, TurnState, Verdict, VersionRow,
    inbox::{Inbox, InboxLimits},
};
use ractor::{Actor, ActorRef};
use tokio::{sync::watch, task::JoinHandle};

use crate::tiny::{Tiny, message, open_breaker, record_ready, turn};

const SAMPLES: u64 = 12;
const BATCH: usize = 2;

struct House {
    arguments: OptimizerArguments,
    published: Inbox<Publish>,
    starts: Arc<AtomicUsize>,
    writer: (ActorRef<JournalControl>, JoinHandle<()>),
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for House {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl House {
    /// On what `dir` holds, like a process that has just started.
    async fn open(dir: &Path, checkpoint_every_steps: u64, moments_every_steps: u64) -> Self {
        let tiny = Tiny::new(3);
        let config = JournalConfig { dir: dir.to_owned(), retention: Retention::default() };
        let journal = Journal::open(config).expect("a journal");
        let folders = tiny.folders(dir);
        let resume = Resume::find(&folders, &journal).await.expect("something to go on with");
        let weights = match &resume.stored {
            Some(stored) => {
                let weights = openclaw_model::Weights::from_host(&tiny.transformer, &stored.state.weights);
                Arc::new(weights.expect("the right length"))
            }
            None => tiny.weights.clone(),
        };
        let mut method = MethodConfig::new(MethodKind::BinaryRl);
        method.kl.coef = 0.0;
        // Many deaths in a row must not make a sample a dead letter here.
        let limits = InboxLimits { max_attempts: 100, ..InboxLimits::default() };
        let published = Inbox::new("publisher", limits);
        let arguments = OptimizerArguments {
            config: OptimizerConfig {
                batch_samples: BATCH,
                max_staleness: 1000,
                max_wait: Duration::from_millis(50),
                method,
                checkpoint_every_steps,
                moments_every_steps,
                breaker: open_breaker(),
            },
            samples: Inbox::new("samples", limits),
            build: tiny.build_trainer(1e-3),
            folders,
            text: Tiny::text(),
            reference: None,
            versions: Versions::new(resume.number, weights),
            publisher: published.clone(),
            journal: journal.clone(),
            slot: TrainingSlot::default(),
            reports: watch::Sender::new(None),
        };
        let writer = Actor::spawn(None, JournalActor, journal).await.expect("it writes");
        Self { arguments, published, starts: Arc::default(), writer, tasks: Vec::new() }
    }

    /// The end of a process, but for what its threads hold.
    async fn close(mut self) {
        let (writer, task) = &mut self.writer;
        writer.stop(None);
        task.await.expect("it stops");
    }

    /// Starts the optimizer and the publisher, and whichever ends again.
    fn supervise(&mut self) {
        let (arguments, starts) = (self.arguments.clone(), self.starts.clone());
        self.tasks.push(tokio::spawn(async move {
            loop {
                starts.fetch_add(1, Ordering::SeqCst);
                let (_actor, task) =
                    Actor::spawn(None, Optimizer, arguments.clone()).await.expect("it starts");
                let _ = task.await;
            }
        }));
        let OptimizerArguments { versions, folders, journal, .. } = self.arguments.clone();
        let work = Publisher { versions, folders, keep_versions: 50, teacher: None, journal };
        let work = WorkerArguments { work: Arc::new(work), inbox: self.published.clone(), concurrency: 1 };
        self.tasks.push(tokio::spawn(async move {
            let (_actor, task) = Actor::spawn(None, Worker::default(), work).await.expect("it starts");
            let _ = task.await;
        }));
    }

    async fn feed(&self, samples: u64) {
        for n in 0..samples {
            let mut turn = turn(vec![message("user", "2 + 2?")], &format!("it is {n}"));
            turn.completion.rollout_logprobs.iter_mut().for_each(|logprob| *logprob = -5.0);
            let verdict = Verdict { reward: Some(1), votes: vec![Some(1)], rule: None };
            let sample = Sample { turn: Arc::new(turn), verdict, teacher: None, standing: None };
            record_ready(&self.arguments.journal, &sample).await;
            self.arguments.samples.send(sample).await;
        }
    }

    /// Until every sample is learnt from and what was learnt is on the disk and announced.
    async fn settled(&self) {
        let learnt = async {
            loop {
                let _ = self.arguments.slot.keep().await;
                let trained = self.arguments.journal.totals().borrow().trained;
                if trained == SAMPLES && self.arguments.samples.depth() + self.published.depth() == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let settled = tokio::time::timeout(Duration::from_secs(120), learnt).await;
        let totals = *self.arguments.journal.totals().borrow();
        settled.unwrap_or_else(|_| panic!("stuck at {totals:?}"));
    }

    /// Every announced number, in order.
    fn watch_versions(&mut self) -> Arc<std::sync::Mutex<Vec<u64>>> {
        let seen = Arc::new(std::sync::Mutex::new(vec![self.arguments.versions.number()]));
        let (mut versions, list) = (self.arguments.versions.subscribe(), seen.clone());
        self.tasks.push(tokio::spawn(async move {
            while versions.changed().await.is_ok() {
                list.lock().expect("nobody panics with it").push(versions.borrow_and_update().number);
            }
        }));
        seen
    }

    /// The steps that the newest version grew from, newest first, are those that the optimizer's moments have seen,
    /// and every sample is in exactly one of them.
    async fn exactly_once(&self) {
        let journal = &self.arguments.journal;
        let states: BTreeMap<_, _> =
            journal.states().await.expect("read").into_iter().map(|(state, n)| (state.name(), n)).collect();
        assert_eq!(states.get(TurnState::Trained.name()), Some(&SAMPLES), "{states:?}");
        let steps = journal.steps(1000).await.expect("read");
        let numbers: Vec<u64> = steps.iter().rev().map(|step| step.step).collect();
        assert_eq!(
            numbers,
            (1..=numbers.len() as u64).collect::<Vec<_>>(),
            "no number is left out or used twice"
        );

        let rows: BTreeMap<u64, VersionRow> =
            journal.versions().await.expect("read").into_iter().map(|row| (row.number, row)).collect();
        let newest = journal.resumable_version().await.expect("read").expect("something was learnt");
        let (mut number, mut grown) = (newest.number, 0);
        while let Some(row) = rows.get(&number) {
            let base_step = rows.get(&row.base).map_or(0, |base| base.step);
            grown += u32::from(row.step != base_step);
            number = row.base;
        }
        let stored = self.arguments.folders.load(newest.number).expect("it is whole");
        match self.arguments.config.moments_every_steps {
            0 => assert_eq!(
                stored.state.step, grown,
                "the moments have seen every step of the line, and no other"
            ),
            // Of a step whose moments died with it, they know nothing.
            _ => assert!((1..=grown).contains(&stored.state.step), "{} of {grown}", stored.state.step),
        }
        assert!(u64::from(grown) * BATCH as u64 >= SAMPLES);
        let served = self.arguments.versions.current().weights;
        let served = served.to_host(&Tiny::new(3).transformer).expect("on the host");
        assert!(served == stored.state.weights, "what is served is what is kept");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_the_optimizer_or_the_publisher_dies_each_sample_is_learnt_from_exactly_once() {
    let places = [
        "optimizer.before_step",
        "optimizer.after_step",
        "optimizer.checkpoint_half_written",
        "optimizer.after_checkpoint",
        "optimizer.after_commit",
        "publisher.before",
        "publisher.after",
    ];
    let behind = ["optimizer.after_checkpoint", "optimizer.after_commit", "optimizer.before_moments"];
    let rounds = [(1, 0, &places[..]), (3, 0, &places), (1, 1, &behind), (1, 2, &behind)];
    for (checkpoint_every_steps, moments_every_steps, places) in rounds {
        for place in places.iter().copied() {
            let scenario = FailScenario::setup();
            let dir = tempfile::tempdir().expect("a temporary folder");
            let mut house = House::open(dir.path(), checkpoint_every_steps, moments_every_steps).await;
            let seen = house.watch_versions();
            fail::cfg(place, "1*off->1*panic->2*off->1*panic->off").expect("a place");
            house.supervise();
            house.feed(SAMPLES).await;
            house.settled().await;
            house.exactly_once().await;
            let seen = seen.lock().expect("nobody panics with it").clone();
            assert!(seen.is_sorted(), "{place}: a version went down: {seen:?}");
            let deaths = house.starts.load(Ordering::SeqCst) - 1;
            let redeliveries = house.published.status().redeliveries;
            match place.starts_with("optimizer") {
                true => assert!(deaths >= 1, "{place}: nobody died"),
                false => assert!(redeliveries >= 1, "{place}: nobody died"),
            }
            scenario.teardown();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_with_steps_in_memory_takes_them_again_under_higher_versions() {
    let scenario = FailScenario::setup();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let house = House::open(dir.path(), 100, 0).await;
    // Two steps are announced, none is on the disk, and the third never ends well.
    fail::cfg("optimizer.after_step", "2*off->panic").expect("a place");
    let (actor, task) = Actor::spawn(None, Optimizer, house.arguments.clone()).await.expect("it starts");
    house.feed(SAMPLES).await;
    task.await.expect("it ends");
    drop(actor);
    assert_eq!(house.arguments.journal.last_version_number().await.expect("read"), 2);
    assert_eq!(house.arguments.journal.totals().borrow().trained, 0);
    house.close().await;
    scenario.teardown();

    let scenario = FailScenario::setup();
    let mut house = House::open(dir.path(), 100, 0).await;
    let ready = house.arguments.journal.samples(0, 100).await.expect("read");
    assert_eq!(ready.len() as u64, SAMPLES, "every sample is ready again");
    for (_, sample) in ready {
        house.arguments.samples.send(sample).await;
    }
    house.supervise();
    house.settled().await;
    house.exactly_once().await;
    assert!(house.arguments.versions.number() > 2);
    scenario.teardown();
}
