//! The batcher over a tiny random model: what a request gets does not depend on who else is served, on how its
//! prompt was cut, on what was cached, on preemption, or on weights that arrive meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use openclaw_kernels::Cpu;
use openclaw_model::{
    AdapterConfig, AdapterLayout, Batcher, BatcherConfig, BatcherError, FinishReason, GenerateEvent,
    GenerateRequest, ModelConfig, SamplingParams, ScoreRequest, Scored, SequenceId, SubmitError,
    TokenLogprob, Tokenizer, Transformer, Weights, random_weights, train_bpe,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

mod scores;

use scores::assert_near;

const VOCAB: usize = 257;
const END: u32 = 0;
const ROOMY: BatcherConfig = BatcherConfig {
    max_batch_tokens: 256,
    max_sequences: 16,
    kv_blocks: 128,
    block_size: 16,
    max_waiting: 64,
    step_time: None,
};

/// A model on one device; cheap to clone.
#[derive(Clone)]
struct Model {
    transformer: Transformer<Cpu>,
    tokenizer: Tokenizer,
}

impl Model {
    fn new() -> Self {
        let config = ModelConfig {
            family: Default::default(),
            vocab_size: VOCAB,
            hidden_size: 32,
            intermediate_size: 48,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
            rms_norm_eps: 1e-6,
            rope_theta: 1e4,
            rope_scaling: None,
            max_positions: 192,
            tied: true,
        };
        let backend = Cpu::new("serving-test", 2).expect("two threads start");
        let transformer = Transformer::new(config, backend).expect("a tiny model fits");
        let tokenizer = train_bpe(std::iter::empty(), VOCAB, &["<|im_end|>"]).expect("256 bytes and one");
        assert_eq!(tokenizer.special_id("<|im_end|>"), Some(END));
        Self { transformer, tokenizer }
    }

    /// Larger than a fresh model's: its replies depend on every token before them.
    fn weights(&self, seed: u64) -> Arc<Weights<Cpu>> {
        let mut flat = random_weights(&self.transformer.config, seed);
        flat.iter_mut().filter(|weight| **weight != 1.0).for_each(|weight| *weight *= 8.0);
        Arc::new(Weights::from_host(&self.transformer, &flat).expect("the layout fits"))
    }

    /// A version that shares its base with others.
    fn adapted(&self, base: &Weights<Cpu>, seed: u64) -> Arc<Weights<Cpu>> {
        let layout = Arc::new(AdapterLayout::new(&self.transformer.config, AdapterConfig::of_all(3, 6.0)));
        let mut flat = layout.fresh(seed);
        flat.iter_mut().enumerate().for_each(|(at, value)| *value += 0.02 * ((at as u64 * seed) % 5) as f32);
        Arc::new(base.adapted(&self.transformer, layout, &flat).expect("it fits"))
    }

    fn batcher(&self, config: BatcherConfig, weights: &Arc<Weights<Cpu>>) -> Batcher<Cpu> {
        let (transformer, tokenizer) = (self.transformer.clone(), self.tokenizer.clone());
        Batcher::new(transformer, tokenizer, vec![END], config, 1, Arc::clone(weights)).expect("valid limits")
    }

    /// One request at a time, each with a pool of its own.
    fn alone(&self, weights: &Arc<Weights<Cpu>>, requests: &[GenerateRequest]) -> Vec<Reply> {
        (requests.iter())
            .map(|request| {
                let mut batcher = self.batcher(ROOMY, weights);
                let id = batcher.submit(request.clone()).unwrap();
                drain(&mut batcher).remove(&id).unwrap()
            })
            .collect()
    }
}

/// What a client has at the end.
#[derive(Debug, Default)]
struct Reply {
    tokens: Vec<TokenLogprob>,
    text: String,
    reason: Option<FinishReason>,
    version: u64,
    cached_tokens: usize,
    error: Option<String>,
}

impl Reply {
    fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    fn take(&mut self, event: GenerateEvent) {
        assert!(self.reason.is_none() && self.error.is_none(), "nothing comes after the end: {event:?}");
        match event {
            GenerateEvent::Token { token, text, .. } => {
                self.tokens.push(token);
                self.text.push_str(&text);
            }
            GenerateEvent::Finished { reason, text, policy_version, cached_tokens } => {
                self.text.push_str(&text);
                self.reason = Some(reason);
                self.version = policy_version;
                self.cached_tokens = cached_tokens;
            }
            GenerateEvent::Failed { error, .. } => self.error = Some(error),
        }
    }
}

fn step(batcher: &mut Batcher<Cpu>, replies: &mut BTreeMap<SequenceId, Reply>) {
    for (id, event) in batcher.step().expect("the CPU does not fail") {
        replies.entry(id).or_default().take(event);
    }
}

fn drain(batcher: &mut Batcher<Cpu>) -> BTreeMap<SequenceId, Reply> {
    let mut replies = BTreeMap::new();
    for _ in 0..20_000 {
        if batcher.is_idle() {
            assert_eq!(batcher.stats().kv_blocks_used, 0, "an idle batcher holds no block");
            return replies;
        }
        step(batcher, &mut replies);
    }
    panic!("not idle after 20000 steps: {} running, {} waiting", batcher.running(), batcher.waiting());
}

fn request(prompt_ids: Vec<u32>, max_new_tokens: usize, temperature: f32) -> GenerateRequest {
    let sampling = SamplingParams { temperature, seed: Some(11), ..Default::default() };
    GenerateRequest {
        prompt_ids,
        drawn_ids: Vec::new(),
        sampling,
        max_new_tokens,
        stop: Vec::new(),
        top_logprobs: 0,
        constraint: None,
    }
}

fn prompt(seed: u64, len: usize) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(1..VOCAB as u32)).collect()
}

/// Greedy and sampled, short and long, two with a prompt in common.
fn mixed_requests() -> Vec<GenerateRequest> {
    let shared = prompt(1, 40);
    let mut requests = vec![
        request(prompt(2, 1), 20, 0.0),
        request(shared.clone(), 24, 0.0),
        request([shared, prompt(3, 9)].concat(), 24, 1.0),
        request(prompt(4, 90), 12, 0.7),
        request(prompt(5, 17), 40, 0.0),
        request(prompt(6, 33), 30, 1.3),
    ];
    requests[3].sampling.top_p = 0.9;
    requests[5].sampling.top_k = 20;
    requests
}

fn assert_same(found: &Reply, expected: &Reply, case: &str) {
    assert_eq!(found.ids(), expected.ids(), "{case}");
    assert_eq!((&found.text, found.reason), (&expected.text, expected.reason), "{case}");
    for (found, expected) in found.tokens.iter().zip(&expected.tokens) {
        assert!((found.logprob - expected.logprob).abs() < 1e-4, "{case}: {found:?}, alone {expected:?}");
        assert!(
            (found.raw_logprob - expected.raw_logprob).abs() < 1e-4,
            "{case}: {found:?}, alone {expected:?}"
        );
    }
}

#[test]
fn a_reply_does_not_depend_on_the_batch_the_chunks_the_blocks_or_preemption() {
    let model = Model::new();
    let weights = model.weights(1);
    let requests = mixed_requests();
    let alone = model.alone(&weights, &requests);
    let limits = |max_batch_tokens, max_sequences, kv_blocks, block_size| BatcherConfig {
        max_batch_tokens,
        max_sequences,
        kv_blocks,
        block_size,
        ..ROOMY
    };
    let mut preemptions = 0;
    for config in [
        ROOMY,
        limits(1, 1, 128, 16),
        limits(7, 7, 128, 16),
        limits(6, 3, 128, 8),
        limits(33, 16, 64, 5),
        limits(64, 16, 300, 1),
        limits(40, 16, 8, 16), // room for one and a half
        limits(16, 16, 30, 4),
        limits(256, 16, 2, 96),
    ] {
        let mut batcher = model.batcher(config, &weights);
        let ids: Vec<_> = requests.iter().map(|request| batcher.submit(request.clone()).unwrap()).collect();
        let replies = drain(&mut batcher);
        for ((id, expected), at) in ids.iter().zip(&alone).zip(0..) {
            assert_same(&replies[id], expected, &format!("request {at} under {config:?}"));
        }
        preemptions += batcher.stats().preemptions;
    }
    assert!(preemptions > 0, "no pool was small enough to preempt anyone");
}

#[test]
fn the_next_turn_reuses_what_the_last_one_computed_and_says_the_same() {
    let model = Model::new();
    let weights = model.weights(3);
    let mut batcher = model.batcher(ROOMY, &weights);
    let first = request(prompt(1, 20), 30, 0.0);
    let id = batcher.submit(first.clone()).unwrap();
    let reply = drain(&mut batcher).remove(&id).unwrap();
    assert_eq!(reply.cached_tokens, 0);

    let history = [first.prompt_ids, reply.ids(), prompt(9, 7)].concat();
    let second = request(history, 20, 0.0);
    let id = batcher.submit(second.clone()).unwrap();
    let cached = drain(&mut batcher).remove(&id).unwrap();
    // All but the last drawn token was computed: whole blocks of those.
    assert_eq!(cached.cached_tokens, (20 + reply.tokens.len() - 1) / 16 * 16);
    assert_same(&cached, &model.alone(&weights, &[second])[0], "from the cache");
}

#[test]
fn responses_end_on_the_weights_they_began_with() {
    let model = Model::new();
    let whole = [model.weights(4), model.weights(5)];
    let base = model.weights(4);
    // They read the base once a step, and whole versions all of each.
    for (versions, share) in [(whole, false), ([model.adapted(&base, 1), model.adapted(&base, 2)], true)] {
        end_on_their_own(&model, versions, share);
    }
}

fn end_on_their_own(model: &Model, [old, new]: [Arc<Weights<Cpu>>; 2], share: bool) {
    let requests = mixed_requests();
    let on_old = model.alone(&old, &requests);
    let on_new = model.alone(&new, &requests);
    assert_ne!(on_old[1].ids(), on_new[1].ids(), "the versions differ");
    // Room for all, and room for so few that some are preempted while two versions live.
    for kv_blocks in [128, 12] {
        let mut batcher = model.batcher(BatcherConfig { kv_blocks, ..ROOMY }, &old);
        let before: Vec<_> =
            requests.iter().map(|request| batcher.submit(request.clone()).unwrap()).collect();
        let mut replies = BTreeMap::new();
        (0..3).for_each(|_| step(&mut batcher, &mut replies));
        batcher.load(2, Arc::clone(&new));
        assert_eq!((batcher.version(), batcher.live_versions()), (2, vec![1, 2]));
        let after: Vec<_> = requests.iter().map(|request| batcher.submit(request.clone()).unwrap()).collect();
        let passes = batcher.stats().passes;
        step(&mut batcher, &mut replies);
        if kv_blocks == 128 {
            assert_eq!(batcher.stats().passes - passes, if share { 1 } else { 2 });
        }
        for (id, reply) in drain(&mut batcher) {
            replies.entry(id).or_default().merge(reply);
        }
        let mut versions = Vec::new();
        for (id, at) in before.iter().chain(&after).zip((0..requests.len()).cycle()) {
            let reply = &replies[id];
            let expected = if reply.version == 1 { &on_old[at] } else { &on_new[at] };
            assert_same(reply, expected, &format!("request {at} on version {}", reply.version));
            versions.push(reply.version);
        }
        assert_eq!(versions[0], 1, "it ran before the load");
        assert!(versions[requests.len()..].iter().all(|&version| version == 2), "{versions:?}");
        assert_eq!(batcher.live_versions(), [2]);
        assert_eq!(Arc::strong_count(&old), 1, "nobody keeps the old weights");
    }
}

impl Reply {
    fn merge(&mut self, later: Reply) {
        self.tokens.extend(later.tokens);
        self.text.push_str(&later.text);
        (self.reason, self.version, self.cached_tokens) = (later.reason, later.version, later.cached_tokens);
    }
}

#[test]
fn new_weights_never_meet_old_keys_even_under_the_same_version_number() {
    let model = Model::new();
    let (old, new) = (model.weights(6), model.weights(7));
    let request = request(prompt(1, 64), 8, 0.0);
    let mut batcher = model.batcher(ROOMY, &old);
    batcher.submit(request.clone()).unwrap();
    drain(&mut batcher);
    assert!(batcher.stats().kv_blocks_cached > 0);
    batcher.load(1, Arc::clone(&new));
    assert_eq!(batcher.stats().kv_blocks_cached, 0, "stale blocks are evicted");
    let id = batcher.submit(request.clone()).unwrap();
    let reply = drain(&mut batcher).remove(&id).unwrap();
    assert_eq!(reply.cached_tokens, 0);
    assert_same(&reply, &model.alone(&new, &[request])[0], "after the load");
}

#[test]
fn cancelling_frees_the_blocks_and_leaves_the_others_alone() {
    let model = Model::new();
    let weights = model.weights(8);
    let requests = mixed_requests();
    let alone = model.alone(&weights, &requests);
    let mut batcher = model.batcher(BatcherConfig { max_sequences: 3, ..ROOMY }, &weights);
    let ids: Vec<_> = requests.iter().map(|request| batcher.submit(request.clone()).unwrap()).collect();
    let mut replies = BTreeMap::new();
    step(&mut batcher, &mut replies);
    let used = batcher.stats().kv_blocks_used;
    batcher.cancel(ids[4]); // running: its prompt is among the shortest
    assert!(batcher.stats().kv_blocks_used < used);
    batcher.cancel(ids[3]); // waiting
    batcher.cancel(ids[3]); // gone
    for (id, reply) in drain(&mut batcher) {
        replies.entry(id).or_default().merge(reply);
    }
    for (at, id) in ids.iter().enumerate() {
        match at {
            3 | 4 => assert_eq!(replies[id].reason, Some(FinishReason::Cancelled)),
            _ => assert_same(&replies[id], &alone[at], &format!("request {at}")),
        }
    }
    assert!(replies[&ids[3]].tokens.is_empty());
}

#[test]
fn a_response_ends_at_its_tokens_the_context_an_end_token_or_a_stop_string() {
    let model = Model::new();
    let weights = model.weights(9);
    let long = &model.alone(&weights, &[request(prompt(1, 10), 40, 1.0)])[0];
    assert_eq!((long.tokens.len(), long.reason), (40, Some(FinishReason::Length)));
    assert_eq!(long.text, model.tokenizer.decode(&long.ids(), true), "pieces add up to the whole");

    let context = &model.alone(&weights, &[request(prompt(1, 150), 1000, 1.0)])[0];
    assert_eq!((context.tokens.len(), context.reason), (42, Some(FinishReason::Length)));

    let end = long.ids()[20];
    let first = long.ids().iter().position(|&id| id == end).unwrap();
    let (transformer, tokenizer) = (model.transformer.clone(), model.tokenizer.clone());
    let mut batcher =
        Batcher::new(transformer, tokenizer, vec![end], ROOMY, 1, Arc::clone(&weights)).unwrap();
    let id = batcher.submit(request(prompt(1, 10), 40, 1.0)).unwrap();
    let ended = drain(&mut batcher).remove(&id).unwrap();
    assert_eq!(ended.ids(), long.ids()[..=first], "the end token is reported");
    assert_eq!(ended.reason, Some(FinishReason::Stop));
    assert_eq!(ended.text, model.tokenizer.decode(&long.ids()[..first], true), "and not worded");

    let chars: Vec<char> = long.text.chars().collect();
    let stop: String = chars[15..18].iter().collect();
    let mut stopping = request(prompt(1, 10), 40, 1.0);
    stopping.stop = vec!["never written".into(), stop.clone()];
    let stopped = &model.alone(&weights, &[stopping])[0];
    assert_eq!(stopped.reason, Some(FinishReason::Stop));
    assert_eq!(stopped.text, long.text.split(&stop).next().unwrap());
    assert!(stopped.tokens.len() < 40);
}

#[test]
fn alternatives_are_the_most_likely_of_the_untempered_distribution() {
    let model = Model::new();
    let weights = model.weights(10);
    let mut asking = request(prompt(1, 10), 10, 0.0);
    asking.top_logprobs = 3;
    for token in &model.alone(&weights, &[asking])[0].tokens {
        assert_eq!(token.top.len(), 3);
        assert_eq!(token.top[0], (token.id, token.raw_logprob), "greedy takes the best");
        assert!(token.top[0].1 >= token.top[1].1 && token.top[1].1 >= token.top[2].1);
        assert_eq!(token.logprob, 0.0);
    }
}

#[test]
fn requests_that_cannot_be_served_are_refused_with_both_values() {
    let model = Model::new();
    let config = BatcherConfig { max_waiting: 1, kv_blocks: 4, ..ROOMY };
    let mut batcher = model.batcher(config, &model.weights(11));
    assert_eq!(batcher.context_tokens(), 64, "the pool is smaller than the model's positions");
    let mut refused = |request| batcher.submit(request).unwrap_err();
    assert_eq!(refused(request(vec![], 1, 1.0)), SubmitError::EmptyPrompt);
    assert_eq!(refused(request(vec![1], 0, 1.0)), SubmitError::NoNewTokens);
    assert_eq!(
        refused(request(prompt(1, 64), 1, 1.0)),
        SubmitError::ContextLengthExceeded { prompt_tokens: 64, context_tokens: 64 }
    );
    assert_eq!(
        refused(request(vec![1, 257], 1, 1.0)),
        SubmitError::UnknownToken { id: 257, vocab_size: 257 }
    );
    assert!(matches!(refused(request(vec![1], 1, -1.0)), SubmitError::Sampling(_)));
    batcher.submit(request(prompt(1, 63), 1, 1.0)).unwrap();
    assert_eq!(batcher.submit(request(vec![1], 1, 1.0)), Err(SubmitError::QueueFull { waiting: 1 }));
    assert_eq!(drain(&mut batcher).len(), 1);
}

#[test]
fn limits_out_of_range_are_named() {
    let model = Model::new();
    let weights = model.weights(12);
    for (config, text) in [
        (
            BatcherConfig { max_batch_tokens: 8, ..ROOMY },
            "max_batch_tokens is 8, expected at least max_sequences (16)",
        ),
        (BatcherConfig { block_size: 0, ..ROOMY }, "block_size is 0, expected at least 1"),
        (BatcherConfig { kv_blocks: 0, ..ROOMY }, "kv_blocks is 0, expected room for two tokens"),
    ] {
        let (transformer, tokenizer) = (model.transformer.clone(), model.tokenizer.clone());
        let made = Batcher::new(transformer, tokenizer, vec![], config, 1, Arc::clone(&weights));
        let error: BatcherError = made.err().expect("the limit is out of range");
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn a_model_without_finite_logits_fails_the_request_and_keeps_no_block() {
    let model = Model::new();
    let flat = vec![f32::NAN; random_weights(&model.transformer.config, 0).len()];
    let weights = Arc::new(Weights::from_host(&model.transformer, &flat).unwrap());
    let mut batcher = model.batcher(ROOMY, &weights);
    let id = batcher.submit(request(prompt(1, 20), 5, 1.0)).unwrap();
    let reply = drain(&mut batcher).remove(&id).unwrap();
    assert_eq!(reply.error.as_deref(), Some("the model's logits are not finite"));
    batcher.load(2, model.weights(1));
    let id = batcher.submit(request(prompt(1, 20), 5, 1.0)).unwrap();
    assert_eq!(drain(&mut batcher)[&id].tokens.len(), 5, "sound weights serve again");
}

#[test]
fn no_request_is_lost_and_no_block_leaks_whatever_happens() {
    let model = Model::new();
    // By its number, modulo three.
    let versions = [model.weights(20), model.weights(21), model.weights(22)];
    for seed in 0..6 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let max_sequences = rng.random_range(1..6);
        let config = BatcherConfig {
            max_batch_tokens: max_sequences + rng.random_range(0..40),
            max_sequences,
            kv_blocks: rng.random_range(6..24),
            block_size: 8,
            max_waiting: 8,
            step_time: None,
        };
        let mut batcher = model.batcher(config, &versions[1]);
        let mut submitted = Vec::new();
        let mut replies = BTreeMap::new();
        let (mut scorings, mut scored) = (BTreeMap::new(), Vec::new());
        let mut version = 1;
        for _ in 0..150 {
            match rng.random_range(0..10) {
                0..3 => {
                    let len = rng.random_range(1..batcher.context_tokens());
                    let mut ids = prompt(rng.random_range(0..3), len); // prefixes of three texts
                    ids.extend(prompt(
                        rng.random_range(0..2),
                        batcher.context_tokens().min(len + 3) - len - 1,
                    ));
                    match batcher.submit(request(ids, rng.random_range(1..40), 1.0)) {
                        Ok(id) => submitted.push(id),
                        // Those that had to give their blocks back wait, too.
                        Err(SubmitError::QueueFull { waiting }) => assert!(waiting >= 8),
                        Err(error) => panic!("{error}"),
                    }
                }
                5 => {
                    let ids = prompt(rng.random_range(0..3), rng.random_range(2..batcher.context_tokens()));
                    let start = rng.random_range(1..ids.len());
                    let wanted = ScoreRequest { ids, start, ..ScoreRequest::default() };
                    scorings.insert(batcher.submit_score(wanted.clone()).unwrap(), wanted);
                }
                6 if !scorings.is_empty() && rng.random_bool(0.2) => {
                    let id = *scorings.keys().nth(rng.random_range(0..scorings.len())).unwrap();
                    scorings.remove(&id);
                    batcher.cancel(id);
                }
                6 | 7 => scored.extend(batcher.step_scores().unwrap()),
                3 if !submitted.is_empty() => batcher.cancel(submitted[rng.random_range(0..submitted.len())]),
                4 if rng.random_bool(0.3) => {
                    version += 1;
                    batcher.load(version, Arc::clone(&versions[version as usize % 3]));
                }
                _ => step(&mut batcher, &mut replies),
            }
        }
        while batcher.is_scoring() {
            scored.extend(batcher.step_scores().unwrap());
            step(&mut batcher, &mut replies);
        }
        for (id, reply) in drain(&mut batcher) {
            replies.entry(id).or_default().merge(reply);
        }
        assert!(!submitted.is_empty() && !scored.is_empty());
        for (id, scored) in scored {
            let Some(wanted) = scorings.remove(&id) else { continue }; // cancelled since
            let weights = &versions[scored.policy_version as usize % 3];
            let alone = model.transformer.score(weights, &wanted).unwrap();
            assert_near(&scored.logprobs, &alone.logprobs);
        }
        assert!(scorings.is_empty(), "seed {seed}: {} were never scored", scorings.len());
        for id in submitted {
            assert!(replies[&id].reason.is_some(), "seed {seed}: {id:?} never ended");
        }
        assert_eq!(batcher.live_versions(), [version]);
    }
}

#[test]
fn a_response_that_another_engine_began_goes_on_as_if_it_had_not_been_cut() {
    let model = Model::new();
    let weights = model.weights(1);
    let mut requests = mixed_requests();
    let said: Vec<char> = model.alone(&weights, &requests[..1])[0].text.chars().collect();
    // Some cuts fall into it: its beginning was held back.
    requests[0].stop = vec![said[said.len() / 2..said.len() / 2 + 3].iter().collect()];
    for request in requests {
        let (events, whole) = told(&mut model.batcher(ROOMY, &weights), request.clone());
        for cut in 0..=events.len() {
            let begun = &events[..cut];
            let drawn_ids = begun.iter().map(|(id, _)| *id).collect();
            let resumed = GenerateRequest { drawn_ids, ..request.clone() };
            let (rest, end) = told(&mut model.batcher(ROOMY, &weights), resumed);
            assert_eq!([begun, &rest].concat(), events, "cut at {cut}");
            assert_eq!(end, whole, "cut at {cut}");
        }
    }
}

/// Each token and the text that came with it; the reason of the end and the text that came with that.
fn told(
    batcher: &mut Batcher<Cpu>,
    request: GenerateRequest,
) -> (Vec<(u32, String)>, (FinishReason, String)) {
    batcher.submit(request).expect("it fits");
    let mut tokens = Vec::new();
    loop {
        for (_, event) in batcher.step().expect("the CPU does not fail") {
            match event {
                GenerateEvent::Token { token, text, .. } => tokens.push((token.id, text)),
                GenerateEvent::Finished { reason, text, .. } => {
                    assert!(batcher.is_idle());
                    return (tokens, (reason, text));
                }
                GenerateEvent::Failed { error, .. } => panic!("{error}"),
            }
        }
    }
}
