//! What a response must be: JSON, a schema's instance, a pattern, one of some texts, a grammar's sentence, or calls of
//! tools. A [`Constraint`] is compiled once, for one tokenizer; `matching.rs` is one response's way through it.
//!
//! `llguidance` is the parser, over the bytes of our tokens. Marks are tokens of their own in it, and no text of a grammar
//! is one: a string of a JSON answer cannot hold a control token. A text that has only one continuation has only one
//! tokenization too, the tokenizer's own.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::TopLevelGrammar;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{TokRxInfo, TokTrie, TokenizerEnv};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory, regex_to_lark};
use serde_json::{Value, json};
use toktrie::{InferenceCapabilities, TokenId};

use crate::exact_json;
use crate::output_parser::{THINK, THINK_END, TOOL_CALL, TOOL_CALL_END};
use crate::tokenizer::Tokenizer;

mod matching;
mod warm;

pub use matching::ConstraintFailed;
pub(crate) use matching::Matching;
use warm::{Pristine, WarmLexers};

/// Most bytes of a schema, and of all schemas of the tools together.
pub const MAX_SCHEMA_BYTES: usize = 256 << 10;
/// Most bytes of a pattern, a grammar, or a choice.
pub const MAX_GRAMMAR_BYTES: usize = 64 << 10;
/// Most brackets inside one another in a grammar, whose parser descends into them.
const MAX_GRAMMAR_DEPTH: usize = 100;
/// References of a schema follow one another on the stack.
const COMPILE_STACK_BYTES: usize = 256 << 20;
/// Compiled constraints that are kept: clients send the same tools and schemas turn after turn.
const MAX_KEPT: usize = 32;
/// Between the tokens of JSON: a space, or a line's end and an indentation. Any more, and a weak model writes nothing else.
const WHITE_SPACE: &str = r"\x20|\x0D?\x0A[\x20\x09]{0,40}";

/// A constraint that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// A keyword of a schema that would not be held.
    #[error("{keywords} cannot be held to")]
    Keyword {
        /// Which, each in quotes.
        keywords: String,
    },
    /// It says nothing that can be followed.
    #[error("the {kind} cannot be used: {problem}")]
    Invalid {
        /// What it is.
        kind: &'static str,
        /// Why not.
        problem: String,
    },
    /// It would take too long.
    #[error("the {kind} is too large: {problem}")]
    TooLarge {
        /// What it is.
        kind: &'static str,
        /// Which limit it meets.
        problem: String,
    },
}

/// A tool that may be called.
#[derive(Clone, Debug)]
pub struct CallableTool {
    /// Its name.
    pub name: String,
    /// The JSON schema of its arguments. None: it takes any object.
    pub parameters: Option<Value>,
    /// See [`Grammars::json_schema`].
    pub strict: bool,
}

/// How a response may call tools.
#[derive(Clone, Debug)]
pub struct ToolCalls {
    /// Those that may be called; at least one.
    pub tools: Vec<CallableTool>,
    /// The response is calls and nothing else. Else it is text, of which a `<tool_call>` begins a call.
    pub required: bool,
    /// Whether there may be more than one call.
    pub parallel: bool,
    /// What a response that calls nothing is, where it is no free text.
    pub answer: Option<JsonAnswer>,
}

/// An instance of a schema; see [`Grammars::json_schema`].
#[derive(Clone, Debug)]
pub struct JsonAnswer {
    /// The schema.
    pub schema: Value,
    /// Whether every keyword is held.
    pub strict: bool,
}

/// Makes constraints for one tokenizer. Cheap to clone.
#[derive(Clone)]
pub struct Grammars {
    inner: Arc<Inner>,
}

struct Inner {
    factory: ParserFactory,
    marks: Marks,
    kept: Mutex<VecDeque<(String, Pristine)>>,
    warm: WarmLexers,
}

/// A compiled constraint. Cheap to clone.
#[derive(Clone)]
pub struct Constraint {
    pristine: Pristine,
    grammars: Arc<Inner>,
}

/// The tokens that mean something beside the grammar.
#[derive(Debug)]
struct Marks {
    tokenizer: Tokenizer,
    think: Option<TokenId>,
    think_end: Option<TokenId>,
    /// Not of the model: stands for the end of a response, whichever tokens that has.
    end: TokenId,
    /// Newlines, no more than two: what templates write behind a thought.
    newlines: Vec<TokenId>,
    /// By how many bytes of `</think>` have come: the tokens that complete it and say more.
    beyond_thought: [Vec<TokenId>; THINK_END.len()],
}

/// The tokenizer as `llguidance` asks for it.
struct Vocabulary {
    trie: TokTrie,
    tokenizer: Tokenizer,
}

impl Vocabulary {
    fn new(tokenizer: &Tokenizer) -> (Self, TokenId) {
        let marked = |name: &[u8]| [&[TokTrie::SPECIAL_TOKEN_MARKER], name].concat();
        let word = |id: TokenId| match tokenizer.bytes_of(id) {
            name if tokenizer.is_special(id) || tokenizer.is_mark(id) => marked(name),
            // Would read as a mark, and is a part of no text.
            [TokTrie::SPECIAL_TOKEN_MARKER, ..] => Vec::new(),
            text => text.to_vec(),
        };
        let end = tokenizer.id_limit() as TokenId;
        let mut words: Vec<Vec<u8>> = (0..end).map(word).collect();
        words.push(marked(b"<end of the response>"));
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
        (Self { trie, tokenizer: tokenizer.clone() }, end)
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let ids = std::str::from_utf8(bytes).ok().and_then(|text| self.tokenizer.encode_letters(text).ok());
        // A tokenizer that normalizes would say something else.
        let same = |ids: &Vec<TokenId>| ids.iter().flat_map(|&id| self.tokenizer.bytes_of(id)).eq(bytes);
        ids.filter(same).unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }
}

impl Grammars {
    /// Takes a while for a large vocabulary.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, ConstraintError> {
        let failed = |error: &dyn fmt::Display| ConstraintError::Invalid {
            kind: "tokenizer",
            problem: in_one_line(error),
        };
        let (vocabulary, end) = Vocabulary::new(tokenizer);
        let slices = SlicedBiasComputer::general_slices();
        let mut factory =
            ParserFactory::new(&(Arc::new(vocabulary) as _), InferenceCapabilities::default(), &slices)
                .map_err(|error| failed(&error))?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        let marks = Marks::new(tokenizer, end);
        Ok(Self {
            inner: Arc::new(Inner { factory, marks, kept: Mutex::default(), warm: WarmLexers::default() }),
        })
    }

    /// Any JSON object.
    pub fn json_object(&self) -> Result<Constraint, ConstraintError> {
        self.json_schema(&json!({"type": "object"}), true)
    }

    /// An instance of a JSON schema. With `strict` a keyword that would not be held is an error; else it is passed over,
    /// and of `oneOf` one or more may hold.
    pub fn json_schema(&self, schema: &Value, strict: bool) -> Result<Constraint, ConstraintError> {
        let schema = compiled_schema(schema, strict, Layout::Free)?;
        self.compile("JSON schema", TopLevelGrammar::from_json_schema(schema))
    }

    /// A text that the whole of this pattern matches.
    pub fn regex(&self, pattern: &str) -> Result<Constraint, ConstraintError> {
        check_size("regular expression", pattern.len(), MAX_GRAMMAR_BYTES)?;
        // `\d` and `\w` are ASCII's, as they are in a schema.
        let pattern = regex_to_lark(without_anchors(pattern), "dw");
        self.compile("regular expression", TopLevelGrammar::from_lark(format!("start: /{pattern}/")))
    }

    /// One of these texts.
    pub fn choice(&self, texts: &[String]) -> Result<Constraint, ConstraintError> {
        let kind = "choice";
        check_size(kind, texts.iter().map(String::len).sum(), MAX_GRAMMAR_BYTES)?;
        if texts.is_empty() || texts.iter().any(String::is_empty) {
            let problem = "it needs a text or more, and no empty one".to_owned();
            return Err(ConstraintError::Invalid { kind, problem });
        }
        let texts: Vec<String> = texts.iter().map(|text| literal(text)).collect();
        self.compile(
            kind,
            TopLevelGrammar::from_lark(format!("start: CHOICE\nCHOICE: {}", texts.join(" | "))),
        )
    }

    /// A sentence of a grammar in `llguidance`'s form of Lark.
    pub fn lark(&self, grammar: &str) -> Result<Constraint, ConstraintError> {
        let kind = "grammar";
        check_size(kind, grammar.len(), MAX_GRAMMAR_BYTES)?;
        let depth = nesting(grammar);
        if depth > MAX_GRAMMAR_DEPTH {
            let problem = format!("{depth} brackets stand in one another, at most {MAX_GRAMMAR_DEPTH} may");
            return Err(ConstraintError::TooLarge { kind, problem });
        }
        self.compile(kind, TopLevelGrammar::from_lark(grammar.to_owned()))
    }

    /// Calls of tools as [`crate::OutputParser`] reads them, with the tokenizer's own marks where it has them.
    pub fn tool_calls(&self, calls: &ToolCalls) -> Result<Constraint, ConstraintError> {
        let tokenizer = &self.inner.marks.tokenizer;
        let mark = |name: &str| match tokenizer.special_id(name) {
            Some(id) => format!("<[{id}]>"),
            None => literal(name),
        };
        let (open, close) = (mark(TOOL_CALL), mark(TOOL_CALL_END));
        let mut names = Vec::new();
        let mut rules = String::new();
        let mut size = 0;
        for (at, tool) in calls.tools.iter().enumerate() {
            let mut parameters = tool.parameters.clone().unwrap_or_else(|| json!({"type": "object"}));
            if let Some(fields) = parameters.as_object_mut() {
                fields.entry("type").or_insert_with(|| "object".into());
            }
            let schema = compiled_schema(&parameters, tool.strict, Layout::OneLine)?.to_string();
            size += schema.len();
            let begin = format!("{{\"name\": {}, \"arguments\": ", Value::from(tool.name.as_str()));
            let _ = writeln!(rules, "call_{at}: {} arguments_{at} \"}}\"", literal(&begin));
            let _ = writeln!(rules, "arguments_{at}: %json {schema}");
            names.push(format!("call_{at}"));
        }
        if let Some(JsonAnswer { schema, strict }) = &calls.answer {
            let _ = writeln!(rules, "answer: %json {}", compiled_schema(schema, *strict, Layout::Free)?);
        }
        check_size("JSON schema of the tools", size, MAX_SCHEMA_BYTES)?;
        let any = names.join(" | ");
        let _ = writeln!(rules, "body: \"\\n\" ({any}) \"\\n\" {close}");
        let has_mark = tokenizer.special_id(TOOL_CALL).is_some();
        let start = match (calls.required, calls.parallel) {
            (false, true) if calls.answer.is_some() => {
                format!("start: answer | {open} body (\"\\n\" {open} body)*")
            }
            (false, false) if calls.answer.is_some() => format!("start: answer | {open} body"),
            (true, true) => format!("start: {open} body (\"\\n\" {open} body)*"),
            (true, false) => format!("start: {open} body"),
            (false, true) if has_mark => format!("start: TEXT? ({open} body TEXT?)*"),
            (false, false) if has_mark => format!("start: TEXT? ({open} body)?"),
            // Its letters end the text that they are in.
            (false, true) => "start: (upto body)* TEXT?".to_owned(),
            (false, false) => "start: upto body | TEXT?".to_owned(),
        };
        let text = "TEXT: /(?s:.+)/ & ~/(?s:.*)<tool_call>(?s:.*)/\nupto[lazy]: /(?s:.*)<tool_call>/";
        self.compile("tools", TopLevelGrammar::from_lark(format!("{start}\n{rules}{text}\n")))
    }

    fn compile(&self, kind: &'static str, grammar: TopLevelGrammar) -> Result<Constraint, ConstraintError> {
        let key = serde_json::to_string(&grammar).expect("a grammar is texts and JSON");
        let kept = || self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let constraint = |pristine| Constraint { pristine, grammars: self.inner.clone() };
        if let Some((_, pristine)) = kept().iter().find(|(of, _)| *of == key) {
            return Ok(constraint(pristine.clone()));
        }
        let matcher = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(COMPILE_STACK_BYTES);
            let compile = || {
                let mut matcher = Matcher::new(self.inner.factory.create_parser(grammar));
                // Tells of a grammar without a sentence, and every response needs it.
                matcher.compute_mask_or_eos().map(|_| matcher).map_err(|error| in_one_line(&error))
            };
            let thread = thread.spawn_scoped(scope, compile).map_err(|error| error.to_string())?;
            thread.join().map_err(|_| "its reading panicked".to_owned())?
        });
        let matcher = matcher.map_err(|problem| classified(kind, problem))?;
        let pristine = Arc::new(Mutex::new(matcher));
        let mut kept = kept();
        if kept.len() == MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back((key, pristine.clone()));
        Ok(constraint(pristine))
    }
}

impl Marks {
    fn new(tokenizer: &Tokenizer, end: TokenId) -> Self {
        let mut beyond_thought: [Vec<TokenId>; THINK_END.len()] = Default::default();
        let mut newlines = Vec::new();
        let texts = (0..end).filter(|&id| !tokenizer.is_special(id) && !tokenizer.is_mark(id));
        for id in texts {
            let bytes = tokenizer.bytes_of(id);
            if matches!(bytes, b"\n" | b"\n\n") {
                newlines.push(id);
            }
            for (come, beyond) in beyond_thought.iter_mut().enumerate() {
                let rest = &THINK_END.as_bytes()[come..];
                let within = || bytes.windows(rest.len()).rposition(|window| window == rest);
                let at = if come > 0 { bytes.starts_with(rest).then_some(0) } else { within() };
                if at.is_some_and(|at| at + rest.len() < bytes.len()) {
                    beyond.push(id);
                }
            }
        }
        let (think, think_end) = (tokenizer.special_id(THINK), tokenizer.special_id(THINK_END));
        Self { tokenizer: tokenizer.clone(), think, think_end, end, newlines, beyond_thought }
    }
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").field("tokenizer", &self.inner.marks.tokenizer).finish_non_exhaustive()
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint").finish_non_exhaustive()
    }
}

/// How JSON is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// As the model likes, within [`WHITE_SPACE`].
    Free,
    /// As templates write calls, and Python's `json.dumps`.
    OneLine,
}

/// Says what a schema leaves open as those read it who check answers.
///
/// An object whose properties are listed has no others, unless its schema speaks of them: what XGrammar and OpenAI hold
/// answers to, and what a weak model needs. Where schemas are combined, none of them lists all.
fn settle(schema: &mut Value) {
    const COMBINES: [&str; 8] =
        ["allOf", "anyOf", "oneOf", "not", "if", "$ref", "dependentSchemas", "$dynamicRef"];
    const SPEAKS: [&str; 4] =
        ["additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames"];
    let Some(fields) = schema.as_object_mut() else { return };
    let has = |names: &[&str]| names.iter().any(|name| fields.contains_key(*name));
    if fields.get("properties").is_some_and(Value::is_object) && !has(&COMBINES) && !has(&SPEAKS) {
        fields.insert("additionalProperties".to_owned(), false.into());
    }
    // What validators hold beside a format's letters: RFC 3339's leap seconds come at one moment of UTC, and RFC 5321's
    // names and addresses have an end.
    let held: Vec<(&str, Value)> = match fields.get("format").and_then(Value::as_str) {
        Some("time" | "date-time") => vec![("pattern", "^[^:]*:[^:]*:[0-5]".into())],
        Some("email" | "idn-email") => {
            vec![("pattern", "^[^@]{1,64}@[^.]{1,63}([.][^.]{1,63})*$".into()), ("maxLength", 254.into())]
        }
        _ => Vec::new(),
    };
    for (name, value) in held {
        fields.entry(name).or_insert(value);
    }
    for (name, within) in fields.iter_mut() {
        match (name.as_str(), within) {
            ("properties" | "$defs" | "definitions", Value::Object(schemas)) => {
                schemas.values_mut().for_each(settle);
            }
            ("items" | "contains" | "additionalProperties", schema) => settle(schema),
            ("prefixItems" | "anyOf" | "oneOf", Value::Array(schemas)) => schemas.iter_mut().for_each(settle),
            _ => {}
        }
    }
}

/// The schema as `llguidance` compiles it.
fn compiled_schema(schema: &Value, strict: bool, layout: Layout) -> Result<Value, ConstraintError> {
    let mut schema = match exact_json::plain(schema.clone()) {
        Value::Bool(true) => json!({}),
        schema @ Value::Object(_) => schema,
        _ => return Err(invalid_schema("it is no object".to_owned())),
    };
    check_size("JSON schema", schema.to_string().len(), MAX_SCHEMA_BYTES)?;
    settle(&mut schema);
    let options = JsonCompileOptions {
        whitespace_pattern: (layout == Layout::Free).then(|| WHITE_SPACE.to_owned()),
        whitespace_flexible: layout == Layout::Free,
        item_separator: if layout == Layout::Free { "," } else { ", " }.to_owned(),
        key_separator: if layout == Layout::Free { ":" } else { ": " }.to_owned(),
        coerce_one_of: !strict,
        lenient: !strict,
        ..JsonCompileOptions::default()
    };
    options.apply_to(&mut schema);
    Ok(schema)
}

fn invalid_schema(problem: String) -> ConstraintError {
    ConstraintError::Invalid { kind: "JSON schema", problem }
}

fn check_size(kind: &'static str, bytes: usize, most: usize) -> Result<(), ConstraintError> {
    if bytes <= most {
        return Ok(());
    }
    Err(ConstraintError::TooLarge { kind, problem: format!("it has {bytes} bytes, at most {most} may be") })
}

/// What the parser's words mean to whoever sent the constraint.
fn classified(kind: &'static str, problem: String) -> ConstraintError {
    let after = |mark: &str| problem.split_once(mark).map(|(_, rest)| rest.trim().to_owned());
    if let Some(keys) = after("Unimplemented keys: ") {
        let keywords = keys.trim_matches(['[', ']']).replace('"', "'");
        return ConstraintError::Keyword { keywords };
    }
    if let Some(format) = after("Unknown format: ") {
        return ConstraintError::Keyword { keywords: format!("'format': '{format}'") };
    }
    if problem.contains("oneOf constraints are not supported") {
        let keywords = "'oneOf' whose schemas may hold at once".to_owned();
        return ConstraintError::Keyword { keywords };
    }
    let limits =
        ["too big", "too large", "exhausted", "too many", "precomputation failed", "exceeded", "Too many"];
    if limits.iter().any(|limit| problem.contains(limit)) {
        return ConstraintError::TooLarge { kind, problem };
    }
    ConstraintError::Invalid { kind, problem }
}

/// A text in Lark, which reads it as JSON does.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// The whole text is matched in any case.
fn without_anchors(pattern: &str) -> &str {
    if pattern.contains('|') {
        return pattern;
    }
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    pattern.strip_suffix('$').filter(|rest| !rest.ends_with('\\')).unwrap_or(pattern)
}

fn nesting(grammar: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in grammar.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// An error of the parser in one line, without what it tells of its state.
fn in_one_line(text: &dyn fmt::Display) -> String {
    const MOST: usize = 300;
    let text = text.to_string();
    let said = text.split("\n<").next().unwrap_or_default();
    said.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MOST).collect()
}

#[cfg(test)]
mod tests;
