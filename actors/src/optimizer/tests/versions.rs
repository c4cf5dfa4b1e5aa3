//! Versions withheld, kept, returned to and resumed.

use openclaw_journal::VersionRow;
use openclaw_model::TrainerState;

use super::*;
use crate::{
    publisher::Publisher,
    rollback::{Rollback, RollbackError},
    worker::{Worker, WorkerArguments, WorkerControl},
};

impl Bench {
    async fn publisher(&self) -> ActorRef<WorkerControl> {
        let work = Publisher {
            versions: self.arguments.versions.clone(),
            folders: self.arguments.folders.clone(),
            keep_versions: 20,
            teacher: None,
            journal: self.arguments.journal.clone(),
        };
        let arguments =
            WorkerArguments { work: Arc::new(work), inbox: self.published.clone(), concurrency: 1 };
        Actor::spawn(None, Worker::default(), arguments).await.expect("it starts").0
    }

    fn rollback(&self) -> Rollback {
        Rollback {
            versions: self.arguments.versions.clone(),
            folders: self.arguments.folders.clone(),
            base: self.tiny.weights.clone(),
            transformer: self.tiny.transformer.clone(),
            journal: self.arguments.journal.clone(),
        }
    }

    /// Trains on one answer and waits until its version is announced.
    async fn learn(&self, answer: &str, reward: i8, version: u64) {
        self.learn_from(self.sample(answer, reward).await, version).await;
    }

    async fn learn_from(&self, sample: Sample, version: u64) {
        self.send(sample).await;
        self.announced(version).await;
    }

    /// What one step on one sample makes of a state.
    async fn step_from(&self, state: &TrainerState, sample: &Sample) -> TrainerState {
        let mut trainer = (self.arguments.build)().expect("it is built");
        trainer.restore(state).expect("it fits");
        let method = &self.arguments.config.method;
        let reference = self.logprobs(&sample.turn, &self.engine).await;
        let sequences = batch::sequences(method, std::iter::once(sample), &[reference]);
        trainer.step(&sequences, &batch::objective(method)).expect("a step");
        trainer.state().expect("on the host")
    }

    /// Waits until only `versions` keep their moments: a version is announced before the older ones are looked at.
    async fn only_moments_of(&self, versions: &[u64]) {
        let folders = &self.arguments.folders;
        let keep = |number: &u64| folders.folder(*number).join("optimizer.safetensors").exists();
        let all = async || folders.numbers().expect("read").into_iter().filter(keep).collect::<Vec<_>>();
        while all().await != versions {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn announced(&self, version: u64) {
        let mut versions = self.arguments.versions.subscribe();
        versions.wait_for(|current| current.number == version).await.expect("the versions live");
    }

    fn stored(&self, version: u64) -> TrainerState {
        self.arguments.folders.load(version).expect("a whole folder").state
    }

    async fn rows(&self) -> Vec<VersionRow> {
        self.arguments.journal.versions().await.expect("read")
    }

    fn trained(&self) -> u64 {
        self.arguments.journal.totals().borrow().trained
    }
}

async fn kill(
    bench: &Bench,
    (actor, task): (ActorRef<OptimizerControl>, ractor::concurrency::JoinHandle<()>),
) {
    actor.kill();
    task.await.expect("it ends");
    bench.arguments.slot.ended().await;
}

#[tokio::test]
async fn a_withheld_version_leaves_the_trainer_as_it_was() {
    let mut spoiled = bench(1, LONG).await;
    spoiled.arguments.config.breaker.max_drift = 2.0;
    let _running = (spoiled.start().await, spoiled.publisher().await);
    spoiled.learn("four", 1, 1).await;
    // Serving and training are three nats apart on these tokens.
    let mut sample = spoiled.sample("five", -1).await;
    let turn = Arc::get_mut(&mut sample.turn).expect("the only owner");
    turn.completion.rollout_logprobs.iter_mut().for_each(|logprob| *logprob -= 3.0);
    spoiled.send(sample).await;
    let mut totals = spoiled.arguments.journal.totals();
    totals.wait_for(|totals| totals.quarantined == 1).await.expect("the journal lives");
    assert_eq!(spoiled.arguments.versions.number(), 1, "the last good version is served on");
    spoiled.learn("**4**", -1, 2).await;

    let steps = spoiled.arguments.journal.steps(10).await.expect("read");
    let reason = steps[1].withheld.as_deref().expect("the second step is withheld");
    assert!(reason.starts_with("drift 3.") && reason.ends_with("> max_drift 2"), "{reason}");
    assert_eq!(steps.iter().map(|step| step.step).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(spoiled.arguments.samples.depth(), 0);

    let clean = bench(1, LONG).await;
    let _running = (clean.start().await, clean.publisher().await);
    clean.learn("four", 1, 1).await;
    clean.learn("**4**", -1, 2).await;
    assert!(spoiled.stored(2) == clean.stored(2), "bit for bit, moments included");
}

#[tokio::test]
async fn a_step_that_is_withheld_after_a_loss_goes_back_to_the_folder_that_was_left() {
    let mut bench = bench(1, LONG).await;
    bench.arguments.config.breaker.max_drift = 2.0;
    let _publisher = bench.publisher().await;
    let optimizer = bench.start().await;
    for (version, answer) in (1..).zip(["four", "five", "six"]) {
        bench.learn(answer, 1, version).await;
    }
    kill(&bench, optimizer).await;
    bench.arguments.folders.remove(3).expect("removed");
    let _optimizer = bench.start().await;
    bench.announced(4).await;
    let last = bench.rows().await.last().map(|row| (row.number, row.base));
    assert_eq!(last, Some((4, 2)), "it has no folder of its own");
    let mut sample = bench.sample("seven", -1).await;
    let turn = Arc::get_mut(&mut sample.turn).expect("the only owner");
    turn.completion.rollout_logprobs.iter_mut().for_each(|logprob| *logprob -= 3.0);
    bench.send(sample).await;
    let mut totals = bench.arguments.journal.totals();
    totals.wait_for(|totals| totals.quarantined == 1).await.expect("the journal lives");
    let left = bench.stored(2);
    let sample = bench.sample("**4**", -1).await;
    let expected = bench.step_from(&left, &sample).await;
    bench.learn_from(sample, 5).await;
    assert!(bench.stored(5) == expected, "bit for bit");
}

#[tokio::test]
async fn after_a_rollback_the_next_step_trains_from_the_version_returned_to() {
    let bench = bench(1, LONG).await;
    let _running = (bench.start().await, bench.publisher().await);
    bench.learn("four", 1, 1).await;
    bench.learn("five", 1, 2).await;
    bench.learn("six", 1, 3).await;
    bench.only_moments_of(&[3]).await;
    assert_eq!(bench.rollback().roll_back(1).await.expect("it is kept"), 3);
    assert_eq!(bench.arguments.versions.number(), 1);
    assert_eq!(bench.rollback().roll_back(1).await.expect("nothing to do"), 1);
    // Version 1 has let go of its moments, and the next step starts with empty ones.
    let left = TrainerState::fresh(bench.stored(1).weights);
    assert!(bench.stored(1) == left);
    let sample = bench.sample("**4**", -1).await;
    let expected = bench.step_from(&left, &sample).await;
    bench.learn_from(sample, 4).await;
    assert_eq!(bench.rows().await.last().map(|row| (row.number, row.base, row.step)), Some((4, 1, 4)));
    assert!(bench.stored(4) == expected, "bit for bit");

    bench.rollback().roll_back(0).await.expect("the base model is always there");
    bench.learn("four", 1, 5).await;
    assert!(bench.stored(5).weights == bench.stored(1).weights);
}

#[tokio::test]
async fn moments_that_come_behind_the_announcement_are_those_that_would_have_come_before_it() {
    let strict = bench(1, LONG).await;
    let _running = (strict.start().await, strict.publisher().await);
    for (version, answer) in (1..).zip(["four", "five", "six"]) {
        strict.learn(answer, 1, version).await;
    }
    for every in [1, 2] {
        let mut bench = bench(1, LONG).await;
        bench.arguments.config.moments_every_steps = every;
        let optimizer = bench.start().await;
        let publisher = bench.publisher().await;
        for (version, answer) in (1..).zip(["four", "five", "six"]) {
            bench.learn(answer, 1, version).await;
        }
        bench.arguments.slot.keep().await.expect("it is kept");
        assert!(bench.stored(3) == strict.stored(3), "bit for bit, moments included");
        drop(publisher);
        kill(&bench, optimizer).await;
        let _optimizer = bench.start().await;
        let sample = bench.sample("**4**", -1).await;
        let expected = bench.step_from(&strict.stored(3), &sample).await;
        bench.learn_from(sample, 4).await;
        bench.arguments.slot.keep().await.expect("it is kept");
        assert!(bench.stored(4) == expected, "bit for bit, moments included");
    }
}

#[tokio::test]
async fn only_the_newest_version_keeps_its_moments_and_a_run_goes_on_from_it_bit_for_bit() {
    let bench = bench(1, LONG).await;
    let _publisher = bench.publisher().await;
    let optimizer = bench.start().await;
    for (version, answer) in (1..).zip(["four", "five", "six"]) {
        bench.learn(answer, 1, version).await;
    }
    bench.only_moments_of(&[3]).await;
    // One that nobody has committed yet is not touched.
    let staged = bench.arguments.folders.stage(4, 4, "print", &bench.stored(3)).expect("written");
    staged.publish().expect("renamed");
    let kept = bench.stored(3);
    assert!(kept.step == 3 && kept.first.iter().any(|value| *value != 0.0));
    // Away from the newest and back to it: its moments are still there.
    bench.rollback().roll_back(2).await.expect("it is kept");
    bench.rollback().roll_back(3).await.expect("it is kept");
    assert!(bench.stored(3) == kept);
    kill(&bench, optimizer).await;
    let _optimizer = bench.start().await;
    let sample = bench.sample("**4**", -1).await;
    let expected = bench.step_from(&kept, &sample).await;
    bench.learn_from(sample, 4).await;
    assert!(bench.stored(4) == expected, "bit for bit, moments included");
    bench.only_moments_of(&[4]).await;
    assert_eq!(bench.arguments.folders.numbers().expect("read"), [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_version_that_cannot_be_returned_to_is_refused_and_nothing_changes() {
    let bench = bench(1, LONG).await;
    let _running = (bench.start().await, bench.publisher().await);
    for version in 1..=3 {
        bench.learn("four", 1, version).await;
    }
    bench.arguments.folders.remove(1).expect("removed");
    let torn = bench.arguments.folders.folder(2).join("model.safetensors");
    std::fs::write(&torn, "half").expect("written");
    let refused = async |version| bench.rollback().roll_back(version).await.expect_err("refused");
    assert!(matches!(refused(9).await, RollbackError::Unknown { version: 9, newest: 3 }));
    assert!(matches!(refused(1).await, RollbackError::NotKept { version: 1, .. }));
    let error = refused(2).await;
    assert!(crate::resume::chain(&error).contains("model.safetensors"), "{error}");
    assert_eq!((bench.arguments.versions.number(), bench.arguments.versions.epoch()), (3, 0));
    let current = bench.arguments.journal.current_version().await.expect("read");
    assert_eq!(current.map(|row| row.number), Some(3));
}

#[tokio::test]
async fn a_version_of_an_abandoned_line_is_not_announced() {
    let bench = bench(1, LONG).await;
    let optimizer = bench.start().await;
    bench.send(bench.sample("four", 1).await).await;
    while bench.published.depth() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Committed and not announced, when the operator returns to the base model.
    let change = bench.arguments.versions.change().await;
    change.roll_back(bench.arguments.versions.current());
    drop(change);
    let publisher = bench.publisher().await;
    ractor::call!(publisher, WorkerControl::Drain).expect("it drains");
    assert_eq!((bench.arguments.versions.number(), bench.published.depth()), (0, 0));
    kill(&bench, optimizer).await;
}

#[tokio::test]
async fn an_optimizer_that_returns_goes_on_where_the_last_one_was() {
    let bench = bench(1, LONG).await;
    let _publisher = bench.publisher().await;
    for (version, answer) in (1..).zip(["four", "five", "six"]) {
        let optimizer = bench.start().await;
        bench.learn(answer, 1, version).await;
        kill(&bench, optimizer).await;
    }
    let straight = super::bench(1, LONG).await;
    let _running = (straight.start().await, straight.publisher().await);
    for (version, answer) in (1..).zip(["four", "five", "six"]) {
        straight.learn(answer, 1, version).await;
    }
    assert!(bench.stored(3) == straight.stored(3), "three incarnations learn what one does");
    assert_eq!(bench.trained(), 3);
}

#[tokio::test]
async fn a_sample_that_is_delivered_twice_is_learnt_from_once() {
    let bench = bench(1, LONG).await;
    let _running = (bench.start().await, bench.publisher().await);
    let sample = bench.sample("four", 1).await;
    bench.send(sample.clone()).await;
    bench.arguments.samples.send(sample.clone()).await;
    bench.announced(1).await;
    bench.learn("five", 1, 2).await;
    assert_eq!((bench.trained(), bench.arguments.samples.depth()), (2, 0));
    let steps = bench.arguments.journal.steps(10).await.expect("read");
    assert_eq!(steps.len(), 2);
}

#[tokio::test]
async fn steps_in_memory_hold_their_samples_until_a_folder_holds_what_they_taught() {
    let mut bench = bench(1, LONG).await;
    bench.arguments.config.checkpoint_every_steps = 3;
    let _publisher = bench.publisher().await;
    let optimizer = bench.start().await;
    bench.learn("four", 1, 1).await;
    bench.learn("five", 1, 2).await;
    assert_eq!((bench.trained(), bench.arguments.samples.status().leased), (0, 2));
    assert!(bench.arguments.folders.numbers().expect("read").is_empty());
    for _ in 0..2 {
        assert_eq!(bench.arguments.slot.keep().await, Ok(2), "asked twice, kept once");
        assert_eq!((bench.trained(), bench.arguments.samples.depth()), (2, 0));
    }
    for version in 3..=5 {
        bench.learn("six", 1, version).await;
    }
    assert_eq!(bench.arguments.folders.numbers().expect("read"), [2, 5]);
    // An orderly end keeps what is in memory.
    bench.learn("seven", 1, 6).await;
    let (actor, task) = optimizer;
    ractor::call!(actor, OptimizerControl::Drain).expect("it drains");
    task.await.expect("it stops");
    assert_eq!((bench.trained(), bench.arguments.folders.numbers().expect("read")), (6, vec![2, 5, 6]));
    assert_eq!(bench.arguments.slot.keep().await, Err(KeepError::Down));
}

#[tokio::test]
async fn a_torn_version_is_set_aside_and_what_it_learnt_is_learnt_again() {
    let bench = bench(1, LONG).await;
    let _publisher = bench.publisher().await;
    let optimizer = bench.start().await;
    bench.learn("four", 1, 1).await;
    bench.learn("five", 1, 2).await;
    bench.learn("six", 1, 3).await;
    kill(&bench, optimizer).await;
    for version in [2, 3] {
        let torn = bench.arguments.folders.folder(version).join("model.safetensors");
        std::fs::write(&torn, "half").expect("written");
    }
    let _optimizer = bench.start().await;
    bench.announced(4).await;
    let rows = bench.rows().await;
    assert_eq!(rows.last().map(|row| (row.number, row.base, row.step)), Some((4, 1, 1)));
    let current = bench.arguments.versions.current().weights.to_host(&bench.tiny.transformer);
    assert!(current.expect("on the host") == bench.stored(1).weights);
    let ready = bench.arguments.journal.samples(0, 10).await.expect("read");
    assert_eq!((bench.trained(), ready.len()), (1, 2), "two samples are ready again");
    for (version, (_, sample)) in (5..).zip(ready) {
        bench.arguments.samples.send(sample).await;
        bench.announced(version).await;
    }
    assert_eq!(bench.trained(), 3);
    assert!(bench.arguments.folders.folder(3).with_extension("torn").exists());
}

#[tokio::test]
async fn folders_that_the_journal_does_not_know_are_not_removed() {
    let bench = bench(1, LONG).await;
    let state = TrainerState::fresh(bench.tiny.flat.to_vec());
    let foreign = bench.arguments.folders.stage(7, 7, "print", &state).expect("written");
    foreign.publish().expect("renamed");
    let refused = Actor::spawn(None, Optimizer, bench.arguments.clone()).await.map(|_| ());
    let error = refused.expect_err("it does not start").to_string();
    assert!(error.contains("versions/7"), "{error}");
    assert!(bench.arguments.folders.folder(7).exists());
}
