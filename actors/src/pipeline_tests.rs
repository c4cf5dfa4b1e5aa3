//! The way of a turn through judge, teacher, optimizer and publisher, with a real model and real threads.

use std::{sync::Arc, time::Duration};

use openclaw_journal::{
    Evaluate, Journal, Totals, TurnId,
    inbox::{Inbox, InboxLimits},
};
use openclaw_model::{GenerateEvent, GenerateRequest, SamplingParams};
use ractor::{Actor, ActorRef};
use tokio::sync::{mpsc, watch};

use crate::{
    chat_client::{
        ChatClient,
        tests::{completion, endpoint},
    },
    dispatch::{Dispatcher, DispatcherArguments, Route},
    engine::{Engine, EngineLimits},
    judge::{Judge, JudgeConfig, JudgeEngine, RecentVerdicts, Votes},
    methods::{MethodConfig, MethodKind},
    optimizer::{Optimizer, OptimizerArguments, OptimizerConfig, TrainingSlot},
    policy::{EngineActor, EngineArguments},
    prompts::{PromptStyle, hint_answer},
    publisher::{Publisher, Versions},
    teacher::{Teacher, TeacherConfig},
    tiny::{Tiny, message, open_breaker, record_followed, turn, user_says},
    worker::{Work, Worker, WorkerArguments, WorkerControl},
};

struct Loop {
    policy: Engine,
    policy_actor: ActorRef<crate::policy::EngineControl>,
    policy_arguments: EngineArguments,
    versions: Versions,
    totals: watch::Receiver<Totals>,
    journal: Journal,
    dir: tempfile::TempDir,
}

async fn worker<W: Work>(work: W, inbox: &Inbox<W::Message>) -> ActorRef<WorkerControl> {
    let arguments = WorkerArguments { work: Arc::new(work), inbox: inbox.clone(), concurrency: 2 };
    Actor::spawn(None, Worker::default(), arguments).await.expect("it starts").0
}

/// A judge that dislikes everything and wants plain sentences; steps of two samples.
async fn start(kind: MethodKind) -> Loop {
    let url = endpoint(|body| {
        let hint = body["messages"][0]["content"].as_str().is_some_and(|prompt| prompt.starts_with("[hint]"));
        let answer =
            if hint { hint_answer(Some("Write plain sentences.")) } else { "\\boxed{-1}".to_owned() };
        async move { completion(&answer) }
    })
    .await;
    let tiny = Tiny::new(5);
    let method = MethodConfig::new(kind);
    let limits = InboxLimits::default();
    let (evaluations, judged) = (Inbox::new("judge", limits), Inbox::new("teacher", limits));
    let (samples, publish) = (Inbox::new("samples", limits), Inbox::new("publisher", limits));
    let journal = Journal::in_memory();
    let versions = Versions::new(0, tiny.weights.clone());
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folders = tiny.folders(dir.path());
    let text = Tiny::text();

    let policy = Engine::new("policy.0", EngineLimits::default(), text.clone());
    let policy_arguments = EngineArguments {
        engine: policy.clone(),
        build: tiny.build_model(),
        versions: versions.clone(),
        follows: true,
    };
    let (policy_actor, _) =
        Actor::spawn(None, EngineActor, policy_arguments.clone()).await.expect("the policy starts");
    let base = Engine::new("teacher.0", EngineLimits::default(), text);
    let base_arguments = EngineArguments { engine: base.clone(), follows: false, ..policy_arguments.clone() };
    Actor::spawn(None, EngineActor, base_arguments).await.expect("the teacher's engine starts");

    let judge = Judge {
        config: JudgeConfig {
            votes: Votes::Sampled(1),
            temperature: 0.6,
            max_new_tokens: 16,
            deadline: Duration::from_secs(60),
            prompt: PromptStyle::Compact,
            history_messages: 4,
            hints: method.hint_selection(),
            hint_check: false,
            remember_hints: false,
            images: None,
        },
        engine: JudgeEngine::OpenAi(ChatClient::new(&url, "judge", None).expect("a client")),
        recent: RecentVerdicts::new(),
        teaches: method.needs_hints(),
        journal: journal.clone(),
    };
    worker(judge, &evaluations).await;
    let teacher = Teacher {
        config: TeacherConfig::for_method(&method, Duration::from_secs(60)),
        student: policy.clone(),
        teacher: base.clone(),
        journal: journal.clone(),
    };
    worker(teacher, &judged).await;
    let optimizer = OptimizerArguments {
        config: OptimizerConfig {
            batch_samples: 2,
            max_staleness: 4,
            max_wait: Duration::from_secs(3600),
            method,
            checkpoint_every_steps: 1,
            moments_every_steps: 0,
            breaker: open_breaker(),
        },
        folders: folders.clone(),
        text: Tiny::text(),
        samples: samples.clone(),
        build: tiny.build_trainer(1e-3),
        reference: Some(base),
        versions: versions.clone(),
        publisher: publish.clone(),
        journal: journal.clone(),
        slot: TrainingSlot::default(),
        reports: watch::Sender::new(None),
    };
    Actor::spawn(None, Optimizer, optimizer).await.expect("the optimizer starts");
    let publisher = Publisher {
        folders,
        keep_versions: 1,
        versions: versions.clone(),
        teacher: None,
        journal: journal.clone(),
    };
    worker(publisher, &publish).await;
    let dispatcher = DispatcherArguments {
        journal: journal.clone(),
        evaluations: Some(Route::to(evaluations)),
        judged: Some(Route::to(judged)),
        samples: Some(Route::to(samples)),
    };
    Actor::spawn(None, Dispatcher, dispatcher).await.expect("the dispatcher starts");
    let totals = journal.totals();
    Loop { policy, policy_actor, policy_arguments, versions, totals, journal, dir }
}

impl Loop {
    async fn hear_a_complaint(&self, number: usize) {
        let mut turn = turn(vec![message("user", "2 + 2?")], "**four**");
        turn.id = TurnId(format!("turn-{number}").into());
        let next_state = user_says("No bold, please.");
        let evaluate = Evaluate { turn: Arc::new(turn), next_state, undone: 0 };
        record_followed(&self.journal, &evaluate).await;
    }

    async fn serves(&self, version: u64) {
        while self.policy.version() < version {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn generate(&self, max_new_tokens: usize) -> mpsc::Receiver<GenerateEvent> {
        let request = GenerateRequest {
            drawn_ids: Vec::new(),
            prompt_ids: vec![1, 40, 41],
            sampling: SamplingParams { seed: Some(1), ..SamplingParams::default() },
            max_new_tokens,
            stop: Vec::new(),
            top_logprobs: 0,
            constraint: None,
        };
        self.policy.generate(request).await.expect("never refused")
    }
}

async fn version_of(mut events: mpsc::Receiver<GenerateEvent>) -> u64 {
    while let Some(event) = events.recv().await {
        match event {
            GenerateEvent::Finished { policy_version, .. } => return policy_version,
            GenerateEvent::Failed { error, .. } => panic!("{error}"),
            GenerateEvent::Token { .. } => {}
        }
    }
    panic!("the stream ended without an end")
}

#[tokio::test]
async fn complaints_become_versions_while_the_policy_serves() {
    for kind in [
        MethodKind::BinaryRl,
        MethodKind::Opd,
        MethodKind::Combine,
        MethodKind::Hybrid,
        MethodKind::TopkDistill,
    ] {
        let mut run = start(kind).await;
        for step in 1..=2 {
            let running = run.generate(900).await;
            for number in 0..2 {
                run.hear_a_complaint(2 * step + number).await;
            }
            run.serves(step as u64).await;
            version_of(running).await;
            assert_eq!(version_of(run.generate(1).await).await, step as u64, "{kind:?}");
        }
        let totals = *run.totals.wait_for(|totals| totals.version == 2).await.expect("the journal lives");
        assert_eq!((totals.rejected, totals.steps, totals.trained, totals.dropped), (4, 2, 4, 0), "{kind:?}");
        assert_eq!(totals.hinted, if kind == MethodKind::BinaryRl { 0 } else { 4 });
        let steps = run.journal.steps(10).await.expect("read");
        assert_eq!(steps.iter().map(|step| (step.step, step.turns)).collect::<Vec<_>>(), [(2, 2), (1, 2)]);
        let kept = run.dir.path().join("versions/2");
        while !kept.join("model.safetensors").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (_, flat) = openclaw_model::checkpoint::load(&kept).expect("a checkpoint folder");
        let current = run.versions.current().weights.to_host(&Tiny::new(5).transformer).expect("on the host");
        assert_eq!(flat, current);
    }
}

#[tokio::test]
async fn a_request_to_a_policy_that_is_down_waits_and_gets_the_current_version() {
    let run = start(MethodKind::BinaryRl).await;
    for number in 0..2 {
        run.hear_a_complaint(number).await;
    }
    run.serves(1).await;
    run.policy_actor.kill();
    // Until then a request may still reach the old thread, and what runs on a thread that is stopped fails.
    while run.policy.status().up {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (waiting, restarted) = tokio::join!(
        async { version_of(run.generate(3).await).await },
        Actor::spawn(None, EngineActor, run.policy_arguments.clone())
    );
    restarted.expect("it starts again");
    assert_eq!(waiting, 1);
}
