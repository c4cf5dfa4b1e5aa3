//! One optimizer with a tiny model, its real thread and a journal in memory.

mod versions;

use super::*;
use crate::{
    methods::{MethodKind, tests::teacher},
    tiny::{Tiny, message, open_breaker, record_ready, turn},
};
use openclaw_journal::{Recorded, TeacherSignal, Verdict, inbox::InboxLimits};
use openclaw_model::{GenerateEvent, GenerateRequest, SamplingParams};

struct Bench {
    tiny: Tiny,
    _dir: tempfile::TempDir,
    arguments: OptimizerArguments,
    engine: Engine,
    published: Inbox<Publish>,
}

async fn bench(batch_samples: usize, max_wait: Duration) -> Bench {
    let tiny = Tiny::new(3);
    let (engine, _) = tiny.engine("policy.0").await;
    let method = MethodConfig { add_teacher_top: false, ..MethodConfig::new(MethodKind::Combine) };
    let published = Inbox::new("publisher", InboxLimits::default());
    let dir = tempfile::tempdir().expect("a temporary folder");
    let arguments = OptimizerArguments {
        config: OptimizerConfig {
            batch_samples,
            max_staleness: 100,
            max_wait,
            method,
            checkpoint_every_steps: 1,
            moments_every_steps: 0,
            breaker: open_breaker(),
        },
        folders: tiny.folders(dir.path()),
        text: Tiny::text(),
        samples: Inbox::new("samples", InboxLimits::default()),
        build: tiny.build_trainer(1e-2),
        reference: Some(engine.clone()),
        versions: Versions::new(0, tiny.weights.clone()),
        publisher: published.clone(),
        journal: Journal::in_memory(),
        slot: TrainingSlot::default(),
        reports: watch::Sender::new(None),
    };
    Bench { tiny, _dir: dir, arguments, engine, published }
}

impl Bench {
    /// A sample whose rollout log-probs are the model's own.
    async fn sample(&self, answer: &str, reward: i8) -> Sample {
        let mut turn = turn(vec![message("user", "2 + 2?")], answer);
        turn.completion.rollout_logprobs = self.logprobs(&turn, &self.engine).await;
        Sample {
            turn: Arc::new(turn),
            verdict: Verdict { reward: Some(reward), votes: vec![Some(reward)], rule: None },
            teacher: None,
            standing: None,
        }
    }

    async fn logprobs(&self, turn: &openclaw_journal::Turn, engine: &Engine) -> Vec<f32> {
        let completion = &turn.completion;
        let request = ScoreRequest {
            ids: [completion.prompt_ids.as_slice(), &completion.response_ids].concat(),
            start: completion.prompt_ids.len(),
            temperature: completion.temperature,
            ..ScoreRequest::default()
        };
        engine.score(request).await.expect("a score").logprobs
    }

    async fn send(&self, sample: Sample) {
        record_ready(&self.arguments.journal, &sample).await;
        self.arguments.samples.send(sample).await;
    }

    async fn start(&self) -> (ActorRef<OptimizerControl>, ractor::concurrency::JoinHandle<()>) {
        Actor::spawn(None, Optimizer, self.arguments.clone()).await.expect("it starts")
    }
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_step_makes_the_praised_answer_likelier_and_the_blamed_one_less() {
    let bench = bench(2, LONG).await;
    let (good, bad) = (bench.sample("four", 1).await, bench.sample("**4**", -1).await);
    bench.send(good.clone()).await;
    bench.send(bad.clone()).await;
    let (_actor, _task) = bench.start().await;
    let publish = bench.published.lease().await;
    assert_eq!(publish.step, 1);
    bench.engine.load(1, publish.version.weights.clone()).await.expect("loaded");
    for (sample, sign) in [(&good, 1.0), (&bad, -1.0)] {
        let after = bench.logprobs(&sample.turn, &bench.engine).await;
        let change: f32 =
            after.iter().zip(&sample.turn.completion.rollout_logprobs).map(|(a, b)| a - b).sum();
        assert!(change * sign > 0.05, "{change} for a reward of {sign}");
    }
    assert_eq!(bench.arguments.samples.depth(), 0, "both are acked");
    let totals = *bench.arguments.journal.totals().borrow();
    assert_eq!((totals.steps, totals.trained), (1, 2));
    let report = (*bench.arguments.reports.borrow()).expect("a report");
    assert!(report.grad_norm > 0.0 && report.policy_kl.abs() < 1e-4, "on policy: {report:?}");
}

/// A sample that the model itself draws.
async fn drawn(bench: &Bench, sampling: SamplingParams) -> Sample {
    let mut turn = turn(vec![message("user", "2 + 2?")], "");
    let completion = &mut turn.completion;
    completion.temperature = sampling.temperature;
    let request = GenerateRequest {
        prompt_ids: completion.prompt_ids.clone(),
        drawn_ids: Vec::new(),
        sampling,
        max_new_tokens: 12,
        stop: Vec::new(),
        top_logprobs: 0,
        constraint: None,
    };
    let mut events = bench.engine.generate(request).await.expect("it draws");
    let mut tokens = Vec::new();
    while let Some(event) = events.recv().await {
        if let GenerateEvent::Token { token, .. } = event {
            tokens.push(token);
        }
    }
    completion.response_ids = tokens.iter().map(|token| token.id).collect();
    completion.rollout_logprobs = tokens.iter().map(|token| token.logprob).collect();
    completion.policy_logprobs = Some(tokens.iter().map(|token| token.policy_logprob).collect());
    let verdict = Verdict { reward: Some(-1), votes: Vec::new(), rule: None };
    Sample { turn: Arc::new(turn), verdict, teacher: None, standing: None }
}

#[tokio::test]
async fn what_is_drawn_greedily_or_from_a_part_is_on_policy_and_told_and_not_punished() {
    let whole = SamplingParams { seed: Some(1), ..SamplingParams::default() };
    for (sampling, is_truncated) in [
        (whole.clone(), false),
        (SamplingParams { temperature: 1.8, ..whole.clone() }, false),
        (SamplingParams { temperature: 0.0, ..whole.clone() }, true),
        (SamplingParams { temperature: 1.8, top_p: 0.5, ..whole.clone() }, true),
        (SamplingParams { top_k: 3, ..whole.clone() }, true),
        (SamplingParams { temperature: 2.0, min_p: 0.9, ..whole.clone() }, true),
    ] {
        let bench = bench(2, LONG).await;
        let shown = format!("{sampling:?}");
        for _ in 0..2 {
            let sample = drawn(&bench, sampling.clone()).await;
            bench.send(sample).await;
        }
        let (_actor, _task) = bench.start().await;
        let mut reports = bench.arguments.reports.subscribe();
        let report = reports.wait_for(Option::is_some).await.expect("it learns").expect("just waited for");
        assert!(
            (report.ratio - 1.0).abs() < 1e-4 && (report.max_ratio - 1.0).abs() < 1e-3,
            "{shown}: {report:?}"
        );
        assert_eq!(report.clip_fraction, 0.0, "{shown}");
        assert!(report.policy_kl.abs() < 1e-4, "{shown}: drift {}", report.policy_kl);
        assert_eq!(report.truncated_fraction > 0.5, is_truncated, "{shown}: {}", report.truncated_fraction);
        let steps = bench.arguments.journal.steps(1).await.expect("read");
        assert!(steps.iter().all(|step| step.withheld.is_none()), "{shown}: {steps:?}");
    }
}

#[tokio::test]
async fn what_a_person_said_after_a_sample_was_sent_is_what_is_learnt_and_what_was_taken_out_is_not() {
    let bench = bench(2, LONG).await;
    let (praised, withdrawn) = (bench.sample("four", -1).await, bench.sample("**4**", 1).await);
    for sample in [&praised, &withdrawn] {
        bench.send(sample.clone()).await;
    }
    let journal = &bench.arguments.journal;
    for word in [
        Record::Rated { turn: praised.turn.id.clone(), rating: 1 },
        Record::TurnWithdrawn { turn: withdrawn.turn.id.clone() },
    ] {
        assert_eq!(journal.record(word).await.expect("it is written"), Recorded::Done);
    }
    let (_actor, _task) = bench.start().await;
    let publish = bench.published.lease().await;
    let totals = *journal.totals().borrow();
    assert_eq!((totals.steps, totals.trained, totals.dropped), (1, 1, 1));
    bench.engine.load(1, publish.version.weights.clone()).await.expect("loaded");
    let after = bench.logprobs(&praised.turn, &bench.engine).await;
    let before = &praised.turn.completion.rollout_logprobs;
    let change: f32 = after.iter().zip(before).map(|(a, b)| a - b).sum();
    assert!(change > 0.05, "{change}: the judge had blamed it");
    assert_eq!(bench.arguments.samples.depth(), 0, "both are acked");
}

#[tokio::test]
async fn a_batch_is_not_held_up_by_samples_that_do_not_come() {
    let bench = bench(16, Duration::from_millis(200)).await;
    bench.send(bench.sample("four", 1).await).await;
    let (_actor, _task) = bench.start().await;
    assert_eq!(bench.published.lease().await.step, 1);
}

#[tokio::test]
async fn samples_that_teach_nothing_take_no_place_in_a_batch() {
    let bench = bench(2, LONG).await;
    for reward in [0, 1, 0, -1] {
        bench.send(bench.sample("four", reward).await).await;
    }
    let (_actor, _task) = bench.start().await;
    bench.published.lease().await.ack();
    let totals = *bench.arguments.journal.totals().borrow();
    assert_eq!((totals.trained, totals.dropped), (2, 2));
}

#[tokio::test]
async fn a_loss_that_is_not_finite_changes_nothing_and_is_not_tried_again() {
    let bench = bench(1, LONG).await;
    let mut poisoned = bench.sample("four", 1).await;
    let tokens = poisoned.turn.completion.response_ids.len();
    let old = poisoned.turn.completion.rollout_logprobs.clone();
    poisoned.teacher = Some(TeacherSignal { ..teacher(&old, &vec![f32::NAN; tokens]) });
    bench.send(poisoned).await;
    let (actor, task) = bench.start().await;
    let mut totals = bench.arguments.journal.totals();
    totals.wait_for(|totals| totals.quarantined == 1).await.expect("the journal lives");
    while bench.arguments.samples.depth() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bench.published.depth(), 0);

    bench.send(bench.sample("four", 1).await).await;
    let publish = bench.published.lease().await;
    let flat = publish.version.weights.to_host(&bench.tiny.transformer).expect("on the host");
    assert!(flat.iter().all(|value| value.is_finite()));
    ractor::call!(actor, OptimizerControl::Drain).expect("it drains");
    task.await.expect("it stops");
}

#[tokio::test]
async fn an_optimizer_killed_while_it_collects_gives_its_samples_back() {
    let bench = bench(2, LONG).await;
    bench.send(bench.sample("four", 1).await).await;
    let (actor, task) = bench.start().await;
    while bench.arguments.samples.status().leased == 0 {
        tokio::task::yield_now().await;
    }
    actor.kill();
    task.await.expect("it ends");
    // The next incarnation waits for the old thread, and trains on the sample once its companion is there.
    let (_actor, _task) = bench.start().await;
    bench.send(bench.sample("**4**", -1).await).await;
    bench.published.lease().await.ack();
    assert_eq!(bench.arguments.journal.totals().borrow().trained, 2);
}

#[tokio::test]
async fn a_trainer_that_cannot_be_built_says_why() {
    let mut bench = bench(2, LONG).await;
    bench.arguments.build = Arc::new(|| Err("out of memory".to_owned()));
    let error =
        Actor::spawn(None, Optimizer, bench.arguments.clone()).await.map(|_| ()).expect_err("no trainer");
    assert!(error.to_string().contains("out of memory"), "{error}");
}
