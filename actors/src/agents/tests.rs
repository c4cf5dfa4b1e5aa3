use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Mutex,
    time::Duration,
};

use openclaw_environments::{registry, world::Split};
use openclaw_journal::{EpisodeId, EpisodeState, Journal, NextState, SessionId};
use openclaw_model::{FinishReason, GenerateEvent, GenerateRequest, ScoreRequest, Scored, TokenLogprob};
use ractor::{Actor, ActorRef};

use super::*;
use crate::{
    engine::{Engine, EngineLimits, EngineText, Exited, PolicyWeights, ServingModel},
    methods::{MethodConfig, MethodKind},
    pictures::Pictures,
    rollout::{Rollout, RolloutControl},
    tiny::Tiny,
};

mod film;

/// What a policy says to a prompt when it is asked the n-th time.
type Script = fn(&str, usize) -> String;

/// A model that says what a script has it say.
struct Scripted {
    text: EngineText,
    script: Script,
    asked: HashMap<String, usize>,
    queue: Vec<(u64, GenerateEvent)>,
    next: u64,
}

impl ServingModel for Scripted {
    fn submit(&mut self, request: GenerateRequest) -> Result<u64, String> {
        let tokenizer = &self.text.tokenizer;
        let prompt = tokenizer.decode(&request.prompt_ids, false);
        let asked = self.asked.entry(prompt.clone()).or_default();
        let says = (self.script)(&prompt, *asked);
        *asked += 1;
        self.next += 1;
        let mut ids = tokenizer.encode(&says).map_err(|error| error.to_string())?;
        let end = tokenizer.special_id("<|im_end|>").ok_or("no end")?;
        let is_cut = ids.len() >= request.max_new_tokens;
        ids.truncate(request.max_new_tokens);
        let mut token = |id: u32, text: String| {
            let token =
                TokenLogprob { id, logprob: -0.5, policy_logprob: -0.5, raw_logprob: -0.5, top: Vec::new() };
            self.queue.push((self.next, GenerateEvent::Token { token, text, policy_version: 3 }));
        };
        for id in ids {
            token(id, tokenizer.decode(&[id], false));
        }
        let reason = if is_cut { FinishReason::Length } else { FinishReason::Stop };
        if !is_cut {
            token(end, String::new());
        }
        let end =
            GenerateEvent::Finished { reason, text: String::new(), policy_version: 3, cached_tokens: 0 };
        self.queue.push((self.next, end));
        Ok(self.next)
    }
    fn cancel(&mut self, sequence: u64) {
        self.queue.retain(|(of, _)| *of != sequence);
    }
    fn step(&mut self) -> Result<Vec<(u64, GenerateEvent)>, String> {
        Ok(std::mem::take(&mut self.queue))
    }
    fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }
    fn load(&mut self, _: u64, _: PolicyWeights) -> Result<(), String> {
        Ok(())
    }
    fn submit_score(&mut self, _: ScoreRequest) -> Result<u64, String> {
        Err("it scores nothing".to_owned())
    }
    fn step_scores(&mut self) -> Result<Vec<(u64, Scored)>, String> {
        Ok(Vec::new())
    }
    fn is_scoring(&self) -> bool {
        false
    }
    fn version(&self) -> u64 {
        3
    }
}

async fn engine(script: Script) -> (Engine, Exited) {
    let text = Tiny::text();
    let engine = Engine::new("scripted", EngineLimits::default(), text.clone());
    let model = Scripted { text, script, asked: HashMap::new(), queue: Vec::new(), next: 0 };
    let exited = engine.start(move || Ok(Box::new(model))).await.expect("it starts");
    (engine, exited)
}

/// The sum of a task, as its first user message has it.
fn sum_in(prompt: &str) -> String {
    let asked = prompt.split("<|im_start|>user\n").nth(1).expect("someone asked");
    let asked = asked.split("<|im_end|>").next().expect("its text");
    let kept = |c: char| c.is_ascii_digit() || "+-* ".contains(c);
    asked.split(|c| !kept(c)).max_by_key(|part| part.trim().len()).expect("a sum").trim().to_owned()
}

fn value(sum: &str) -> i64 {
    let words: Vec<&str> = sum.split_whitespace().collect();
    let number = |at: usize| words[at].parse::<i64>().expect("a number");
    match words[1] {
        "+" => number(0) + number(2),
        "-" => number(0) - number(2),
        _ => number(0) * number(2),
    }
}

fn call(expression: &str) -> String {
    format!(
        "<tool_call>\n{{\"name\": \"calculator\", \"arguments\": {{\"expression\": \"{expression}\"}}}}\n</tool_call>"
    )
}

/// Every way to act: well, with another sum first, in its head, wrongly, without a word, and without an end.
fn plays(prompt: &str, asked: usize) -> String {
    let sum = sum_in(prompt);
    let results = prompt.matches("<tool_response>").count();
    let shown = prompt.contains(&format!("<tool_response>\n{}\n", value(&sum)));
    match (results, asked % 6) {
        (0, 0 | 1) => call(&sum),
        (0, 2) => call("1 + 1"),
        (0, 3) => format!("It is {}.", value(&sum)),
        (0, 4) => "<tool_call>\n{\"name\": \"calculator\", \"arguments\": 7}\n</tool_call>".to_owned(),
        (0, _) => "so ".repeat(200),
        (_, way) if shown && way % 3 != 2 => format!("The result is {}.", value(&sum)),
        (_, 2) => "It is 0.".to_owned(),
        _ => call(&sum),
    }
}

struct Bench {
    journal: Journal,
    player: Arc<Player>,
    _engine: Exited,
}

impl Bench {
    async fn new(script: Script, groups: u64, group: u32) -> Self {
        let (engine, exited) = engine(script).await;
        let environment = registry::make("calculator", registry::Table::new()).expect("its defaults");
        let config = PlanConfig {
            environment: "sums".into(),
            seed: 5,
            group,
            groups: Some(groups),
            tasks: [None, None],
            held_out: 4,
            held_out_every: groups,
        };
        let player = Player {
            config: AgentsConfig {
                sampling: Sampling { temperature: 1.0, max_new_tokens: 120 },
                steps: 4,
                episode: Duration::from_secs(600),
                step_judge: StepJudge::Rule,
                judged: false,
                concurrency: 8,
            },
            environment,
            plan: Arc::new(Mutex::new(Plan::new(config))),
            engines: vec![engine],
            journal: Journal::in_memory(),
            pass: Arc::new(|| Box::pin(async {})),
            artefacts: None,
            pictures: Pictures::new(std::env::temp_dir().join("no-images"), 0),
        };
        Self { journal: player.journal.clone(), player: Arc::new(player), _engine: exited }
    }

    async fn worker(&self) -> (ActorRef<RolloutControl>, tokio::task::JoinHandle<()>) {
        let pace: Pass = Arc::new(|| Box::pin(async {}));
        let arguments = AgentsArguments { player: self.player.clone(), pace };
        Actor::spawn(None, Rollout::default(), arguments).await.expect("it starts")
    }

    /// Each episode with its turns, in the order of steps.
    async fn stories(&self) -> Vec<(openclaw_journal::EpisodeStory, Vec<openclaw_journal::Story>)> {
        let mut all = Vec::new();
        for row in self.journal.episodes(u64::MAX, 10_000).await.expect("read") {
            let story = self.journal.episode(&row.episode.id).await.expect("read").expect("it is there");
            let told = self.journal.stories(&row.episode.session, 0, 100).await.expect("read");
            let turns = told.into_iter().map(|told| told.story.expect("readable")).collect();
            all.push((story, turns));
        }
        all
    }
}

/// What a step was worth and whether the calculator has shown the result, read from its words alone.
fn judge(sum: &str, said: &str, is_cut: bool, shown: &mut bool) -> (f32, bool) {
    let called = said.contains("<tool_call>") && said.contains("expression");
    if called {
        let was = *shown;
        *shown |= said.contains(&format!("\"{sum}\""));
        return (if *shown && !was { 1.0 } else { -1.0 }, false);
    }
    if is_cut || said.contains("<tool_call>") {
        return (-1.0, false);
    }
    let right = said.contains(&format!(" {}.", value(sum)));
    (if right && *shown { 1.0 } else { -1.0 }, right && *shown)
}

/// `(value - mean) / (std + 1e-6)`, none for what does not differ.
fn standard(value: f64, all: &[f64], unbiased: bool) -> Option<f64> {
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let squares = all.iter().map(|one| (one - mean) * (one - mean)).sum::<f64>();
    let by = all.len() as f64 - if unbiased { 1.0 } else { 0.0 };
    (all.len() > 1 && squares / all.len() as f64 > 1e-12)
        .then(|| (value - mean) / ((squares / by).sqrt() + 1e-6))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_episodes_equal_a_reading_of_their_words() {
    let bench = Bench::new(plays, 25, 8).await;
    let (_first, one) = bench.worker().await;
    let (_second, two) = bench.worker().await;
    one.await.expect("it stops by itself");
    two.await.expect("it stops by itself");

    let stories = bench.stories().await;
    assert_eq!(stories.len(), 208, "25 groups of 8, and 4 held-out tasks twice");
    let mut groups: BTreeMap<String, Vec<(String, f64, Vec<f64>)>> = BTreeMap::new();
    let mut kinds = HashSet::new();
    for ((row, steps), turns) in &stories {
        let EpisodeState::Ended(outcome) = &row.state else { panic!("{row:?}") };
        let first = turns.first().expect("a step").row.turn.clone();
        let sum =
            sum_in(&format!("<|im_start|>user\n{}", first.messages[0]["content"].as_str().expect("words")));
        let (mut shown, mut success, mut scores) = (false, false, Vec::new());
        let mut prompt: Vec<u32> = Vec::new();
        for (at, turn) in turns.iter().enumerate() {
            let turn = &turn.row.turn;
            let is_cut = turn.completion.finish_reason == FinishReason::Length;
            let (score, done) = judge(&sum, &turn.completion.text, is_cut, &mut shown);
            scores.push(f64::from(score));
            success |= done;
            kinds.insert((is_cut, score > 0.0, turn.completion.text.contains("<tool_call>")));
            // Token in, token out: all before stands in the next prompt as it was drawn.
            assert_eq!(turn.completion.prompt_ids[..prompt.len()], prompt, "{}", turn.id);
            prompt = [&*turn.completion.prompt_ids, &*turn.completion.response_ids].concat();
            assert_eq!(turn.index as usize, at + 1);
            assert_eq!(turn.completion.policy_version, 3);
            assert_eq!(turn.completion.rollout_logprobs.len(), turn.completion.response_ids.len());
        }
        assert_eq!((outcome.success, outcome.reward), (Some(success), if success { 1.0 } else { -1.0 }));
        assert_eq!(steps.len(), turns.len());
        let Some(group) = &row.episode.group else {
            assert!(row.episode.id.0.contains("held-out"));
            continue;
        };
        let recorded: Vec<f64> = steps.iter().filter_map(|(_, step)| step.score.map(f64::from)).collect();
        assert_eq!(recorded, scores, "{row:?}");
        let member = (row.episode.id.0.to_string(), f64::from(outcome.reward), scores);
        groups.entry(group.name.to_string()).or_default().push(member);
    }
    assert!(kinds.len() >= 5, "each way to act is there: {kinds:?}");
    assert!(groups.values().all(|group| group.len() == 8));

    let mut samples = HashMap::new();
    let mut after = 0;
    loop {
        let page = bench.journal.samples(after, 500).await.expect("read");
        let Some((last, _)) = page.last() else { break };
        after = *last;
        samples.extend(page.into_iter().map(|(_, sample)| (sample.turn.id.0.to_string(), sample)));
    }
    let steps: usize = groups.values().flatten().map(|(_, _, scores)| scores.len()).sum();
    assert_eq!(samples.len(), steps, "every step of a group is a sample, and no other");
    let mut compared = 0;
    for group in groups.values() {
        let outcomes: Vec<f64> = group.iter().map(|(_, outcome, _)| *outcome).collect();
        for (id, outcome, scores) in group {
            for (at, score) in scores.iter().enumerate() {
                let sample = &samples[&format!("{id}-s{}", at + 1)];
                let same_step: Vec<f64> =
                    group.iter().filter_map(|(_, o, s)| s.get(at).map(|s| o + s)).collect();
                for (kind, expected) in [
                    (MethodKind::Grpo, standard(*outcome, &outcomes, true)),
                    (MethodKind::StepWise, standard(outcome + score, &same_step, false)),
                ] {
                    let method = MethodConfig::new(kind);
                    assert_eq!(method.is_effective(sample), expected.is_some());
                    let targets = method.targets(sample).expect("they align");
                    assert_eq!(targets.len(), sample.turn.completion.response_ids.len());
                    for target in targets {
                        let advantage = target.taken.map_or(0.0, |taken| f64::from(taken.advantage));
                        assert!((advantage - expected.unwrap_or(0.0)).abs() < 1e-5, "{id} {at} {kind:?}");
                        compared += 1;
                    }
                }
            }
        }
    }
    assert!(compared > 10_000, "{compared}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_fifty_kills_no_step_is_lost_and_none_is_there_twice() {
    let bench = Bench::new(plays, 40, 4).await;
    let mut dice = openclaw_environments::dice::Dice::new(11);
    let mut kills = 0;
    let mut seen: HashMap<SessionId, usize> = HashMap::new();
    loop {
        let (worker, task) = bench.worker().await;
        let from = bench.journal.backlog().borrow().last_seq;
        let mut backlog = bench.journal.backlog();
        let more = dice.between(1, 40) as u64;
        tokio::pin!(task);
        let ended = tokio::select! {
            _ = backlog.wait_for(|now| now.last_seq >= from + more) => false,
            ended = &mut task => { ended.expect("it stops"); true }
        };
        if ended {
            break;
        }
        worker.kill();
        task.await.expect("it ends");
        kills += 1;
        // What was written down before the kill is still there after it.
        for (session, steps) in &seen {
            let told = bench.journal.stories(session, 0, 100).await.expect("read");
            assert!(told.len() >= *steps, "{session}");
        }
        for (_, turns) in bench.stories().await {
            if let Some(first) = turns.first() {
                seen.insert(first.row.turn.session.clone(), turns.len());
            }
        }
    }
    assert!(kills >= 10, "{kills}");
    let stories = bench.stories().await;
    assert_eq!(stories.len(), 168);
    for ((row, steps), turns) in stories {
        assert!(matches!(row.state, EpisodeState::Ended(_)), "{row:?}");
        let indices: Vec<u32> = turns.iter().map(|turn| turn.row.turn.index).collect();
        assert_eq!(indices, (1..=turns.len() as u32).collect::<Vec<_>>(), "{row:?}");
        if row.episode.group.is_some() {
            assert!(steps.iter().all(|(_, step)| step.score.is_some()), "{row:?} {steps:?}");
            assert!(turns.iter().all(|turn| turn.row.next_state.is_some()));
        }
    }
    assert_eq!(bench.player.plan.lock().expect("not poisoned").tally().abandoned, 0);
}

#[tokio::test]
async fn a_drained_worker_ends_its_episodes_and_begins_no_other() {
    let bench = Bench::new(plays, 1000, 4).await;
    let (worker, task) = bench.worker().await;
    let mut backlog = bench.journal.backlog();
    backlog.wait_for(|now| now.last_seq > 20).await.expect("it is up");
    ractor::call!(worker, RolloutControl::Drain).expect("it drains");
    task.await.expect("it stops");
    let open = |(story, _): &(openclaw_journal::EpisodeStory, Vec<_>)| story.0.state == EpisodeState::Open;
    assert!(!bench.stories().await.iter().any(open));
    let unknown = bench.journal.episode(&EpisodeId("sums-5-train-999-3".into())).await.expect("read");
    assert!(unknown.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_recorded_is_played_again_and_compared() {
    let bench = Bench::new(plays, 4, 6).await;
    bench.worker().await.1.await.expect("it stops by itself");
    let environment = &*bench.player.environment;
    let mut told_otherwise = 0;
    for ((row, _), stories) in bench.stories().await {
        let EpisodeState::Ended(outcome) = &row.state else { panic!("{row:?}") };
        let split = if row.episode.group.is_some() { Split::Train } else { Split::HeldOut };
        let number = row.episode.seed.expect("the node's own have one");
        let mut replay = Replay::begin(environment, split, number).expect("it opens");
        assert_eq!(replay.task().id, row.episode.task);
        assert_eq!(replay.opening(), *stories[0].row.turn.messages);
        for (at, story) in stories.iter().enumerate() {
            assert!(!replay.is_done());
            let (turn, recorded) = (&story.row.turn, story.row.next_state.as_ref());
            let next = stories.get(at + 1).map(|next| &*next.row.turn);
            let taken = replay.step(turn).expect("it acts");
            let likeness = taken.likeness(recorded, next);
            let is_known = recorded.is_some() || next.is_some();
            let expected = if is_known { Likeness::Same } else { Likeness::Unrecorded };
            assert_eq!(likeness, expected, "{} {taken:?}", turn.id);
            if let Some(recorded) = recorded {
                let other = NextState { text: format!("{} but", recorded.text), ..recorded.clone() };
                assert!(matches!(taken.likeness(Some(&other), next), Likeness::Other(_)));
                told_otherwise += 1;
            }
        }
        let verdict = replay.outcome().expect("it is evaluated");
        assert_eq!((verdict.reward, Some(verdict.success)), (outcome.reward, outcome.success));
        assert_eq!(verdict.numbers, outcome.numbers);
    }
    assert!(told_otherwise > 20, "{told_otherwise}");
}
