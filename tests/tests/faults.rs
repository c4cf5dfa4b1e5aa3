//! Every part of a node fails while users talk: before its work, after it, in its thread. Users go on being answered,
//! the version never goes back, what they said is learnt from once, and nothing is lost.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use openclaw_tests::{HostedNode, Ledger};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet, time::timeout};

/// Long enough for a busy machine; a wait that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where a thread or an actor is made to panic, once.
const PANICS: &[&str] = &[
    "gateway.before_commit",
    "gateway.after_commit",
    "sessions.arrive",
    "dispatcher.before",
    "dispatcher.after",
    "judge.before",
    "judge.after",
    "teacher.before",
    "teacher.after",
    "engine.step",
    "optimizer.before_step",
    "optimizer.after_step",
    "optimizer.checkpoint_half_written",
    "optimizer.after_checkpoint",
    "optimizer.after_commit",
    "publisher.before",
    "publisher.after",
    "journal.before_write",
    "journal.before_commit",
    "journal.after_commit",
];

/// What the users saw.
#[derive(Default)]
struct Seen {
    completed: Mutex<HashSet<String>>,
    answers: watch::Sender<u64>,
    version: AtomicU64,
    over: AtomicBool,
}

/// A question, a complaint and thanks, again and again. An answer that breaks is asked for again, as a person would.
async fn talk(client: reqwest::Client, url: String, user: u64, seen: Arc<Seen>) {
    let mut number = 0;
    while !seen.over.load(Ordering::SeqCst) {
        number += 1;
        let mut messages: Vec<Value> = Vec::new();
        let question = format!("Please solve my homework: {number} + {user} = ?");
        for say in
            [question.as_str(), "No bold words and no list please, that looks machine-written.", "Thanks!"]
        {
            messages.push(json!({"role": "user", "content": say}));
            let answer = loop {
                if let Some(answer) = ask(&client, &url, user, number, &messages, &seen).await {
                    break answer;
                }
            };
            messages.push(answer);
        }
    }
}

async fn ask(
    client: &reqwest::Client,
    url: &str,
    user: u64,
    number: u64,
    messages: &[Value],
    seen: &Seen,
) -> Option<Value> {
    let newest = seen.version.load(Ordering::SeqCst);
    let body = json!({"model": "policy", "messages": messages, "max_tokens": 32});
    let request = client.post(format!("{url}/chat/completions")).json(&body);
    let request = request.header("x-session-id", format!("user-{user}-{number}"));
    let response = request.send().await.ok()?;
    if response.status() != 200 {
        return None;
    }
    let answer: Value = response.json().await.ok()?;
    let version = answer["policy_version"].as_u64().expect("a version");
    assert!(version >= newest, "version {version} answered after version {newest}");
    seen.version.fetch_max(version, Ordering::SeqCst);
    let id = answer["id"].as_str().expect("an id").to_owned();
    seen.completed.lock().expect("nobody panics with it").insert(id);
    seen.answers.send_modify(|answers| *answers += 1);
    Some(answer["choices"][0]["message"].clone())
}

/// Panics at `point` when it is reached next, and returns once it has.
async fn panic_once(point: &'static str) {
    let (fired, mut fire) = watch::channel(false);
    fail::cfg_callback(point, move || {
        if !fired.send_replace(true) {
            panic!("injected at {point}");
        }
    })
    .expect("a fail point");
    let reached = timeout(PATIENCE, fire.wait_for(|fired| *fired)).await.is_ok();
    assert!(reached, "{point} was never reached");
    fail::remove(point);
}

async fn answered(node: &HostedNode, seen: &Seen, more: u64, when: &str) {
    let mut answers = seen.answers.subscribe();
    let before = *answers.borrow();
    let answered = timeout(PATIENCE, answers.wait_for(|answers| *answers >= before + more)).await.is_ok();
    assert!(answered, "nobody is answered {when}: {:?}", node.supervisor.statuses());
}

/// Users are answered, and what they say is learnt.
async fn goes_on(node: &HostedNode, seen: &Seen, when: &str) {
    answered(node, seen, 4, when).await;
    let mut totals = node.view.journal.totals();
    let before = totals.borrow().steps;
    let learnt = timeout(PATIENCE, totals.wait_for(|totals| totals.steps > before)).await.is_ok();
    assert!(learnt, "nothing is learnt {when}: {:?}", node.supervisor.statuses());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_each_fault_users_are_answered_and_nothing_is_lost_or_learnt_twice() {
    let _scenario = fail::FailScenario::setup();
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run = dir.path().join("run");
    let sets = [
        "actors.rollout=[]",
        "actors.optimizer.batch_samples=2",
        "actors.optimizer.max_wait_secs=1",
        "actors.optimizer.max_staleness=1000000",
        "breaker.max_drift=1000.0",
        "actors.judge.deadline_secs=2",
        // Each conversation is short, and nobody ends it.
        "actors.sessions.settle_secs=0",
    ];
    let node = HostedNode::start("configs/quickstart.toml", &run, &sets).await;
    let seen = Arc::new(Seen::default());
    let mut users = JoinSet::new();
    for user in 0..3 {
        users.spawn(talk(node.client.clone(), node.url.clone(), user, seen.clone()));
    }
    goes_on(&node, &seen, "at the start").await;
    for point in PANICS {
        panic_once(point).await;
        goes_on(&node, &seen, &format!("after {point}")).await;
    }

    // A judge that never answers: users are answered, and what waited is judged once it does.
    fail::cfg("judge.never_answers", "return").expect("a fail point");
    answered(&node, &seen, 6, "while the judge does not answer").await;
    fail::remove("judge.never_answers");
    goes_on(&node, &seen, "after a judge that never answered").await;

    // A disk that is full: users are answered, and what they were told is in the journal once there is room.
    fail::cfg("journal.write_fails", "return(no room)").expect("a fail point");
    answered(&node, &seen, 1, "while the disk is full").await;
    fail::remove("journal.write_fails");
    goes_on(&node, &seen, "after a full disk").await;

    seen.over.store(true, Ordering::SeqCst);
    while let Some(ended) = users.join_next().await {
        ended.expect("no user met a version that went back");
    }
    let mut backlog = node.view.journal.backlog();
    let settled = backlog.wait_for(|backlog| {
        backlog.to_judge + backlog.to_teach + backlog.ready + backlog.leased + backlog.dead == 0
    });
    assert!(timeout(PATIENCE, settled).await.is_ok(), "{:?}", node.view.journal.backlog().borrow());
    assert_eq!(node.supervisor.stop().await, Vec::<String>::new());
    let ledger = Ledger::open(&run);
    let completed = seen.completed.lock().expect("nobody panics with it");
    assert_eq!(ledger.missing(&*completed), Vec::<String>::new());
    ledger.assert_trained_once();
}
