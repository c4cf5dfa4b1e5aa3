//! Roles that are killed again and again under load: what was sent is handled, once.

use std::{path::Path, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use openclaw_journal::{
    Evaluate, Journal, JournalConfig, JournalError, Record, Retention, Totals, TurnId, TurnKind,
    inbox::{Inbox, InboxLimits},
};
use ractor::{Actor, ActorCell};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    chat_client::{
        ChatClient,
        tests::{completion, endpoint},
    },
    dispatch::{Dispatcher, DispatcherArguments, Route},
    journal::JournalActor,
    judge::{Judge, JudgeConfig, JudgeEngine, RecentVerdicts, Votes},
    methods::{MethodConfig, MethodKind},
    prompts::{PromptStyle, hint_answer},
    sessions::{
        ArrivedRequest, RequestMarks, Sessions, SessionsAddress, SessionsArguments, SessionsConfig,
        TurnCompleted,
    },
    teacher::{Teacher, TeacherConfig},
    tiny::{Tiny, message, record_followed, turn, user_says},
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
        let next_state = user_says("No bold.");
        record_followed(&journal, &Evaluate { turn: Arc::new(turn), next_state, undone: 0 }).await;
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
    // The backlog is told of after the totals.
    let mut backlogs = journal.backlog();
    let backlog = *backlogs.wait_for(|backlog| backlog.ready == TURNS).await.expect("the journal lives");
    assert_eq!((backlog.to_judge, backlog.to_teach, backlog.ready, backlog.dead), (0, 0, TURNS, 0));
}

/// A client that says its whole history each time, and the gateway that tells of it.
struct Client {
    name: String,
    marks: RequestMarks,
    history: Vec<Value>,
    exchanges: u32,
}

impl Client {
    fn new(number: u64) -> Self {
        let name = format!("client-{number}");
        let session_header = number.is_multiple_of(2).then(|| name.clone());
        let marks = RequestMarks { session_header, ..RequestMarks::default() };
        let history = vec![json!({"role": "user", "content": format!("I am {name}")})];
        Self { name, marks, history, exchanges: 0 }
    }

    async fn exchange(&mut self, address: &SessionsAddress, journal: &Journal) {
        self.exchanges += 1;
        let (name, number) = (&self.name, self.exchanges);
        let request = ArrivedRequest::new(self.marks.clone(), Arc::new(self.history.clone()), false);
        let arrival = address.arrive(request).await;
        assert_eq!((arrival.kind, arrival.index), (TurnKind::Main, number), "{name}");
        let reply = json!({"role": "assistant", "content": format!("reply {number} to {name}")});
        let mut turn = turn(self.history.clone(), "**four**");
        turn.id = TurnId(format!("{name}-{number}").into());
        (turn.session, turn.index) = (arrival.session, arrival.index);
        let (turn, mark) = (Arc::new(turn), arrival.fingerprint.mark(&reply));
        let completed = Record::TurnCompleted { turn: turn.clone(), mark: mark.clone() };
        journal.record(completed).await.expect("recorded");
        address.complete(TurnCompleted { turn, mark }).await;
        self.history.extend([reply, json!({"role": "user", "content": format!("remark {number}")})]);
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
            let (address, journal) = (address.clone(), journal.clone());
            tokio::spawn(async move {
                let mut client = Client::new(number);
                for _ in 0..EXCHANGES {
                    client.exchange(&address, &journal).await;
                }
            })
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

/// Once the writer of the life before has let go of the folder.
async fn open_journal(dir: &Path) -> Journal {
    loop {
        let config = JournalConfig { dir: dir.to_owned(), retention: Retention::default() };
        match Journal::open(config) {
            Ok(journal) => return journal,
            Err(JournalError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn clients_that_go_on_after_the_process_ended_find_their_sessions_and_no_turn_is_lost() {
    const CLIENTS: u64 = 6;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut clients: Vec<Client> = (0..CLIENTS).map(Client::new).collect();
    for life in 1..=4 {
        let journal = open_journal(dir.path()).await;
        let (address, inbox) = (SessionsAddress::default(), Inbox::new("judge", InboxLimits::default()));
        let (writer, writing) =
            Actor::spawn(None, JournalActor, journal.clone()).await.expect("the journal starts");
        let arguments = SessionsArguments {
            config: SessionsConfig::default(),
            journal: journal.clone(),
            address: address.clone(),
        };
        let (sessions, sessions_task) = Actor::spawn(None, Sessions, arguments).await.expect("it starts");
        let arguments = DispatcherArguments {
            journal: journal.clone(),
            evaluations: Some(Route::to(inbox.clone())),
            judged: None,
            samples: None,
        };
        let (dispatcher, carrying) = Actor::spawn(None, Dispatcher, arguments).await.expect("it starts");
        for client in &mut clients {
            for _ in 0..2 {
                client.exchange(&address, &journal).await;
            }
        }
        // Nobody judged in any life: all that was followed is handed out again.
        let followed = CLIENTS * (2 * life - 1);
        while inbox.depth() < followed as usize {
            tokio::task::yield_now().await;
        }
        let Totals { turns, next_states, sessions: conversations, .. } = *journal.totals().borrow();
        assert_eq!((turns, next_states, conversations), (2 * life * CLIENTS, followed, CLIENTS), "{life}");
        sessions.kill();
        dispatcher.kill();
        writer.kill();
        for task in [sessions_task, carrying, writing] {
            task.await.expect("it ends");
        }
    }
}
