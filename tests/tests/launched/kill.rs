//! `kill -9` at random moments under load, again and again: no answered turn, acknowledged rating or acknowledged end of
//! a session is lost, and no sample is trained twice.
//!
//! `OPENCLAW_KILLS` says how often; 12, unless given. The seed of a failed run is in its message.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use openclaw_environments::dice::Dice;
use openclaw_tests::{Launch, Ledger};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet, time::timeout};

/// Long enough for a busy machine; a wait that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// Chunks of a reply in one of which a node is killed.
const MOST_CHUNKS: usize = 400;

/// What a client saw over all lives of the node.
#[derive(Default)]
struct Seen {
    /// Ids of turns whose reply reached its end.
    completed: Mutex<HashSet<String>>,
    /// The newest version that gave a complete reply.
    version: AtomicU64,
    /// Chunks received, ever.
    chunks: watch::Sender<u64>,
    /// Ids of turns whose feedback was acknowledged.
    rated: Mutex<HashSet<String>>,
    /// Names of sessions whose end was acknowledged.
    ended: Mutex<HashSet<String>>,
    /// Acknowledgements of feedback and of session ends, ever.
    acknowledged: watch::Sender<u64>,
    /// Sessions begun, ever.
    sessions: AtomicU64,
}

/// Talks until the node is gone: each session is a question, a complaint and thanks, then a rating and the end.
async fn talk(url: String, seen: Arc<Seen>) {
    let client = reqwest::Client::new();
    'sessions: loop {
        let number = seen.sessions.fetch_add(1, Ordering::SeqCst);
        let (mut messages, mut last) = (Vec::new(), String::new());
        let question = format!("Please solve my homework: {number} + 7 = ?");
        for say in
            [question.as_str(), "No bold words and no list please, that looks machine-written.", "Thanks!"]
        {
            messages.push(json!({"role": "user", "content": say}));
            match stream(&client, &url, number, &messages, &seen).await {
                Ok((id, reply)) => {
                    messages.push(json!({"role": "assistant", "content": reply}));
                    last = id;
                }
                Err(Broken::Gone) => break 'sessions,
                Err(Broken::Told(error)) => panic!("a client was told of an error: {error}"),
            }
        }
        let (session, rating) = (format!("talk-{number}"), json!({"id": last, "rating": "up"}));
        let end = json!({"session_id": session});
        for (path, body, name, seen_by) in
            [("feedback", rating, last, &seen.rated), ("sessions/end", end, session, &seen.ended)]
        {
            let Ok(response) = client.post(format!("{url}/{path}")).json(&body).send().await else {
                break 'sessions;
            };
            assert_eq!(response.status(), 200, "{path}");
            seen_by.lock().expect("nobody panics with it").insert(name);
            seen.acknowledged.send_modify(|acknowledged| *acknowledged += 1);
        }
    }
}

enum Broken {
    /// The connection is closed: the node was killed.
    Gone,
    /// The node answered with an error, which it never may.
    Told(String),
}

async fn stream(
    client: &reqwest::Client,
    url: &str,
    session: u64,
    messages: &[Value],
    seen: &Seen,
) -> Result<(String, String), Broken> {
    let newest = seen.version.load(Ordering::SeqCst);
    let body = json!({"model": "policy", "messages": messages, "max_tokens": 48, "stream": true});
    let request = client.post(format!("{url}/chat/completions")).json(&body);
    let request = request.header("x-session-id", format!("talk-{session}"));
    let response = request.send().await.map_err(|_| Broken::Gone)?;
    if response.status() != 200 {
        return Err(Broken::Told(response.text().await.unwrap_or_default()));
    }
    let (mut text, mut bytes) = (String::new(), response.bytes_stream());
    while let Some(chunk) = bytes.next().await {
        text.push_str(&String::from_utf8_lossy(&chunk.map_err(|_| Broken::Gone)?));
        seen.chunks.send_modify(|chunks| *chunks += 1);
    }
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let Some((&"[DONE]", chunks)) = events.split_last() else { return Err(Broken::Gone) };
    let chunks: Vec<Value> = chunks.iter().map(|chunk| serde_json::from_str(chunk).expect("JSON")).collect();
    if let Some(error) = chunks.iter().find_map(|chunk| chunk.get("error")) {
        return Err(Broken::Told(error.to_string()));
    }
    let first = chunks.first().expect("a reply has chunks");
    let version = first["policy_version"].as_u64().expect("a version");
    assert!(version >= newest, "version {version} answered after version {newest}");
    seen.version.fetch_max(version, Ordering::SeqCst);
    let id = first["id"].as_str().expect("an id").to_owned();
    seen.completed.lock().expect("nobody panics with it").insert(id.clone());
    let said = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    Ok((id, said.collect()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kills_at_random_moments_lose_no_answered_turn_and_train_no_sample_twice() {
    let number = |variable: &str| std::env::var(variable).ok().map(|text| text.parse().expect("a number"));
    let kills: u64 = number("OPENCLAW_KILLS").unwrap_or(12);
    let seed = number("OPENCLAW_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let mut dice = Dice::new(seed);
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run = dir.path().join("run");
    let seen = Arc::new(Seen::default());
    let launch = || {
        Launch::new("configs/quickstart.toml", &run)
            .set("actors.optimizer.batch_samples=6")
            .set("actors.optimizer.max_wait_secs=1")
            // However far the users outrun it, what they said is learnt.
            .set("actors.optimizer.max_staleness=1000000")
            .set("breaker.max_drift=1000.0")
    };
    for _ in 0..kills {
        // Two users of the topology's own beside ours, and checkpoints that hold one step or several.
        let life = launch()
            .set("actors.rollout[0].workers=2")
            .set("actors.rollout[0].wait_for_learning=false")
            .set(&format!("actors.optimizer.checkpoint_every_steps={}", dice.between(1, 3)));
        let node = life.start();
        let mut users = JoinSet::new();
        for _ in 0..2 {
            users.spawn(talk(node.url.clone(), seen.clone()));
        }
        // Somewhere in a reply, or with the word that a rating or an end is kept.
        let (counted, more) = match dice.index(2) {
            0 => (&seen.chunks, dice.index(MOST_CHUNKS)),
            _ => (&seen.acknowledged, 1 + dice.index(3)),
        };
        let (until, mut counts) = (*counted.borrow() + more as u64, counted.subscribe());
        // What `wait_for` returns keeps the users from counting on.
        let counted = timeout(PATIENCE, counts.wait_for(|count| *count >= until)).await.is_ok();
        assert!(counted, "seed {seed}: nobody is answered\n{}", node.log());
        node.kill();
        while let Some(ended) = users.join_next().await {
            ended.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }

    // The last life is left in peace until all that is known of is learnt.
    let node = launch().set("actors.rollout=[]").start();
    let settled = timeout(PATIENCE, async {
        while Ledger::open(&run).under_way() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(settled.await.is_ok(), "seed {seed}: {:?}\n{}", Ledger::open(&run).states(), node.log());
    assert_eq!(node.stop().code(), Some(0));
    let ledger = Ledger::open(&run);
    let completed = seen.completed.lock().expect("nobody panics with it");
    assert_eq!(ledger.missing(&*completed), Vec::<String>::new(), "seed {seed}");
    let rated = seen.rated.lock().expect("nobody panics with it");
    assert_eq!(ledger.not_rated(&*rated), Vec::<String>::new(), "seed {seed}");
    let ended = seen.ended.lock().expect("nobody panics with it");
    assert_eq!(ledger.not_ended(&*ended), Vec::<String>::new(), "seed {seed}");
    ledger.assert_trained_once();
    let states = ledger.states();
    eprintln!("{} answers seen, {states:?}, {} steps", completed.len(), ledger.steps().len());
    assert!(states.get("trained").is_some_and(|trained| *trained > 0), "seed {seed}: {states:?}");
    // AdamW counts its steps itself: the folder that the run would go on from has taken each of them once.
    let newest = std::fs::read_dir(run.join("versions"))
        .expect("versions are kept")
        .filter_map(|entry| entry.expect("a folder").file_name().to_str()?.parse::<u64>().ok())
        .max();
    let folder = run.join("versions").join(newest.expect("a version is kept").to_string());
    let told = std::fs::read_to_string(folder.join("version.json")).expect("it tells of itself");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["step"].as_u64(), ledger.steps().last().copied(), "seed {seed}: {told}");
}
