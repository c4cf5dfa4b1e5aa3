//! Serving, scoring and training of the same weights and tokens agree, on the embedded model.

use std::path::Path;

use openclaw_actors::loaded_model::LoadedModel;
use openclaw_kernels::{Place, ops::ClipRange};
use openclaw_model::{
    AdamWConfig, GenerateEvent, GenerateRequest, Objective, PolicyObjective, SamplingParams, ScoreRequest,
    SurrogateKind, TrainRow, TrainSequence, Trainer,
};
use serde_json::{Map, json};

#[test]
fn log_probs_of_serving_scoring_and_training_agree_to_1e_4() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models/nano");
    let model = LoadedModel::open(&folder, Place::Cpu, 2).expect("the embedded model");
    let flat = model.weights.to_host(&model.transformer).expect("weights");
    let mut trainer =
        Trainer::new(model.transformer.clone(), &flat, AdamWConfig::default()).expect("a trainer");
    let clip = ClipRange { low: 0.2, high: 0.28, dual: None };
    let objective = Objective::Policy(PolicyObjective {
        surrogate: SurrogateKind::Ppo,
        clip,
        kl: None,
        entropy_coef: 0.0,
        candidates: None,
    });
    for (seed, temperature) in [(1, 1.0), (2, 0.8), (3, 1.3)] {
        let text = format!("Please solve my homework: Ana has {} coins and gets 5 more. How many?", 3 + seed);
        let messages = [json!({"role": "user", "content": text})];
        let prompt_ids = model.text.prompt_ids(&messages, &[], &Map::new()).expect("a prompt");
        let mut batcher = model.batcher(model.weights.clone(), 4096).expect("a batcher");
        let sampling = SamplingParams { temperature, seed: Some(seed), ..SamplingParams::default() };
        let request = GenerateRequest {
            drawn_ids: Vec::new(),
            prompt_ids: prompt_ids.clone(),
            sampling,
            max_new_tokens: 48,
            stop: Vec::new(),
            top_logprobs: 0,
            constraint: None,
        };
        batcher.submit(request).expect("it fits");
        let mut drawn = Vec::new();
        while !batcher.is_idle() {
            for (_, event) in batcher.step().expect("a step") {
                if let GenerateEvent::Token { token, .. } = event {
                    drawn.push((token.id, token.logprob));
                }
            }
        }
        assert!(!drawn.is_empty());
        let ids: Vec<u32> = prompt_ids.iter().copied().chain(drawn.iter().map(|(id, _)| *id)).collect();
        let request =
            ScoreRequest { ids: ids.clone(), start: prompt_ids.len(), temperature, ..Default::default() };
        let scored = model.transformer.score(&model.weights, &request).expect("scores");
        assert_eq!(scored.logprobs.len(), drawn.len());
        for (i, ((_, served), scored)) in drawn.iter().zip(&scored.logprobs).enumerate() {
            assert!((served - scored).abs() < 1e-4, "token {i}: served {served}, scored {scored}");
            // One row alone: the report's mean of `old - new` is this row's difference.
            let position = prompt_ids.len() + i;
            let row = TrainRow {
                position,
                weight: 1.0,
                old_logprob: *served,
                importance: 1.0,
                ..Default::default()
            };
            let sequence = TrainSequence { ids: ids.clone(), rows: vec![row], temperature };
            let report = trainer.accumulate(&[sequence], &objective).expect("a backward");
            assert_eq!(report.rows, 1);
            assert!(
                report.policy_kl.abs() < 1e-4,
                "token {i}: served and trained differ by {}",
                report.policy_kl
            );
        }
    }
}
