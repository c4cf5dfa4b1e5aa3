//! Whether anyone waits behind another's long prompt: eight replies are drawn and short chats come, first alone, then
//! while a prompt of 20,000 tokens is read and 12,000 tokens are scored. `cargo bench -p openclaw-actors --bench
//! fairness -- THREADS`; the embedded model, the engine's own thread, as in a node.
#![allow(clippy::print_stdout)]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use openclaw_actors::{
    engine::{Engine, EngineLimits, Place},
    loaded_model::LoadedModel,
    publisher::Versions,
};
use openclaw_model::{GenerateEvent, GenerateRequest, SamplingParams, ScoreRequest};
use tokio::task::JoinSet;

const STREAMS: usize = 8;
const KV_TOKENS: usize = 1 << 17;

#[tokio::main]
async fn main() {
    let threads = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models/nano");
    let model = LoadedModel::open(&folder, Place::Cpu, threads).expect("the embedded model");
    let build = model.serving(4096, KV_TOKENS, threads, "policy");
    let version = Versions::new(0, model.weights.clone()).current();
    let engine = Engine::new("policy", EngineLimits::default(), model.text.clone());
    let _exited = engine.start(move || build(version)).await.expect("it starts");

    println!("{threads} threads; milliseconds");
    println!(
        "| | gap p50 | p99 | longest | short chat's first token, median | longest | long prompt | scores |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    round(&engine, "alone", false).await;
    round(&engine, "beside 20k and 12k", true).await;
}

/// Ids that no cache has seen.
fn ids(seed: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|at| 300 + (at * 7 + seed * 131 + at * at % 97) % 1500).collect()
}

fn request(prompt_ids: Vec<u32>, max_new_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        prompt_ids,
        drawn_ids: Vec::new(),
        // Hot enough that nothing ends by itself.
        sampling: SamplingParams { temperature: 2.0, seed: Some(1), ..SamplingParams::default() },
        max_new_tokens,
        stop: Vec::new(),
        top_logprobs: 0,
        constraint: None,
    }
}

async fn first_token(engine: &Engine, prompt: Vec<u32>) -> Duration {
    let asked = Instant::now();
    let mut events = engine.generate(request(prompt, 4)).await.expect("accepted");
    events.recv().await.expect("a token");
    asked.elapsed()
}

async fn round(engine: &Engine, name: &str, loaded: bool) {
    let seed = 100 * u32::from(loaded);
    let over = Arc::new(AtomicBool::new(false));
    let mut streams = JoinSet::new();
    for stream in 0..STREAMS as u32 {
        let (engine, over) = (engine.clone(), over.clone());
        streams.spawn(async move {
            let mut gaps = Vec::new();
            let mut request = request(ids(seed + stream, 200), 400);
            for again in 0.. {
                request.sampling.seed = Some(again);
                let mut events = engine.generate(request.clone()).await.expect("accepted");
                let mut last = None;
                while let Some(event) = events.recv().await.filter(|_| !over.load(Ordering::Relaxed)) {
                    if matches!(event, GenerateEvent::Token { .. }) {
                        gaps.extend(last.replace(Instant::now()).map(|last: Instant| last.elapsed()));
                    }
                }
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
            gaps
        });
    }
    let long = tokio::spawn({
        let engine = engine.clone();
        async move {
            let started = Instant::now();
            if !loaded {
                return (Duration::ZERO, Duration::ZERO);
            }
            let scored =
                ScoreRequest { ids: ids(98, 12_000), start: 1, temperature: 1.0, ..Default::default() };
            let (first, scored) = tokio::join!(first_token(&engine, ids(99, 20_000)), async {
                engine.score(scored).await.expect("scored");
                started.elapsed()
            });
            (first, scored)
        }
    });
    let mut short = Vec::new();
    for nth in 0..20 {
        short.push(first_token(engine, ids(seed + 20 + nth, 60)).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (prompt, scored) = long.await.expect("no panic");
    over.store(true, Ordering::Relaxed);
    let mut gaps: Vec<Duration> = streams.join_all().await.concat();
    gaps.sort_unstable();
    short.sort_unstable();
    let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    let at = |share: f64| ms(gaps[((gaps.len() - 1) as f64 * share) as usize]);
    let (median, longest) = (ms(short[short.len() / 2]), ms(short[short.len() - 1]));
    println!(
        "| {name} | {} | {} | {} | {median} | {longest} | {} | {} |",
        at(0.5),
        at(0.99),
        at(1.0),
        ms(prompt),
        ms(scored)
    );
}
