//! The embedded model under constraints: what it says is held, and what holding costs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use openclaw_kernels::Cpu;
use openclaw_model::{
    Batcher, BatcherConfig, CallableTool, Constraint, FinishReason, GenerateEvent, GenerateRequest, Grammars,
    SamplingParams, Tokenizer, ToolCalls, Transformer, Weights, checkpoint,
};
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models/nano")
}

fn batcher(tokenizer: &Tokenizer) -> Batcher<Cpu> {
    let (config, flat) = checkpoint::load(&folder()).expect("the embedded model");
    let backend = Cpu::new("constrained-test", 2).expect("two threads start");
    let transformer = Transformer::new(config, backend).expect("it fits");
    let weights = Arc::new(Weights::from_host(&transformer, &flat).expect("the layout fits"));
    let limits = BatcherConfig {
        max_batch_tokens: 512,
        max_sequences: 16,
        kv_blocks: 1024,
        block_size: 16,
        max_waiting: 64,
        step_time: None,
    };
    Batcher::new(transformer, tokenizer.clone(), vec![2, 0], limits, 1, weights).expect("valid limits")
}

fn request(tokenizer: &Tokenizer, text: &str, seed: u64, constraint: Option<Constraint>) -> GenerateRequest {
    let prompt = format!("<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n");
    GenerateRequest {
        prompt_ids: tokenizer.encode(&prompt).expect("text"),
        drawn_ids: Vec::new(),
        sampling: SamplingParams { temperature: 0.8, seed: Some(seed), ..Default::default() },
        max_new_tokens: 200,
        stop: Vec::new(),
        top_logprobs: 0,
        constraint,
    }
}

#[test]
fn replies_of_the_embedded_model_are_what_was_asked_for() {
    let tokenizer = Tokenizer::from_dir(&folder()).expect("the embedded tokenizer");
    let grammars = Grammars::new(&tokenizer).expect("byte-level tokens");
    let mut batcher = batcher(&tokenizer);
    let schema = json!({"type": "object", "properties": {"city": {"type": "string", "maxLength": 20},
        "days": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["city", "days"],
        "additionalProperties": false});
    let object = grammars.json_schema(&schema, true).expect("a schema");
    let tools = vec![CallableTool { name: "get_weather".to_owned(), parameters: Some(schema), strict: true }];
    let calls = ToolCalls { tools, required: true, parallel: false, answer: None };
    let calls = grammars.tool_calls(&calls).expect("tools");
    let mut texts = std::collections::BTreeMap::new();
    for seed in 0..12 {
        let constraint = if seed % 2 == 0 { &object } else { &calls };
        let request = request(&tokenizer, "How is the weather in Rome?", seed, Some(constraint.clone()));
        texts.insert(batcher.submit(request).expect("it fits"), String::new());
    }
    let mut ended = 0;
    while !batcher.is_idle() {
        for (id, event) in batcher.step().expect("the CPU does not fail") {
            match event {
                GenerateEvent::Token { text, .. } => texts.get_mut(&id).expect("submitted").push_str(&text),
                GenerateEvent::Finished { reason, text, .. } => {
                    let said = &mut texts.get_mut(&id).expect("submitted");
                    said.push_str(&text);
                    let answer = openclaw_model::answer_in(said, false).trim();
                    if reason != FinishReason::Stop {
                        continue; // a thought without an end
                    }
                    ended += 1;
                    let object = answer.strip_prefix("<tool_call>").unwrap_or(answer);
                    let object = object.strip_suffix("</tool_call>").unwrap_or(object);
                    let mut value: Value = serde_json::from_str(object).expect(object);
                    if answer != object {
                        assert_eq!(value["name"], "get_weather", "{answer}");
                        value = value["arguments"].take();
                    }
                    assert!(value["city"].is_string() && (1..=9).contains(&value["days"].as_i64().unwrap()));
                }
                GenerateEvent::Failed { error, .. } => panic!("{error}"),
            }
        }
    }
    assert!(ended >= 8, "{ended} of 12 came to an end");
}

/// Tokens drawn, and how long that took behind the prompts.
fn decode(batcher: &mut Batcher<Cpu>, requests: &[GenerateRequest]) -> (usize, Duration) {
    for request in requests {
        batcher.submit(request.clone()).expect("it fits");
    }
    batcher.step().expect("the CPU does not fail"); // the prompts, and a first token each
    let mut tokens = 0;
    let begun = Instant::now();
    while !batcher.is_idle() {
        let events = batcher.step().expect("the CPU does not fail");
        tokens += events.iter().filter(|(_, event)| matches!(event, GenerateEvent::Token { .. })).count();
    }
    (tokens, begun.elapsed())
}

#[test]
#[ignore = "a measurement: cargo test --release -p openclaw-model --test engine constrained -- --ignored --nocapture"]
fn what_a_constraint_costs_beside_free_decoding() {
    const ROUNDS: u64 = 12;
    let tokenizer = Tokenizer::from_dir(&folder()).expect("the embedded tokenizer");
    let grammars = Grammars::new(&tokenizer).expect("byte-level tokens");
    let mut batcher = batcher(&tokenizer);
    let item = json!({"type": "object", "properties": {"name": {"type": "string", "minLength": 20, "maxLength": 60},
        "kind": {"enum": ["red", "green", "blue"]}, "size": {"type": "integer", "minimum": 0, "maximum": 5000}},
        "required": ["name", "kind", "size"], "additionalProperties": false});
    let schema = json!({"type": "array", "items": item, "minItems": 50});
    let constraint = grammars.json_schema(&schema, true).expect("a schema");
    for streams in [1, 8] {
        let mut ratios = Vec::new();
        for round in 0..ROUNDS {
            let of = |constraint: Option<&Constraint>| -> Vec<GenerateRequest> {
                (0..streams)
                    .map(|stream| {
                        let mut request =
                            request(&tokenizer, "Tell me more.", round * 100 + stream, constraint.cloned());
                        request.prompt_ids.extend(tokenizer.encode("<think>\n\n</think>\n\n").expect("text"));
                        request.sampling.ignore_eos = true;
                        request
                    })
                    .collect()
            };
            let (free, held) = (of(None), of(Some(&constraint)));
            let per_token = |(tokens, time): (usize, Duration)| time.as_secs_f64() * 1e6 / tokens as f64;
            // Whoever goes first does so every other time.
            let (free, held) = if round % 2 == 0 {
                let free = per_token(decode(&mut batcher, &free));
                (free, per_token(decode(&mut batcher, &held)))
            } else {
                let held = per_token(decode(&mut batcher, &held));
                (per_token(decode(&mut batcher, &free)), held)
            };
            eprintln!("{streams} streams: free {free:.0} us per token, held {held:.0}");
            ratios.push(held / free);
        }
        ratios.sort_by(f64::total_cmp);
        eprintln!("{streams} streams: held takes {:.3} of free at the median", ratios[ratios.len() / 2]);
    }
}
