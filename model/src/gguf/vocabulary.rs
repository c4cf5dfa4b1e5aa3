//! The tokenizer: `tokenizer.json` of what the file holds.

use serde_json::{Map, Value, json};

use super::{GgufError, reader::Gguf};
use crate::tokenizer::{NamedTokens, Tokenizer};

/// How a text is split before its pieces are merged, by the name that files give it.
enum Split {
    /// By this expression.
    Regex(&'static str),
    /// Digits one by one, the rest as GPT-2 does.
    Digits,
    /// As GPT-2 does.
    Gpt2,
}

const QWEN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Name, split, whether accents are joined with their letters first, whether a piece that is a token is not merged.
const SPLITS: [(&str, Split, bool, bool); 7] = [
    ("qwen2", Split::Regex(QWEN), true, false),
    ("deepseek-r1-qwen", Split::Regex(QWEN), true, false),
    ("llama-bpe", Split::Regex(LLAMA3), false, true),
    ("llama3", Split::Regex(LLAMA3), false, true),
    ("smollm", Split::Digits, false, false),
    ("gpt-2", Split::Gpt2, false, false),
    ("default", Split::Gpt2, false, false),
];

/// ggml's kinds of tokens.
const CONTROL: i128 = 3;
const USER_DEFINED: i128 = 4;
/// An id that no token has.
const UNUSED: i128 = 5;

/// What a file says of its tokens.
pub(super) struct Vocabulary {
    pub tokenizer: Tokenizer,
    /// Ids that end a reply.
    pub ends: Vec<u32>,
    pub pad: Option<u32>,
    pub bos: Option<u32>,
}

pub(super) fn read(gguf: &Gguf) -> Result<Vocabulary, GgufError> {
    let bad = |key: &str, what: String| GgufError::Key { key: key.to_owned(), what };
    let key = "tokenizer.ggml.model";
    match gguf.text(key)? {
        Some("gpt2") => {}
        Some(other) => {
            return Err(bad(key, format!("is {other}, which is not read: only byte-level BPE (`gpt2`) is")));
        }
        None => return Err(bad(key, "is missing".to_owned())),
    }
    let key = "tokenizer.ggml.pre";
    let pre = gguf.text(key)?.unwrap_or("default");
    let Some((_, split, joins, whole)) = SPLITS.iter().find(|(name, ..)| *name == pre) else {
        let known: Vec<&str> = SPLITS.iter().map(|(name, ..)| *name).collect();
        return Err(bad(key, format!("is {pre}, which is not read: {} are", known.join(", "))));
    };
    let key = "tokenizer.ggml.tokens";
    let tokens = gguf.texts(key)?.ok_or_else(|| bad(key, "is missing".to_owned()))?;
    let kinds = gguf.integers("tokenizer.ggml.token_type")?.unwrap_or_else(|| vec![1; tokens.len()]);
    if kinds.len() != tokens.len() {
        let what = format!("has {} entries for {} tokens", kinds.len(), tokens.len());
        return Err(bad("tokenizer.ggml.token_type", what));
    }
    let key = "tokenizer.ggml.merges";
    let merges = gguf.texts(key)?.ok_or_else(|| bad(key, "is missing".to_owned()))?;
    let mut pairs = Vec::with_capacity(merges.len());
    for merge in merges {
        // A space stands between the two, and may begin neither: in the byte alphabet it is another letter.
        let pair = merge.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty());
        let (left, right) = pair.ok_or_else(|| bad(key, format!("holds `{merge}`, which is no pair")))?;
        pairs.push(json!([left, right]));
    }

    let mut vocabulary = Map::new();
    let mut added = Vec::new();
    for (id, (token, kind)) in tokens.iter().zip(&kinds).enumerate() {
        if *kind == UNUSED {
            continue;
        }
        if let Some(other) = vocabulary.insert((*token).to_owned(), id.into()) {
            return Err(bad("tokenizer.ggml.tokens", format!("has `{token}` at {other} and at {id}")));
        }
        if matches!(*kind, CONTROL | USER_DEFINED) {
            added.push(json!({
                "id": id, "content": token, "special": *kind == CONTROL,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            }));
        }
    }
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": use_regex});
    let pre_tokenizer = match split {
        Split::Regex(regex) => json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false},
            byte_level(false),
        ]}),
        Split::Digits => json!({"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            byte_level(true),
        ]}),
        Split::Gpt2 => byte_level(true),
    };
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": if *joins { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": pre_tokenizer,
        "post_processor": null,
        "decoder": byte_level(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": whole,
            "vocab": vocabulary, "merges": pairs,
        },
    });
    let id = |name: &str| -> Result<Option<u32>, GgufError> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        match gguf.count(&key)? {
            Some(id) if id >= tokens.len() => Err(bad(&key, format!("is {id} of {} tokens", tokens.len()))),
            found => Ok(found.map(|id| id as u32)),
        }
    };
    let (bos, eos, eot, pad, unk) = (id("bos")?, id("eos")?, id("eot")?, id("padding")?, id("unknown")?);
    let named = |id: Option<u32>| id.map(|id| tokens[id as usize].to_owned());
    let names = NamedTokens { bos: named(bos), eos: named(eos), pad: named(pad), unk: named(unk) };
    let made = serde_json::to_vec(&json).expect("a JSON value always serialises");
    let tokenizer = tokenizers::Tokenizer::from_bytes(made)
        .and_then(|tokenizer| Tokenizer::new(tokenizer, names))
        .map_err(|error| bad("tokenizer.ggml.tokens", format!("make no tokenizer: {error}")))?;
    let mut ends: Vec<u32> = eos.into_iter().chain(eot).collect();
    ends.dedup();
    Ok(Vocabulary { tokenizer, ends, pad, bos })
}
