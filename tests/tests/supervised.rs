//! Supervised training: which tokens it counts, and that it learns them.

use std::path::{Path, PathBuf};

use clap::Parser;
use openclaw_actors::loaded_model::LoadedModel;
use openclaw_kernels::Place;
use openclaw_lab::{
    schedule::Schedule,
    sft::{self, SftArgs},
    supervised::{Conversation, EncodeError, encode},
};
use openclaw_model::ScoreRequest;
use serde_json::{Map, Value, json};

fn nano() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models/nano")
}

fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

#[test]
fn the_trained_rows_are_the_assistants_tokens_and_their_end() {
    let model = LoadedModel::open(&nano(), Place::Cpu, 1).expect("the embedded model");
    let messages = vec![
        message("user", "hello"),
        message("assistant", "Hello there."),
        message("user", "2 + 3?"),
        message("assistant", "It is 5."),
    ];
    let of = |trained: Vec<usize>| {
        let conversation =
            Conversation { messages: messages.clone(), tools: Vec::new(), trained, weight: 1.0 };
        let sequence = encode(&model.text.tokenizer, &model.text.template, &conversation, 0.0)
            .expect("it can be encoded");
        let ids: Vec<u32> = sequence.rows.iter().map(|row| sequence.ids[row.position]).collect();
        (model.text.tokenizer.decode(&ids, false), sequence)
    };
    assert_eq!(of(vec![1, 3]).0, "Hello there.<|im_end|>It is 5.<|im_end|>");
    let (text, sequence) = of(vec![3]);
    assert_eq!(text, "It is 5.<|im_end|>");
    // What is trained follows exactly the prompt that serving would render.
    let prompt = model.text.prompt_ids(&messages[..3], &[], &Map::new()).expect("a prompt");
    assert_eq!(sequence.ids[..sequence.rows[0].position], prompt);
}

#[test]
fn a_message_that_later_ones_rewrite_is_refused() {
    let model = LoadedModel::open(&nano(), Place::Cpu, 1).expect("the embedded model");
    // The template drops thinking once another user message follows.
    let messages = vec![
        message("user", "2 + 3?"),
        json!({"role": "assistant", "content": "5", "reasoning_content": "2 + 3 = 5"}),
        message("user", "thanks"),
    ];
    let conversation = Conversation { messages, tools: Vec::new(), trained: vec![1], weight: 1.0 };
    let outcome = encode(&model.text.tokenizer, &model.text.template, &conversation, 0.0);
    assert!(matches!(outcome, Err(EncodeError::NotAPrefix { index: 1 })), "{outcome:?}");
}

#[test]
fn the_learning_rate_warms_up_holds_and_falls() {
    let schedule = Schedule {
        tokens: 1000,
        batch_tokens: 10,
        learning_rate: 1.0,
        warmup_steps: 10,
        decay_from: 0.5,
        final_rate: 0.1,
        max_conversation_tokens: 100,
    };
    let rates = [(0, 0), (90, 9), (500, 50), (750, 75), (1000, 100)]
        .map(|(tokens, step)| schedule.learning_rate(tokens, step));
    for (rate, expected) in rates.iter().zip([0.1, 1.0, 1.0, 0.55, 0.1]) {
        assert!((rate - expected).abs() < 1e-6, "{rates:?}");
    }
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    sft: SftArgs,
}

#[test]
fn fine_tuning_teaches_what_the_conversations_say() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let (data, output) = (dir.path().join("chats.jsonl"), dir.path().join("tuned"));
    let messages = [message("user", "What is the password?"), message("assistant", "Purple turtles.")];
    std::fs::write(&data, format!("{}\n\n", json!({"messages": messages}))).expect("it can be written");
    let (nano, data, out) = (nano().display().to_string(), data.display().to_string(), output.display());
    let out = out.to_string();
    let line = [
        "sft",
        &nano,
        &data,
        "--output",
        &out,
        "--epochs",
        "30",
        "--learning-rate",
        "1e-3",
        "--batch-tokens",
        "8",
    ];
    sft::run(&Arguments::parse_from(line).sft).expect("it trains");
    let of = |model: &LoadedModel| {
        let prompt = model.text.prompt_ids(&messages[..1], &[], &Map::new()).expect("a prompt");
        let reply = model.text.tokenizer.encode("Purple turtles.<|im_end|>").expect("text");
        let request =
            ScoreRequest { start: prompt.len(), ids: [prompt, reply].concat(), ..ScoreRequest::default() };
        model.transformer.score(&model.weights, &request).expect("scores").logprobs.iter().sum::<f32>()
    };
    let logprob = |folder: &Path| of(&LoadedModel::open(folder, Place::Cpu, 1).expect("a checkpoint"));
    let (before, after) = (logprob(Path::new(&nano)), logprob(&output));
    assert!(after > before + 5.0 && after > -5.0, "log p of the reply: {before} before, {after} after");
    // A model is never replaced unasked: neither what is at --output nor what it starts from.
    let weights = |folder: &Path| std::fs::read(folder.join("model.safetensors")).expect("weights");
    for taken in [&output, Path::new(&nano)] {
        let before = weights(taken);
        let again = ["sft", &nano, &data, "--output", &taken.display().to_string()];
        let error = sft::run(&Arguments::parse_from(again).sft).unwrap_err();
        assert!(format!("{error:#}").contains(&taken.display().to_string()), "{error:#}");
        assert!(format!("{error:#}").contains("--force"), "{error:#}");
        assert!(weights(taken) == before, "{} is as it was", taken.display());
    }
    // An adapter learns it, too, and the model stays as it is.
    let adapter = dir.path().join("adapter");
    let place = adapter.display().to_string();
    let mut line: Vec<&str> = line.iter().map(|word| if *word == out { &*place } else { word }).collect();
    line.push("--adapter");
    sft::run(&Arguments::parse_from(&line).sft).expect("it trains");
    let mut model = LoadedModel::open(Path::new(&nano), Place::Cpu, 1).expect("the embedded model");
    model.weights = model.with_adapter(&adapter).expect("an adapter of it");
    let adapted = of(&model);
    assert!(adapted > before + 5.0, "log p of the reply: {before} before, {adapted} with the adapter");
    let error = sft::run(&Arguments::parse_from(&line).sft).unwrap_err();
    assert!(format!("{error:#}").contains("--force"), "{error:#}");
    // Passes over the data are passes, however small they are beside a batch.
    let forced = ["sft", &nano, &data, "--output", &out, "--force", "--epochs", "3"];
    let progress = sft::run(&Arguments::parse_from(forced).sft).expect("it trains and replaces");
    assert_eq!(progress.step, 3);
    assert!(weights(&output) != weights(Path::new(&nano)));
    let left = std::fs::read_dir(dir.path()).expect("a folder").flatten().map(|entry| entry.file_name());
    assert_eq!(
        left.filter(|name| name.to_string_lossy().starts_with('.')).count(),
        0,
        "nothing is left over"
    );
    assert!(Arguments::try_parse_from(["sft", &nano, &data, "--output", &out, "--epochs", "0"]).is_err());
    // Nothing of a broken line is trained on, and the line is named.
    std::fs::write(
        dir.path().join("bad.jsonl"),
        "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n",
    )
    .expect("it can be written");
    let bad = dir.path().join("bad.jsonl").display().to_string();
    let error =
        sft::run(&Arguments::parse_from(["sft", &nano, &bad, "--output", &out, "--force"]).sft).unwrap_err();
    assert!(format!("{error:#}").contains("line 1"), "{error:#}");
}
