//! `pretrain documents`: what the embedded model is trained on, as conversations that `sft` reads, for a model with any chat
//! template. An adapter trained on the judge's and the hint writer's makes a judge of a small model that is none.
use super::{DocumentGenerator, DocumentKind, text::Document};
use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
};

/// Shown below `pretrain documents --help`.
pub const EXAMPLES: &str = "\
Examples:
  openclaw-rl pretrain documents --count 600 --output judging.jsonl
  openclaw-rl sft models/smol judging.jsonl --adapter --output models/smol-judge --learning-rate 3e-4";

/// The arguments of `pretrain documents`.
#[derive(Clone, Debug, Args)]
pub struct DocumentsArgs {
    /// How many.
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// What they teach; can be repeated.
    #[arg(long = "kind", value_name = "KIND", default_values = ["judge", "hint_writer"])]
    kinds: Vec<DocumentKind>,
    /// Seeds the text.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The file to write, one JSON object a line; standard output, unless given.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes them.
pub fn run(args: &DocumentsArgs) -> anyhow::Result<()> {
    let mut out: Box<dyn Write> = match &args.output {
        Some(path) => {
            Box::new(File::create_new(path).with_context(|| format!("cannot write {}", path.display()))?)
        }
        None => Box::new(io::stdout().lock()),
    };
    write(args, BufWriter::new(&mut out)).context("cannot write the documents")
}

fn write(args: &DocumentsArgs, mut out: impl Write) -> io::Result<()> {
    let other = DocumentKind::value_variants().iter().filter(|kind| !args.kinds.contains(kind));
    let none = other.map(|kind| (*kind, 0.0)).collect();
    for document in DocumentGenerator::new(args.seed).with_more(&none).take(args.count) {
        writeln!(out, "{}", line(document))?;
    }
    out.flush()
}

/// As `sft` reads it.
fn line(document: Document) -> Value {
    let Document { mut messages, tools, trained, .. } = document;
    for (index, message) in messages.iter_mut().enumerate() {
        if message["role"] == "assistant" && !trained.contains(&index) {
            message["weight"] = json!(0);
        }
    }
    json!({ "messages": messages, "tools": tools })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(kinds: &[DocumentKind]) -> Vec<Value> {
        let args = DocumentsArgs { count: 200, kinds: kinds.to_vec(), seed: 5, output: None };
        let mut out = Vec::new();
        write(&args, &mut out).expect("it is written");
        let lines = String::from_utf8(out).expect("text");
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn documents_are_of_the_kinds_that_are_asked_for_and_what_is_no_example_weighs_nothing() {
        let verdicts = written(&[DocumentKind::Judge]);
        assert_eq!(verdicts.len(), 200);
        let last = |line: &Value| line["messages"].as_array().and_then(|all| all.last().cloned());
        let is_verdict = |line: &Value| {
            last(line)
                .is_some_and(|last| last["content"].as_str().is_some_and(|said| said.contains("\\boxed{")))
        };
        assert!(verdicts.iter().all(is_verdict));
        let talk = written(&[DocumentKind::Chat]);
        assert!(talk.iter().all(|line| !is_verdict(line)));
        let redone = written(&[DocumentKind::Redo]);
        let weighed = |line: &Value| {
            let messages = line["messages"].as_array().cloned().unwrap_or_default();
            messages.iter().filter(|message| message["role"] == "assistant" && message["weight"] == 0).count()
        };
        assert!(redone.iter().any(|line| weighed(line) > 0));
    }
}
