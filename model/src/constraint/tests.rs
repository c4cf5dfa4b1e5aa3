use std::path::Path;

use boon::{Compiler, Schemas};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Map;

use super::*;
use crate::output_parser::{OutputDelta, OutputParser, ParserConfig};
use crate::response::{DrawError, Response};
use crate::serving::{FinishReason, GenerateRequest, SamplingParams, TokenLogprob};
use crate::train_bpe;

mod calls;
mod random;
mod warm;

const MOST_TOKENS: usize = 600;

/// The embedded model's words, and how they are drawn without the model.
struct Words {
    tokenizer: Tokenizer,
    grammars: Grammars,
    end_ids: Vec<TokenId>,
    /// Added to random logits, so that texts come to an end.
    closing: Vec<f32>,
}

#[derive(Debug)]
struct Drawn {
    ids: Vec<TokenId>,
    tokens: Vec<TokenLogprob>,
    text: String,
    reason: FinishReason,
}

impl Words {
    fn new(tokenizer: Tokenizer, end_ids: Vec<TokenId>) -> Self {
        let grammars = Grammars::new(&tokenizer).expect("byte-level tokens");
        let weight = |id| match tokenizer.bytes_of(id) {
            b"\"" | b"}" | b"]" => 4.0,
            b"\"}" | b"\"]" => 3.0,
            _ if end_ids.contains(&id) => 5.0,
            bytes if bytes.iter().any(u8::is_ascii_whitespace) => -2.0,
            _ => 0.0,
        };
        let closing = (0..tokenizer.id_limit() as TokenId).map(weight).collect();
        Self { tokenizer, grammars, end_ids, closing }
    }

    fn embedded() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models/nano");
        Self::new(Tokenizer::from_dir(&folder).expect("the embedded tokenizer"), vec![2, 0])
    }

    /// 256 bytes and three marks: every character of several bytes is several tokens.
    fn bytes() -> Self {
        let marks = ["<|im_end|>", "<think>", "</think>"];
        let tokenizer = train_bpe(std::iter::empty(), 256 + marks.len(), &marks).expect("bytes and marks");
        let end = tokenizer.special_id("<|im_end|>").expect("a mark");
        Self::new(tokenizer, vec![end])
    }

    fn request(&self, constraint: &Constraint, seed: u64) -> GenerateRequest {
        GenerateRequest {
            prompt_ids: self.tokenizer.encode("<think>\n\n</think>\n\n").expect("text"),
            drawn_ids: Vec::new(),
            sampling: SamplingParams { seed: Some(seed), ..Default::default() },
            max_new_tokens: MOST_TOKENS,
            stop: Vec::new(),
            top_logprobs: 0,
            constraint: Some(constraint.clone()),
        }
    }

    fn response(&self, request: &GenerateRequest) -> Response {
        Response::new(request, MOST_TOKENS, self.tokenizer.clone()).expect("parameters in range")
    }

    fn logits(&self, rng: &mut ChaCha8Rng) -> Vec<f32> {
        self.closing.iter().map(|closing| closing + rng.random_range(-2.0..2.0)).collect()
    }

    fn draw(&self, request: &GenerateRequest, seed: u64) -> Result<Drawn, DrawError> {
        self.draw_by(request, seed, |_| {})
    }

    /// `lean` changes the logits of each step.
    fn draw_by(
        &self,
        request: &GenerateRequest,
        seed: u64,
        mut lean: impl FnMut(&mut [f32]),
    ) -> Result<Drawn, DrawError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut response = self.response(request);
        let (mut tokens, mut text) = (Vec::new(), String::new());
        loop {
            let mut logits = self.logits(&mut rng);
            lean(&mut logits);
            let drawn = response.draw(&logits, &self.end_ids)?;
            text.push_str(&drawn.text);
            tokens.push(drawn.token);
            if let Some(end) = drawn.end {
                text.push_str(&end.text);
                let ids = tokens.iter().map(|token| token.id).collect();
                return Ok(Drawn { ids, tokens, text, reason: end.reason });
            }
        }
    }

    /// Draws until it has come to an end of its own.
    fn finished(&self, constraint: &Constraint) -> String {
        for seed in 0..20 {
            let drawn = self.draw(&self.request(constraint, seed), seed).expect("the constraint holds");
            if drawn.reason == FinishReason::Stop {
                return drawn.text;
            }
        }
        panic!("nothing came to an end");
    }
}

fn assert_valid(schema: &Value, text: &str) {
    let instance: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.enable_format_assertions();
    compiler.add_resource("schema.json", schema.clone()).expect("a schema");
    let compiled = compiler.compile("schema.json", &mut schemas).expect("a valid schema");
    if let Err(error) = schemas.validate(&instance, compiled) {
        panic!("{schema}\ngave {text}\n{error}");
    }
}

#[test]
fn what_a_random_schema_lets_through_is_its_instance() {
    let words = Words::embedded();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut finished = 0;
    for case in 0..250 {
        let schema = random::schema(&mut rng);
        let constraint = words.grammars.json_schema(&schema, true);
        let constraint = constraint.unwrap_or_else(|error| panic!("{schema}: {error}"));
        let drawn = words.draw(&words.request(&constraint, case), case);
        let drawn = drawn.unwrap_or_else(|error| panic!("{schema}: {error}"));
        if drawn.reason == FinishReason::Stop {
            assert_valid(&schema, &drawn.text);
            finished += 1;
        }
    }
    assert!(finished >= 200, "{finished} of 250 came to an end");
}

#[test]
fn what_a_format_does_not_say_is_held_too() {
    let words = Words::embedded();
    for format in ["time", "date-time", "email"] {
        let schema = json!({"type": "array", "minItems": 3, "items": {"type": "string", "format": format}});
        let constraint = words.grammars.json_schema(&schema, true).expect("a schema");
        for seed in 0..40 {
            // Nothing but its limits ends a name or makes seconds.
            let drawn = words.draw_by(&words.request(&constraint, seed), seed, |logits| {
                for (id, logit) in logits.iter_mut().enumerate() {
                    match words.tokenizer.bytes_of(id as TokenId) {
                        b"6" | b"60" => *logit += 8.0,
                        text if text.contains(&b'@') && seed % 2 == 0 => *logit -= 30.0,
                        _ => {}
                    }
                }
            });
            let drawn = drawn.expect("the constraint holds");
            if drawn.reason == FinishReason::Stop {
                assert_valid(&schema, &drawn.text);
            }
        }
    }
}

#[test]
fn a_character_of_several_tokens_and_a_text_the_tokenizer_would_normalize_are_drawn() {
    // The second is in two code points, which the embedded tokenizer would make one.
    for name in ["日本語 🦀", "e\u{301}te", "</think>\u{10FFFF}", "a\"b\\c\n"] {
        let schema = json!({"enum": [name]});
        for words in [Words::embedded(), Words::bytes()] {
            let constraint = words.grammars.json_schema(&schema, true).expect("a schema");
            assert_valid(&schema, &words.finished(&constraint));
            let constraint = words.grammars.choice(&[name.to_owned()]).expect("a choice");
            assert_eq!(words.finished(&constraint), name);
        }
    }
    let words = Words::bytes();
    let any =
        words.grammars.json_schema(&json!({"type": "string", "maxLength": 12}), true).expect("a schema");
    for seed in 0..50 {
        let drawn = words.draw(&words.request(&any, seed), seed).expect("the constraint holds");
        assert!(!drawn.text.contains(char::REPLACEMENT_CHARACTER), "{}", drawn.text);
    }
}

#[test]
fn no_text_of_a_constraint_is_a_mark() {
    let words = Words::embedded();
    let any = words.grammars.json_object().expect("an object");
    let marks: Vec<TokenId> =
        (0..words.tokenizer.id_limit() as TokenId).filter(|&id| words.tokenizer.is_mark(id)).collect();
    for seed in 0..40 {
        let prefer = |logits: &mut [f32]| marks.iter().for_each(|&id| logits[id as usize] += 3.0);
        let request = words.request(&any, seed);
        let drawn = words.draw_by(&request, seed, prefer).expect("the constraint holds");
        let found: Vec<_> = drawn.ids.iter().filter(|id| marks.contains(id)).collect();
        let ends = usize::from(drawn.reason == FinishReason::Stop);
        assert_eq!(found.len(), ends, "{found:?} in {}", drawn.text);
    }
}

#[test]
fn the_log_probabilities_of_what_is_allowed_sum_to_one() {
    let words = Words::embedded();
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
        "additionalProperties": false});
    let constraint = words.grammars.json_schema(&schema, true).expect("a schema");
    let mut request = words.request(&constraint, 1);
    request.sampling.temperature = 0.7;
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut response = words.response(&request);
    for _ in 0..30 {
        let logits = words.logits(&mut rng);
        let id = {
            let mut matching = Matching::new(&constraint, &request.prompt_ids);
            request.drawn_ids.iter().for_each(|&id| matching.take(id).expect("drawn so far"));
            let allowed = matching.allowed(&logits, &words.end_ids, false).expect("the constraint holds");
            let only: Vec<TokenId> = allowed.only.expect("a mask").iter().collect();
            let weight = |id: TokenId| f64::from(logits[id as usize] / 0.7).exp();
            let mass: f64 = only.iter().map(|&id| weight(id)).sum();
            let whole: f64 = (0..logits.len() as TokenId).map(weight).sum();
            let raw: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            let drawn = response.draw(&logits, &words.end_ids).expect("the constraint holds");
            let TokenLogprob { id, logprob, policy_logprob, raw_logprob, .. } = drawn.token;
            assert!(only.contains(&id));
            for (found, expected) in [
                (logprob, (weight(id) / mass).ln()),
                (policy_logprob, (weight(id) / whole).ln()),
                (raw_logprob, f64::from(logits[id as usize]) - raw.ln()),
            ] {
                assert!((f64::from(found) - expected).abs() < 1e-5, "{found} for {expected}");
            }
            if drawn.end.is_some() {
                return;
            }
            id
        };
        request.drawn_ids.push(id);
    }
}

#[test]
fn a_pattern_a_choice_and_a_grammar_hold() {
    let words = Words::embedded();
    let constraint = words.grammars.regex(r"^[a-c]{3}-\d{2}$").expect("a pattern");
    let text = words.finished(&constraint);
    assert!(text.len() == 6 && text[..3].bytes().all(|byte| (b'a'..=b'c').contains(&byte)), "{text}");
    let texts = ["yes", "yes and no", "no"].map(str::to_owned);
    let constraint = words.grammars.choice(&texts).expect("a choice");
    assert!(texts.contains(&words.finished(&constraint)));
    let constraint = words.grammars.lark("start: (\"left\" | \"right\") \" \" /[0-9]+/").expect("a grammar");
    let text = words.finished(&constraint);
    assert!(text.starts_with("left ") || text.starts_with("right "), "{text}");
}

#[test]
fn what_cannot_be_held_is_an_error_that_names_it() {
    let words = Words::embedded();
    let schema = |schema: Value| words.grammars.json_schema(&schema, true).expect_err("refused").to_string();
    assert_eq!(schema(json!({"type": "array", "uniqueItems": true})), "'uniqueItems' cannot be held to");
    assert_eq!(
        schema(json!({"type": "object", "properties": {"a": {"not": {}, "if": {}}}})),
        "'if', 'not' cannot be held to"
    );
    assert_eq!(schema(json!({"type": "string", "format": "x"})), "'format': 'x' cannot be held to");
    let overlapping = json!({"oneOf": [{"type": "integer"}, {"type": "number"}]});
    assert_eq!(schema(overlapping.clone()), "'oneOf' whose schemas may hold at once cannot be held to");
    assert!(schema(json!([])).contains("it is no object"));
    assert!(schema(json!({"type": "text"})).contains("text"));
    assert!(schema(json!({"$ref": "#/$defs/none"})).contains("none"));
    assert!(schema(json!({"$ref": "https://example.com/schema"})).contains("example.com"));
    assert!(schema(json!({"enum": ["x".repeat(MAX_SCHEMA_BYTES)]})).contains("262144 may be"));

    for passed_over in
        [json!({"type": "array", "uniqueItems": true}), json!({"type": "string", "format": "x"})]
    {
        words.grammars.json_schema(&passed_over, false).expect("passed over where it is not strict");
    }
    words.grammars.json_schema(&overlapping, false).expect("one or more");

    for pattern in ["(", "a{3,1}", "\\p{nothing}"] {
        words.grammars.regex(pattern).expect_err(pattern);
    }
    words.grammars.choice(&[]).expect_err("no text");
    words.grammars.choice(&[String::new()]).expect_err("an empty text");
    for grammar in ["start: missing", "", "start: start", &format!("start: {}\"a\"", "(".repeat(5000))] {
        words.grammars.lark(grammar).expect_err(grammar);
    }
}

#[test]
fn a_schema_that_would_take_long_is_too_large() {
    let words = Words::embedded();
    let chain: Map<String, Value> = (0..7000)
        .map(|at| (format!("a{at}"), json!({"$ref": format!("#/$defs/a{}", at + 1)})))
        .chain([("a7000".to_owned(), json!({"type": "null"}))])
        .collect();
    let _ = words.grammars.json_schema(&json!({"$defs": chain, "$ref": "#/$defs/a0"}), true);
    let wide = json!({"type": "array", "items": {"type": "array", "minItems": 100_000, "maxItems": 100_000}});
    let _ = words.grammars.json_schema(&wide, true);
    let long = json!({"type": "string", "minLength": 1_000_000, "maxLength": 2_000_000});
    let _ = words.grammars.json_schema(&long, true);
    let heavy = words.grammars.regex("((a|b){1,400}c){1,400}");
    if let Ok(heavy) = heavy {
        let _ = words.draw(&words.request(&heavy, 1), 1);
    }
    let many: Vec<Value> = (0..2000).map(|at| json!({"const": format!("word {at}")})).collect();
    words.grammars.json_schema(&json!({"anyOf": many}), true).expect("2000 words are few");
}

#[test]
fn a_thought_is_free_and_what_follows_is_not() {
    let words = Words::embedded();
    let schema = json!({"enum": ["yes", "no"]});
    let constraint = words.grammars.json_schema(&schema, true).expect("a schema");
    let think = words.tokenizer.special_id(THINK).expect("a mark");
    let think_end = words.tokenizer.special_id(THINK_END).expect("a mark");
    let mut thoughts = 0;
    for seed in 0..60 {
        let prompt = ["<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n"][seed as usize % 2];
        let mut request = words.request(&constraint, seed);
        request.prompt_ids = words.tokenizer.encode(prompt).expect("text");
        let mut step = 0;
        let drawn = words.draw_by(&request, seed, |logits| {
            step += 1;
            logits[think as usize] += if step == 1 { 50.0 } else { 0.0 };
            logits[think_end as usize] += if step > 20 { 20.0 } else { -20.0 };
        });
        let drawn = drawn.expect("the constraint holds");
        let mut parser = OutputParser::new(ParserConfig::new(&[], seed % 2 == 1));
        let mut deltas = parser.push(&drawn.text);
        deltas.extend(parser.finish());
        let said = |content: bool| -> String {
            let texts = deltas.iter().filter_map(|delta| match delta {
                OutputDelta::Content(text) if content => Some(text.as_str()),
                OutputDelta::Reasoning(text) if !content => Some(text.as_str()),
                _ => None,
            });
            texts.collect()
        };
        if drawn.reason == FinishReason::Stop {
            assert_valid(&schema, &said(true));
            thoughts += usize::from(!said(false).is_empty());
        }
    }
    assert!(thoughts > 40, "{thoughts} thoughts");
}

#[test]
fn a_thought_is_no_way_out_of_a_form_that_the_model_finds_unlikely() {
    let words = Words::embedded();
    let constraint = words.grammars.choice(&["yes".to_owned()]).expect("a choice");
    let think = words.tokenizer.special_id(THINK).expect("a mark") as usize;
    let opens = |likeliest: bool| {
        let mut logits = vec![0.0; words.tokenizer.id_limit()];
        logits[think] = 5.0;
        logits[think - 1] = if likeliest { 4.0 } else { 6.0 };
        let mut matching = Matching::new(&constraint, &words.tokenizer.encode("hi").expect("text"));
        let allowed = matching.allowed(&logits, &words.end_ids, false).expect("held");
        allowed.only.expect("a mask").is_allowed(think as TokenId)
    };
    assert!(opens(true) && !opens(false));
}

#[test]
fn a_thought_whose_end_is_spelt_ends_where_it_is_spelt() {
    let words = Words::bytes();
    let constraint = words.grammars.choice(&["yes".to_owned()]).expect("a choice");
    let mut matching = Matching::new(&constraint, &words.tokenizer.encode("<think>\n").expect("text"));
    for id in words.tokenizer.encode_letters("hm <</think>").expect("text") {
        let allowed = matching.allowed(&[], &words.end_ids, false).expect("free");
        assert!(allowed.only.is_none() && allowed.not == words.end_ids);
        matching.take(id).expect("free");
    }
    for text in ["\n", "\n", "yes"] {
        for id in words.tokenizer.encode_letters(text).expect("text") {
            let allowed = matching.allowed(&[], &words.end_ids, false).expect("held");
            assert!(allowed.only.expect("a mask").is_allowed(id), "{text}");
            matching.take(id).expect("allowed");
        }
    }
    assert!(matching.is_complete());
    // A token that says more than the end of the thought is none that can be drawn there.
    let embedded = Words::embedded();
    for (come, beyond) in embedded.grammars.inner.marks.beyond_thought.iter().enumerate() {
        let rest = &THINK_END[come..];
        for &id in beyond {
            assert!(embedded.tokenizer.token_text(id).contains(rest));
        }
    }
    assert!(!embedded.grammars.inner.marks.beyond_thought[THINK_END.len() - 1].is_empty());
}

#[test]
fn a_response_that_goes_on_elsewhere_goes_on_under_its_constraint() {
    let words = Words::embedded();
    let schema =
        json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}}, "required": ["a"]});
    let constraint = words.grammars.json_schema(&schema, true).expect("a schema");
    for seed in 0..8 {
        let mut request = words.request(&constraint, seed);
        request.sampling = SamplingParams {
            frequency_penalty: 1.1,
            presence_penalty: 0.4,
            repetition_penalty: 1.3,
            min_tokens: 4,
            ..request.sampling
        };
        let whole = words.draw(&request, seed).expect("the constraint holds");
        for cut in 0..whole.ids.len() {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut response = words.response(&request);
            for &id in &whole.ids[..cut] {
                words.logits(&mut rng);
                assert!(response.redraw(id, &words.end_ids).expect("drawn so").is_none());
            }
            let drawn = response.draw(&words.logits(&mut rng), &words.end_ids).expect("held");
            assert_eq!(drawn.token, whole.tokens[cut], "cut at {cut}");
        }
        let mut response = words.response(&request);
        let wrong = words.tokenizer.encode_letters("nonsense").expect("text")[0];
        response.redraw(wrong, &words.end_ids).expect_err("not of the constraint");
    }
}

#[test]
fn the_end_is_possible_where_the_grammar_is_complete_and_certain_where_nothing_else_is() {
    let words = Words::embedded();
    let constraint = words.grammars.choice(&["yes".to_owned()]).expect("a choice");
    let request = |max_new_tokens, ignore_eos| {
        let mut request = words.request(&constraint, 3);
        request.sampling.ignore_eos = ignore_eos;
        GenerateRequest { max_new_tokens, ..request }
    };
    let length = words.tokenizer.encode_letters("yes").expect("text").len();
    for ignore_eos in [false, true] {
        let drawn = words.draw(&request(50, ignore_eos), 1).expect("the constraint holds");
        assert_eq!((drawn.text.as_str(), drawn.reason), ("yes", FinishReason::Stop));
        assert_eq!(drawn.tokens.len(), length + 1, "the end was drawn");
        assert!(words.end_ids.contains(drawn.ids.last().expect("an end")));
    }
    // No room for the end token, which is certain.
    let drawn = words.draw(&request(length, false), 1).expect("the constraint holds");
    assert_eq!((drawn.text.as_str(), drawn.reason), ("yes", FinishReason::Stop));
    if length > 1 {
        let drawn = words.draw(&request(length - 1, false), 1).expect("the constraint holds");
        assert_eq!(drawn.reason, FinishReason::Length);
    }
    let endless = Words { end_ids: Vec::new(), ..Words::embedded() };
    let drawn = endless.draw(&request(50, false), 1).expect("the constraint holds");
    assert_eq!((drawn.text.as_str(), drawn.ids.len()), ("yes", length));
}

/// The share of a folder of schemas that is held, and whether what comes out is valid: `OPENCLAW_SCHEMAS` names it. A file
/// is a schema, or an object whose `schema` is one.
#[test]
#[ignore = "needs a folder of schemas"]
fn schemas_of_a_folder_let_through_their_instances() {
    let folder = std::env::var("OPENCLAW_SCHEMAS").expect("OPENCLAW_SCHEMAS names a folder");
    let words = Words::embedded();
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("a folder").map(|file| file.unwrap().path()).collect();
    files.sort();
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    let mut compile_secs = Vec::new();
    let mut count = |what: &str| *counts.entry(what.to_owned()).or_default() += 1;
    for file in &files {
        let read: Option<Value> =
            std::fs::read(file).ok().and_then(|json| serde_json::from_slice(&json).ok());
        let Some(read) = read else { continue };
        let schema = read.get("schema").unwrap_or(&read);
        let begun = std::time::Instant::now();
        let constraint = match words.grammars.json_schema(schema, true) {
            Ok(constraint) => constraint,
            Err(ConstraintError::Keyword { .. }) => {
                count("refused: a keyword");
                continue;
            }
            Err(error) => {
                count(if matches!(error, ConstraintError::TooLarge { .. }) {
                    "refused: too large"
                } else {
                    "refused: invalid"
                });
                eprintln!("{}: {error}", file.display());
                continue;
            }
        };
        compile_secs.push(begun.elapsed().as_secs_f64());
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.enable_format_assertions();
        let compiled = compiler.add_resource("schema.json", schema.clone()).ok();
        let compiled = compiled.and_then(|()| compiler.compile("schema.json", &mut schemas).ok());
        let Some(compiled) = compiled else {
            count("held, but no schema to the validator");
            continue;
        };
        let drawn = (0..6).map(|seed| words.draw(&words.request(&constraint, seed), seed));
        let mut outcome = "held, no end in 600 tokens";
        for drawn in drawn {
            let drawn = match drawn {
                Ok(drawn) => drawn,
                Err(error) => {
                    eprintln!("{}: {error}", file.display());
                    outcome = "held, failed";
                    break;
                }
            };
            if drawn.reason == FinishReason::Stop {
                let instance = match serde_json::from_str(&drawn.text) {
                    Ok(instance) => instance,
                    Err(error) if error.to_string().contains("out of range") => {
                        outcome = "held, with a number beyond what the validator reads";
                        continue;
                    }
                    Err(error) => panic!("{}: {error}", drawn.text),
                };
                outcome = "held, valid";
                if let Err(error) = schemas.validate(&instance, compiled) {
                    eprintln!("{}: {} gave {error}", file.display(), drawn.text);
                    outcome = "held, not valid";
                }
                break;
            }
        }
        count(outcome);
    }
    compile_secs.sort_by(f64::total_cmp);
    let at = |share: f64| compile_secs[(compile_secs.len() as f64 * share) as usize] * 1e3;
    eprintln!("{} files: {counts:#?}", files.len());
    eprintln!(
        "compiled in {:.1} ms at the median, {:.1} at p99, {:.1} at most",
        at(0.5),
        at(0.99),
        at(0.9999)
    );
}
