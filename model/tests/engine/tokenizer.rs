//! Our tokenizer, trained by us, agrees with `transformers` on every id.
//! The expectations are made by tests/reference/make_fixtures.py from the tokenizer that this test trains.
//! `BLESS=1` writes that tokenizer anew.

use std::path::{Path, PathBuf};

use openclaw_model::{GenerationConfig, IncrementalDetokenizer, TextError, Tokenizer, train_bpe};
use serde_json::Value;

const SPECIAL_TOKENS: [&str; 9] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizer")
}

fn corpus() -> impl Iterator<Item = String> + Send {
    let items = ["apples", "pencils", "books", "Äpfel", "りんご", "яблок", "🍎🍏"];
    (0..400usize).map(move |i| {
        let item = items[i % items.len()];
        let (count, price) = (i * 7 % 90 + 2, i * 13 % 50 + 1);
        match i % 4 {
            0 => format!("Anna buys {count} {item} for {price} dollars each. What does she pay?"),
            1 => format!(
                "She pays {count} x {price} = {} dollars.\n\n**Answer:** {}",
                count * price,
                count * price
            ),
            2 => format!("I don't like it; you've written \"{item}\" {count} times.\n"),
            _ => format!("{{\"name\": \"count\", \"arguments\": {{\"of\": \"{item}\", \"n\": {count}}}}}"),
        }
    })
}

fn cases() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixtures().join("cases.json")).unwrap()).unwrap()
}

fn ids(case: &Value) -> Vec<u32> {
    case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn training_gives_the_committed_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    train_bpe(corpus(), 512, &SPECIAL_TOKENS).unwrap().save(dir.path()).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let written = std::fs::read_to_string(dir.path().join(file)).unwrap();
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(fixtures().join(file), &written).unwrap();
        }
        // Not assert_eq: nobody reads two tokenizers.
        assert!(written == std::fs::read_to_string(fixtures().join(file)).unwrap(), "{file} has changed");
    }
}

#[test]
fn ids_and_texts_are_those_of_transformers() {
    let tokenizer = Tokenizer::from_dir(&fixtures()).unwrap();
    let expected = cases();
    assert_eq!(tokenizer.vocab_size() as u64, expected["vocab_size"].as_u64().unwrap());
    assert_eq!(tokenizer.eos_id().map(u64::from), expected["eos_token_id"].as_u64());
    let cases = expected["cases"].as_array().unwrap();
    assert!(cases.len() >= 50);
    for case in cases {
        let ids = ids(case);
        if let Some(text) = case["text"].as_str() {
            assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
        }
        assert_eq!(tokenizer.decode(&ids, false), case["decoded"].as_str().unwrap());
        assert_eq!(tokenizer.decode(&ids, true), case["decoded_without_special"].as_str().unwrap());
    }
}

#[test]
fn the_bytes_of_tokens_join_to_the_text() {
    let tokenizer = Tokenizer::from_dir(&fixtures()).unwrap();
    for case in cases()["cases"].as_array().unwrap() {
        let bytes: Vec<u8> = ids(case).iter().flat_map(|&id| tokenizer.token_bytes(id)).collect();
        assert_eq!(String::from_utf8_lossy(&bytes), case["decoded"].as_str().unwrap());
    }
    assert_eq!(tokenizer.token_bytes(u32::MAX), b"");
    assert_eq!(tokenizer.token_text(tokenizer.special_id("<think>").unwrap()), "<think>");
}

#[test]
fn control_tokens_are_special_and_markers_are_text() {
    let tokenizer = Tokenizer::from_dir(&fixtures()).unwrap();
    for (id, token) in (0..).zip(SPECIAL_TOKENS) {
        assert_eq!(tokenizer.special_id(token), Some(id));
        assert_eq!(tokenizer.is_special(id), token.starts_with("<|"));
    }
    assert_eq!(tokenizer.special_id("Anna"), None);
    assert!(!tokenizer.is_special(300) && !tokenizer.is_special(u32::MAX));
}

#[test]
fn pushed_tokens_join_to_the_decoded_text() {
    let tokenizer = Tokenizer::from_dir(&fixtures()).unwrap();
    for case in cases()["cases"].as_array().unwrap() {
        let mut detokenizer = IncrementalDetokenizer::new(tokenizer.clone());
        let mut text: String = ids(case).iter().map(|&id| detokenizer.push(id)).collect();
        text.push_str(&detokenizer.finish());
        assert_eq!(text, case["decoded_without_special"].as_str().unwrap());
    }
}

#[test]
fn half_a_character_is_held_back() {
    let tokenizer = Tokenizer::from_dir(&fixtures()).unwrap();
    let ids = tokenizer.encode("𝄞").unwrap();
    assert_eq!(ids.len(), 4, "the tokenizer has learnt this character: choose another");
    let mut detokenizer = IncrementalDetokenizer::new(tokenizer.clone());
    let texts: Vec<String> = ids.iter().map(|&id| detokenizer.push(id)).collect();
    assert_eq!(texts, ["", "", "", "𝄞"]);
    assert_eq!(detokenizer.push(ids[0]), "");
    let letter = tokenizer.encode("a").unwrap()[0];
    assert_eq!(detokenizer.push(letter), "\u{fffd}a");
    detokenizer.push(ids[0]);
    assert_eq!(detokenizer.finish(), "\u{fffd}");
    assert_eq!(detokenizer.finish(), "");
}

#[test]
fn a_marker_that_a_vocabulary_calls_special_is_still_text() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::read_to_string(fixtures().join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_str(&file).unwrap();
    for token in json["added_tokens"].as_array_mut().unwrap() {
        token["special"] = true.into();
    }
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let ids = tokenizer.encode("<think>hm</think>yes<|im_end|>").unwrap();
    let mut detokenizer = IncrementalDetokenizer::new(tokenizer.clone());
    let text: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
    assert_eq!(text, "<think>hm</think>yes");
    assert_eq!(tokenizer.decode(&ids, true), "hmyes");
}

#[test]
fn a_broken_tokenizer_is_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let missing = Tokenizer::from_dir(dir.path()).unwrap_err();
    assert!(matches!(&missing, TextError::ReadFile { path: at, .. } if *at == path), "{missing:?}");
    std::fs::write(&path, "{\"version\": ").unwrap();
    let truncated = Tokenizer::from_dir(dir.path()).unwrap_err();
    assert!(truncated.to_string().contains("tokenizer.json"), "{truncated}");
    std::fs::copy(fixtures().join("tokenizer.json"), &path).unwrap();
    std::fs::write(dir.path().join("tokenizer_config.json"), "[").unwrap();
    let config = Tokenizer::from_dir(dir.path()).unwrap_err();
    assert!(config.to_string().contains("tokenizer_config.json"), "{config}");
}

#[test]
fn a_vocabulary_smaller_than_its_bytes_is_refused() {
    let error = train_bpe(corpus(), 264, &SPECIAL_TOKENS).unwrap_err();
    assert_eq!(error.to_string(), "vocab_size is 264, but 256 bytes and 9 special tokens need 265");
    assert_eq!(train_bpe(corpus(), 265, &SPECIAL_TOKENS).unwrap().vocab_size(), 265);
}

#[test]
fn end_tokens_come_from_the_first_file_that_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
    let read = || GenerationConfig::from_dir(dir.path());
    assert_eq!(read().unwrap(), GenerationConfig::default());
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixtures().join(file), dir.path().join(file)).unwrap();
    }
    assert_eq!(read().unwrap().eos_token_ids, [2]);
    write("config.json", r#"{"eos_token_id": 7}"#);
    assert_eq!(read().unwrap().eos_token_ids, [7]);
    write(
        "generation_config.json",
        r#"{"temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": null}"#,
    );
    let expected = GenerationConfig {
        eos_token_ids: vec![7],
        temperature: Some(0.6),
        top_p: Some(0.95),
        top_k: Some(20),
    };
    assert_eq!(read().unwrap(), expected);
    write("generation_config.json", r#"{"eos_token_id": [5, 6]}"#);
    assert_eq!(read().unwrap().eos_token_ids, [5, 6]);
    for (text, problem) in [
        (r#"{"eos_token_id": [5, "x"]}"#, "eos_token_id is \"x\", not a token id or a list of them"),
        (r#"{"top_p": 1.5}"#, "top_p is 1.5, not a number from 0 to 1"),
    ] {
        write("generation_config.json", text);
        let error = read().unwrap_err().to_string();
        assert!(error.ends_with(&format!("generation_config.json: {problem}")), "{error}");
    }
}
