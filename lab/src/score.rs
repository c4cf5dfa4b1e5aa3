//! `score`: log-probs of given tokens or text, one JSON object per line in and out. The quickest way to check a
//! checkpoint against another engine.

use std::{
    cell::OnceCell,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use openclaw_kernels::Cpu;
use openclaw_model::{ScoreRequest, Tokenizer, Transformer, Weights, checkpoint};
use serde::{Deserialize, Serialize};

/// Shown below `score --help`.
pub const EXAMPLES: &str = "\
Each line of the input is {\"ids\": [1, 2, 3]} or {\"text\": \"..\"}; each line of the output is \
{\"ids\": [..], \"logprobs\": [null, ..]}. Text is tokenized as it stands, special tokens included.

Examples:
  echo '{\"ids\": [5, 6, 7]}' | openclaw-rl score configs/models/nano
  openclaw-rl score configs/models/nano requests.jsonl --top-k 5";

/// The arguments of `score`.
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// A Hugging Face checkpoint folder.
    #[arg(value_name = "MODEL_DIR")]
    model_dir: PathBuf,
    /// The requests, one JSON object per line; stdin, unless given.
    #[arg(value_name = "FILE")]
    input: Option<PathBuf>,
    /// Adds the K most likely ids and their log-probs to each position.
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Divides the logits.
    #[arg(long, default_value_t = 1.0)]
    temperature: f32,
    /// Threads; all cores, unless given.
    #[arg(long)]
    threads: Option<usize>,
}

/// Scores the requests on the CPU and writes to stdout.
pub fn run(args: ScoreArgs) -> anyhow::Result<ExitCode> {
    ensure!(args.temperature > 0.0, "--temperature: {} is not above 0", args.temperature);
    let (config, flat) = checkpoint::load(&args.model_dir)?;
    let threads = args.threads.or_else(|| std::thread::available_parallelism().map(usize::from).ok());
    let transformer = Transformer::new(config.clone(), Cpu::new("score", threads.unwrap_or(1))?)?;
    let weights = Weights::from_host(&transformer, &flat)?;
    // Loaded when text comes: ids alone need no tokenizer.
    let tokenizer = OnceCell::new();
    let encode = |text: &str| {
        if tokenizer.get().is_none() {
            // Only this closure sets it, and not while it is set.
            let _ = tokenizer.set(Tokenizer::from_dir(&args.model_dir)?);
        }
        Ok(tokenizer.get().expect("it was set above").encode(text)?)
    };
    let score = |ids: &[u32]| {
        let vocab = config.vocab_size;
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
            bail!("id {id} is not below the vocabulary's {vocab}");
        }
        ensure!(
            ids.len() <= config.max_positions,
            "{} tokens are more than the context's {}",
            ids.len(),
            config.max_positions
        );
        let request = ScoreRequest {
            ids: ids.to_vec(),
            start: 1,
            temperature: args.temperature,
            top_k: args.top_k.min(vocab),
            ..ScoreRequest::default()
        };
        let scored = transformer.score(&weights, &request)?;
        Ok(TokenScores { logprobs: scored.logprobs, top: scored.top })
    };
    let output = io::stdout().lock();
    match &args.input {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            let answered = answer_lines(BufReader::new(file), output, args.top_k, encode, score);
            answered.with_context(|| path.display().to_string())?;
        }
        None => answer_lines(io::stdin().lock(), output, args.top_k, encode, score)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What a model says of a sequence: one entry per token after the first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenScores {
    /// log p(token | the ones before it).
    pub logprobs: Vec<f32>,
    /// The most likely tokens in its place, best first; empty when none were asked for.
    pub top: Vec<Vec<(u32, f32)>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    ids: Option<Vec<u32>>,
    text: Option<String>,
}

/// The first token has nothing before it: its entries are null.
#[derive(Serialize)]
struct Answer {
    ids: Vec<u32>,
    logprobs: Vec<Option<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_ids: Option<Vec<Option<Vec<u32>>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<Vec<Option<Vec<f32>>>>,
}

/// Answers every line of `input`; an error names the line. `score` is asked for sequences of two tokens or more.
pub fn answer_lines(
    input: impl BufRead,
    mut output: impl Write,
    top_k: usize,
    encode: impl Fn(&str) -> anyhow::Result<Vec<u32>>,
    mut score: impl FnMut(&[u32]) -> anyhow::Result<TokenScores>,
) -> anyhow::Result<()> {
    for (number, line) in (1..).zip(input.lines()) {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let answer = answer(&line, top_k, &encode, &mut score).with_context(|| format!("line {number}"))?;
        serde_json::to_writer(&mut output, &answer)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

fn answer(
    line: &str,
    top_k: usize,
    encode: impl Fn(&str) -> anyhow::Result<Vec<u32>>,
    mut score: impl FnMut(&[u32]) -> anyhow::Result<TokenScores>,
) -> anyhow::Result<Answer> {
    let request: Request = serde_json::from_str(line).context("not a request")?;
    let ids = match (request.ids, request.text) {
        (Some(ids), None) => ids,
        (None, Some(text)) => encode(&text)?,
        _ => bail!("expected either ids or text"),
    };
    let scores = match ids.len() {
        0 => bail!("there are no tokens"),
        1 => TokenScores::default(),
        _ => score(&ids)?,
    };
    let logprobs = std::iter::once(None).chain(scores.logprobs.into_iter().map(Some)).collect();
    let column = |values: Vec<Vec<(u32, f32)>>| std::iter::once(None).chain(values.into_iter().map(Some));
    let (mut top_ids, mut top_logprobs) = (None, None);
    if top_k > 0 {
        let ids =
            column(scores.top.clone()).map(|top| top.map(|top| top.iter().map(|(id, _)| *id).collect()));
        let values =
            column(scores.top).map(|top| top.map(|top| top.iter().map(|(_, value)| *value).collect()));
        (top_ids, top_logprobs) = (Some(ids.collect()), Some(values.collect()));
    }
    Ok(Answer { ids, logprobs, top_ids, top_logprobs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(input: &str, top_k: usize) -> anyhow::Result<String> {
        let mut output = Vec::new();
        let encode = |text: &str| Ok(text.bytes().map(u32::from).collect());
        let score = |ids: &[u32]| {
            let logprobs: Vec<f32> = ids[1..].iter().map(|id| -0.5 * *id as f32).collect();
            let top = logprobs.iter().map(|_| vec![(7, -0.25), (9, -1.5)]).collect();
            Ok(TokenScores { logprobs, top })
        };
        answer_lines(input.as_bytes(), &mut output, top_k, encode, score)?;
        Ok(String::from_utf8(output)?)
    }

    #[test]
    fn every_line_is_answered_and_the_first_token_has_no_logprob() {
        let lines = answered("{\"ids\": [5, 1, 2]}\n\n{\"text\": \"a\"}\n", 0).unwrap();
        assert_eq!(
            lines,
            "{\"ids\":[5,1,2],\"logprobs\":[null,-0.5,-1.0]}\n{\"ids\":[97],\"logprobs\":[null]}\n"
        );
    }

    #[test]
    fn the_most_likely_tokens_are_added_when_asked_for() {
        let line = answered("{\"ids\": [5, 1]}", 2).unwrap();
        assert_eq!(
            line,
            "{\"ids\":[5,1],\"logprobs\":[null,-0.5],\"top_ids\":[null,[7,9]],\"top_logprobs\":[null,[-0.25,-1.5]]}\n"
        );
    }

    #[test]
    fn a_line_that_cannot_be_scored_is_named() {
        for wrong in ["{\"ids\": []}", "{}", "{\"ids\": [1], \"text\": \"a\"}", "[1]", "{\"ids\": [-1]}"] {
            let error = answered(&format!("{{\"ids\": [1, 2]}}\n{wrong}"), 0).unwrap_err();
            assert!(format!("{error:#}").starts_with("line 2: "), "{error:#}");
        }
    }
}
