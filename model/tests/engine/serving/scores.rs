//! Scores over the serving pool: those of one pass, however they were cut, cached or interrupted.

use super::*;

fn score(batcher: &mut Batcher<Cpu>, request: ScoreRequest) -> Scored {
    let id = batcher.submit_score(request).unwrap();
    loop {
        if let Some((scored, score)) = batcher.step_scores().unwrap().pop() {
            assert_eq!(scored, id);
            return score;
        }
    }
}

pub fn assert_near(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4, "{found}, alone {expected}");
    }
}

#[test]
fn log_probabilities_of_serving_and_scoring_agree() {
    let model = Model::new();
    let weights = model.weights(2);
    for temperature in [1.0, 0.6] {
        let mut batcher = model.batcher(BatcherConfig { max_batch_tokens: 24, ..ROOMY }, &weights);
        let requests: Vec<_> = (0..4).map(|seed| request(prompt(seed, 30), 25, temperature)).collect();
        let ids: Vec<_> = requests.iter().map(|request| batcher.submit(request.clone()).unwrap()).collect();
        let replies = drain(&mut batcher);
        for (id, request) in ids.iter().zip(requests) {
            let reply = &replies[id];
            let start = request.prompt_ids.len();
            let sequence = [request.prompt_ids, reply.ids()].concat();
            for (temperature, field) in
                [(temperature, (|t| t.logprob) as fn(&TokenLogprob) -> f32), (1.0, |t| t.raw_logprob)]
            {
                let request =
                    ScoreRequest { ids: sequence.clone(), start, temperature, ..Default::default() };
                let scored = score(&mut batcher, request);
                assert_eq!(scored.policy_version, 1);
                assert_eq!(scored.logprobs.len(), reply.tokens.len());
                for (token, scored) in reply.tokens.iter().zip(scored.logprobs) {
                    assert!((field(token) - scored).abs() < 1e-4, "{token:?}, scored {scored}");
                }
            }
        }
    }
}

#[test]
fn scores_in_pieces_from_the_cache_and_after_their_blocks_were_taken_are_those_of_one_pass() {
    let model = Model::new();
    let weights = model.weights(9);
    let text = prompt(7, 100);
    let candidates = |at: usize| (0..at as u32 % 4).map(|nth| (at as u32 * 7 + nth) % VOCAB as u32).collect();
    let wanted = |start: usize, top_k| ScoreRequest {
        ids: text.clone(),
        start,
        temperature: 0.7,
        top_k,
        candidates: if start == 41 { (start..text.len()).map(candidates).collect() } else { Vec::new() },
        ..ScoreRequest::default()
    };
    let config = BatcherConfig { max_batch_tokens: 9, max_sequences: 4, kv_blocks: 9, ..ROOMY };
    let mut batcher = model.batcher(config, &weights);
    for request in [wanted(41, 3), wanted(1, 0), wanted(99, 2), wanted(41, 0)] {
        let alone = model.transformer.score(&weights, &request).unwrap();
        let id = batcher.submit_score(request).unwrap();
        let mut replies = BTreeMap::new();
        let scored = loop {
            // Somebody else needs the blocks after each piece.
            if batcher.is_idle() && batcher.stats().preemptions < 4 {
                batcher.submit(self::request(prompt(8, 60), 20, 0.0)).unwrap();
            }
            if let Some((scored, score)) = batcher.step_scores().unwrap().pop() {
                assert_eq!(scored, id);
                break score;
            }
            step(&mut batcher, &mut replies);
        };
        assert_near(&scored.logprobs, &alone.logprobs);
        assert_near(&scored.entropy, &alone.entropy);
        assert_near(&scored.candidates.concat(), &alone.candidates.concat());
        let ids = |top: &[Vec<(u32, f32)>]| top.concat().iter().map(|(id, _)| *id).collect::<Vec<_>>();
        assert_eq!(ids(&scored.top), ids(&alone.top));
    }
    assert!(batcher.stats().preemptions > 0, "nobody took a block");
    drain(&mut batcher);
}

#[test]
fn a_prompt_that_was_served_is_not_computed_again_to_score_its_reply() {
    let model = Model::new();
    let weights = model.weights(9);
    let mut batcher = model.batcher(ROOMY, &weights);
    let served = request(prompt(1, 100), 10, 0.0);
    let id = batcher.submit(served.clone()).unwrap();
    let reply = drain(&mut batcher).remove(&id).unwrap();
    let before = batcher.stats().computed_tokens;
    let ids = [served.prompt_ids, reply.ids()].concat();
    score(&mut batcher, ScoreRequest { ids, start: 100, ..ScoreRequest::default() });
    assert_eq!(batcher.stats().computed_tokens - before, (100 + 10 - 1) - 96);
}

#[test]
fn what_is_asked_again_is_not_computed_again_unless_the_weights_changed() {
    let model = Model::new();
    let weights = [model.weights(9), model.weights(10)];
    let mut batcher =
        model.batcher(BatcherConfig { max_batch_tokens: 9, max_sequences: 4, ..ROOMY }, &weights[0]);
    let ids = prompt(3, 60);
    let first = || ScoreRequest { ids: ids.clone(), start: 40, asked_again: true, ..Default::default() };
    let candidates = || (40..60).map(|at| vec![at % 7, 3]).collect();
    let second =
        |temperature| ScoreRequest { candidates: candidates(), asked_again: false, temperature, ..first() };
    score(&mut batcher, first());
    let before = batcher.stats().computed_tokens;
    let again = score(&mut batcher, second(0.7));
    assert_eq!(batcher.stats().computed_tokens, before);
    let alone = model.transformer.score(&weights[0], &second(0.7)).unwrap();
    assert_near(&again.logprobs, &alone.logprobs);
    assert_near(&again.candidates.concat(), &alone.candidates.concat());
    // It was kept for one more question; and what is kept is no answer to another one.
    score(&mut batcher, second(0.7));
    let since = batcher.stats().computed_tokens;
    assert!(since > before);
    score(&mut batcher, first());
    let other = ScoreRequest { start: 41, candidates: Vec::new(), ..second(1.0) };
    assert_eq!(score(&mut batcher, other.clone()).logprobs.len(), 19);
    // Between the question and the answer, and before the question.
    for asked_before in [true, false] {
        score(&mut batcher, first());
        let id = asked_before.then(|| batcher.submit_score(second(1.0)).unwrap());
        let newest = usize::from(asked_before);
        batcher.load(2, weights[newest].clone());
        let id = id.unwrap_or_else(|| batcher.submit_score(second(1.0)).unwrap());
        let (scored, found) =
            std::iter::from_fn(|| Some(batcher.step_scores().unwrap())).flatten().next().unwrap();
        assert_eq!(scored, id);
        let alone = model.transformer.score(&weights[newest], &second(1.0)).unwrap();
        assert_near(&found.candidates.concat(), &alone.candidates.concat());
    }
    // Who asked has gone.
    score(&mut batcher, first());
    let id = batcher.submit_score(second(1.0)).unwrap();
    batcher.cancel(id);
    assert!(!batcher.is_scoring() && batcher.step_scores().unwrap().is_empty());
}
