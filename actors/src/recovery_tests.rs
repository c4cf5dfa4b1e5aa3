//! Roles that are killed again and again under load: what was sent is handled, once.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use ractor::{Actor, ActorCell};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    chat_client::{
        ChatClient,
        tests::{completion, endpoint},
    },
    dispatch::{Dispatcher, DispatcherArguments, Route},
    inbox::{Inbox, InboxLimits},
    journal::{Journal, Record, Totals},
    judge::{Judge, JudgeConfig, JudgeEngine, RecentVerdicts},
    methods::{MethodConfig, MethodKind},
    prompts::{PromptStyle, hint_answer},
    sessions::{
        ArrivedRequest, RequestMarks, Sessions, SessionsAddress, SessionsArguments, SessionsConfig,
        TurnCompleted,
    },
    teacher::{Teacher, TeacherConfig},
    tiny::{Tiny, message, record_followed, turn, user_says},
    turn::{Evaluate, TurnId, TurnKind},
    worker::{Work, Worker, WorkerArguments},
};

const KILLS: usize = 10;

type Started = (ActorCell, JoinHandle<()>);

/// An actor that is started again whenever it was killed, as a supervisor would.
struct Mortal {
    start: Box<dyn Fn() -> BoxFuture<'static, Started> + Send + Sync>,
    running: Started,
}

impl Mortal {
    async fn new<A, F>(make: F) -> Self
    where
        A: Actor,
        F: Fn() -> (A, A::Arguments) + Send + Sync + 'static,
    {
        let start = move || -> BoxFuture<'static, Started> {
            let (actor, arguments) = make();
            Box::pin(async move {
                let (actor, task) = Actor::spawn(None, actor, arguments).await.expect("it starts");
                (actor.get_cell(), task)
            })
        };
        let running = start().await;
        Self { start: Box::new(start), running }
    }

    async fn worker<W: Work>(work: W, inbox: &Inbox<W::Message>) -> Self {
        let (work, inbox) = (Arc::new(work), inbox.clone());
        Self::new(move || {
            (Worker::default(), WorkerArguments { work: work.clone(), inbox: inbox.clone(), concurrency: 3 })
        })
        .await
    }

    async fn kill(&mut self) {
        self.running.0.kill();
        (&mut self.running.1).await.expect("it ends");
        self.running = (self.start)().await;
    }
}

#[tokio::test]
async fn judge_teacher_and_dispatcher_killed_ten_times_handle_all_that_was_sent() {
    const TURNS: u64 = 60;
    let url = endpoint(|body| {
        let hint = body["messages"][0]["content"].as_str().is_some_and(|prompt| prompt.starts_with("[hint]"));
        let answer =
            if hint { hint_answer(Some("Write plain sentences.")) } else { "\\boxed{-1}".to_owned() };
        async move { completion(&answer) }
    })
    .await;
    let method = MethodConfig::new(MethodKind::Hybrid);
    let journal = Journal::in_memory();
    // Small, so that most of the work waits in the journal.
    let limits = InboxLimits { capacity: 4, ..InboxLimits::default() };
    let (evaluations, judged) = (Inbox::new("judge", limits), Inbox::new("teacher", limits));
    let judge = Judge {
        config: JudgeConfig {
            votes: 1,
            temperature: 0.6,
            max_new_tokens: 16,
            deadline: Duration::from_secs(60),
            prompt: PromptStyle::Compact,
            history_messages: 4,
            hints: method.hint_selection(),
        },
        engine: JudgeEngine::OpenAi(ChatClient::new(&url, "judge", None).expect("a client")),
        recent: RecentVerdicts::new(),
        teaches: true,
        journal: journal.clone(),
    };
    let (engine, _exited) = Tiny::new(1).engine("base.0").await;
    let teacher = Teacher {
        config: TeacherConfig::for_method(&method, Duration::from_secs(60)),
        student: engine.clone(),
        teacher: engine,
        journal: journal.clone(),
    };
    let arguments = DispatcherArguments {
        journal: journal.clone(),
        evaluations: Some(Route::to(evaluations.clone())),
        judged: Some(Route::to(judged.clone())),
        samples: None,
    };
    let mut roles = [
        Mortal::worker(judge, &evaluations).await,
        Mortal::worker(teacher, &judged).await,
        Mortal::new(move || (Dispatcher, arguments.clone())).await,
    ];
    let mut totals = journal.totals();
    for number in 0..TURNS {
        let mut turn = turn(vec![message("user", "2 + 2?")], "**four**");
        turn.id = TurnId(format!("turn-{number}").into());
        record_followed(&journal, &Evaluate { turn: Arc::new(turn), next_state: user_says("No bold.") })
            .await;
    }
    for kill in 1..=KILLS as u64 {
        // In the middle of the work, wherever each of them is.
        let due = |totals: &Totals| totals.samples >= kill * TURNS / (KILLS as u64 + 2);
        totals.wait_for(due).await.expect("the journal lives");
        for role in &mut roles {
            role.kill().await;
        }
    }
    totals.wait_for(|totals| totals.samples >= TURNS).await.expect("the journal lives");
    let Totals { samples, rejected, hinted, dropped, .. } = *totals.borrow();
    assert_eq!((samples, rejected, hinted, dropped), (TURNS, TURNS, TURNS, 0));
    let backlog = *journal.backlog().borrow();
    assert_eq!((backlog.to_judge, backlog.to_teach, backlog.ready, backlog.dead), (0, 0, TURNS, 0));
}

/// One conversation of a client that says its whole history each time, as a gateway tells of it.
async fn converse(address: SessionsAddress, journal: Journal, name: String, named: bool, exchanges: u32) {
    let session_header = named.then(|| name.clone());
    let marks = RequestMarks { session_header, ..RequestMarks::default() };
    let mut history: Vec<Value> = vec![json!({"role": "user", "content": format!("I am {name}")})];
    for exchange in 1..=exchanges {
        let request = ArrivedRequest::new(marks.clone(), Arc::new(history.clone()), false);
        let arrival = address.arrive(request).await;
        assert_eq!((arrival.kind, arrival.index), (TurnKind::Main, exchange), "{name}");
        let reply = json!({"role": "assistant", "content": format!("reply {exchange} to {name}")});
        let mut turn = turn(history.clone(), "**four**");
        (turn.session, turn.index) = (arrival.session, arrival.index);
        let (turn, mark) = (Arc::new(turn), arrival.fingerprint.mark(&reply));
        let completed = Record::TurnCompleted { turn: turn.clone(), mark: mark.clone() };
        journal.record(completed).await.expect("recorded");
        address.complete(TurnCompleted { turn, mark }).await;
        history.extend([reply, json!({"role": "user", "content": format!("remark {exchange}")})]);
    }
}

#[tokio::test]
async fn sessions_killed_ten_times_under_conversations_pair_every_turn_with_its_next_state() {
    const CONVERSATIONS: u64 = 20;
    const EXCHANGES: u64 = 12;
    let (address, journal) = (SessionsAddress::default(), Journal::in_memory());
    let arguments = SessionsArguments {
        config: SessionsConfig::default(),
        journal: journal.clone(),
        address: address.clone(),
    };
    let mut sessions = Mortal::new(move || (Sessions, arguments.clone())).await;
    let talking: Vec<JoinHandle<()>> = (0..CONVERSATIONS)
        .map(|number| {
            let name = format!("client-{number}");
            let talk = converse(address.clone(), journal.clone(), name, number % 2 == 0, EXCHANGES as u32);
            tokio::spawn(talk)
        })
        .collect();
    let mut totals = journal.totals();
    for kill in 1..=KILLS as u64 {
        let all = CONVERSATIONS * EXCHANGES;
        let due = |totals: &Totals| totals.turns >= kill * all / (KILLS as u64 + 2);
        totals.wait_for(due).await.expect("the journal lives");
        sessions.kill().await;
    }
    for talk in talking {
        talk.await.expect("every exchange found its session");
    }
    let Totals { turns, next_states, sessions, .. } = *totals.borrow();
    let followed = CONVERSATIONS * (EXCHANGES - 1);
    assert_eq!((turns, next_states, sessions), (CONVERSATIONS * EXCHANGES, followed, CONVERSATIONS));
    let backlog = *journal.backlog().borrow();
    assert_eq!((backlog.to_judge, backlog.waiting), (followed, CONVERSATIONS));
}
