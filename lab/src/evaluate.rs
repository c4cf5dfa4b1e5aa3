//! `evaluate`: what the embedded model can do, class by class, in wordings that it never read.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use openclaw_actors::{
    engine::{Place, PolicyWeights},
    judge::score::{Asked, Scores},
    loaded_model::LoadedModel,
};
use openclaw_environments::persona::Split;
use openclaw_model::{GenerateEvent, GenerateRequest, ParserConfig, ReplySplit, SamplingParams, SequenceId};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    judging::{self, Judging},
    pretrain::evaluation::{Check, EvaluationCase, evaluation_cases},
};

/// Longest answer.
const MOST_TOKENS: usize = 256;
/// Keys and values of all cases that run at once: so many tokens, and as many as this memory holds of a large model.
const KV_TOKENS: usize = 1 << 17;
const KV_BYTES: usize = 1 << 30;

/// Shown below `evaluate --help`.
pub const EXAMPLES: &str = "\
Examples:
  openclaw-rl evaluate configs/models/nano
  openclaw-rl evaluate configs/models/nano --cases 20 --show-wrong
  openclaw-rl evaluate configs/models/nano --cases 200 --group reaction --group wish
  openclaw-rl evaluate models/qwen3 --adapter models/judge --group reaction --score-margin 1";

/// The arguments of `evaluate`.
#[derive(Clone, Debug, Args)]
pub struct EvaluateArgs {
    /// The checkpoint folder: of a model that `pretrain` made, or of any that judges.
    #[arg(value_name = "MODEL_DIR")]
    model: PathBuf,
    /// The folder of an adapter on it, as `sft --adapter` writes one.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Cases of every class.
    #[arg(long, default_value_t = 100)]
    cases: usize,
    /// Seeds the cases and the draws.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// CPU threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Only this group of cases; can be repeated.
    #[arg(long = "group", value_name = "NAME")]
    groups: Vec<String>,
    /// Verdicts by their probabilities, as `votes = "score"` of `[actors.judge]` has them, with this margin in nats.
    #[arg(long, value_name = "NATS")]
    score_margin: Option<f32>,
    /// Also prints each answer that was not good, to stderr.
    #[arg(long)]
    show_wrong: bool,
}

/// Evaluates and prints the table.
pub fn run(args: &EvaluateArgs) -> anyhow::Result<ExitCode> {
    let mut model = LoadedModel::open_as(&args.model, Place::Cpu, args.threads, |stored| stored.dtype, None)?;
    if let Some(folder) = &args.adapter {
        model.weights = model.with_adapter(folder)?;
    }
    let mut cases = evaluation_cases(args.seed, args.cases);
    if let Some(unknown) = args.groups.iter().find(|group| cases.iter().all(|case| case.group != **group)) {
        bail!("--group {unknown}: there is no such group of cases");
    }
    cases.retain(|case| args.groups.is_empty() || args.groups.iter().any(|group| group == case.group));
    let wrong = |case: &EvaluationCase, answer: &str| {
        if args.show_wrong {
            let last = case.messages.last().and_then(|message| message["content"].as_str());
            eprintln!("--- {} {}\n{}\n>>> {answer}", case.group, case.class, last.unwrap_or_default());
        }
    };
    let scores = match args.score_margin {
        None => evaluate(&model, args.seed, &cases, wrong)?,
        Some(margin) => {
            cases.retain(|case| matches!(case.check, Check::Verdict(_)));
            scores(&cases, &scored_verdicts(&model, &cases, margin)?, wrong)
        }
    };
    write_table(&scores, io::stdout())?;
    if let Some(judging) = Judging::of(&scores, args.score_margin) {
        let folder = args.adapter.as_ref().unwrap_or(&args.model);
        match judging.write(folder) {
            Ok(()) => eprintln!("kept in {}: `check` reads it", folder.join(judging::FILE).display()),
            Err(error) => eprintln!("not kept in {}: {error}", folder.display()),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How many answers of one class were good.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// What was tested.
    pub group: &'static str,
    /// The part of it.
    pub class: String,
    /// Whether its wordings were held out of pretraining.
    pub held_out: bool,
    /// Whether a long system prompt and time stamps stood around it.
    pub with_system: bool,
    /// Good answers.
    pub good: usize,
    /// Verdicts that said the opposite.
    pub flipped: usize,
    /// Answers.
    pub count: usize,
}

impl Score {
    /// Share of good answers.
    pub fn share(&self) -> f64 {
        self.good as f64 / self.count.max(1) as f64
    }
}

/// An answer that was drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// All of it, thinking included.
    pub text: String,
    /// How that divides.
    pub split: ReplySplit,
    /// Its tokens, the one that ended it included.
    pub ids: Vec<u32>,
}

impl Answer {
    /// What its reader is told.
    pub fn words(&self) -> String {
        // Newlines behind the thinking belong to its mark.
        self.split.words(&self.text).trim_start_matches('\n').to_owned()
    }
}

/// What an answer is drawn to.
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'a> {
    /// Messages as the chat template takes them.
    pub messages: &'a [Value],
    /// Tool definitions as it takes them.
    pub tools: &'a [Value],
    /// At which it is drawn; 0 is greedy.
    pub temperature: f32,
    /// Seeds the draws.
    pub seed: u64,
}

/// Draws an answer to each prompt, all of them in one batch.
pub fn answers<'a>(
    model: &LoadedModel,
    weights: PolicyWeights,
    prompts: impl Iterator<Item = Prompt<'a>>,
) -> anyhow::Result<Vec<Answer>> {
    let token = model.transformer.config.kv_values() * size_of::<f32>();
    let mut batcher = model.batcher(weights, KV_TOKENS.min(KV_BYTES / token))?;
    let (mut requests, mut parsers) = (Vec::new(), Vec::new());
    for Prompt { messages, tools, temperature, seed } in prompts {
        let prompt_ids = model.text.prompt_ids(messages, tools, &Map::new())?;
        parsers.push(ParserConfig::new(tools, model.text.opens_a_thought(&prompt_ids)));
        requests.push(GenerateRequest {
            drawn_ids: Vec::new(),
            prompt_ids,
            sampling: SamplingParams { temperature, seed: Some(seed), ..SamplingParams::default() },
            max_new_tokens: MOST_TOKENS,
            stop: Vec::new(),
            top_logprobs: 0,
            constraint: None,
        });
    }
    let mut answers: Vec<Answer> = vec![Answer::default(); requests.len()];
    let mut waiting = requests.into_iter().enumerate();
    let mut places: BTreeMap<SequenceId, usize> = BTreeMap::new();
    loop {
        while places.len() < 256 {
            let Some((place, request)) = waiting.next() else { break };
            places.insert(batcher.submit(request)?, place);
        }
        if places.is_empty() {
            break;
        }
        for (id, event) in batcher.step()? {
            let answer = &mut answers[places[&id]];
            match event {
                GenerateEvent::Token { token, text, .. } => {
                    answer.text.push_str(&text);
                    answer.ids.push(token.id);
                }
                GenerateEvent::Finished { text, .. } => {
                    answer.text.push_str(&text);
                    places.remove(&id);
                }
                GenerateEvent::Failed { error, .. } => bail!("an answer failed: {error}"),
            }
        }
    }
    for (answer, parser) in answers.iter_mut().zip(parsers) {
        answer.split = ReplySplit::of(&answer.text, parser);
    }
    Ok(answers)
}

/// Asks these cases; `wrong` is shown each answer that is not good.
pub fn evaluate(
    model: &LoadedModel,
    seed: u64,
    cases: &[EvaluationCase],
    wrong: impl FnMut(&EvaluationCase, &str),
) -> anyhow::Result<Vec<Score>> {
    let prompts = cases.iter().zip(seed..).map(|(case, seed)| Prompt {
        messages: &case.messages,
        tools: &case.tools,
        temperature: case.temperature,
        seed,
    });
    let answers = answers(model, model.weights.clone(), prompts)?;
    Ok(scores(cases, &answers, wrong))
}

/// Verdicts as a judge gives them that draws no sample.
fn scored_verdicts(
    model: &LoadedModel,
    cases: &[EvaluationCase],
    margin: f32,
) -> anyhow::Result<Vec<Answer>> {
    let verdict = |case: &EvaluationCase| -> anyhow::Result<Answer> {
        let prompt_ids = model.text.prompt_ids(&case.messages, &[], &Map::new())?;
        let asked = Asked::of(&prompt_ids, |text| model.text.tokenizer.encode(text))?;
        let scored = asked.requests.iter().map(|request| model.transformer.score(&model.weights, request));
        let scored: Vec<_> = scored.collect::<Result<_, _>>()?;
        let scores = Scores::read(&scored).context("the three verdicts are not scored")?;
        let text = format!("\\boxed{{{}}}", scores.verdict(margin));
        let split = ReplySplit::of(&text, ParserConfig::new(&[], false));
        Ok(Answer { text, split, ids: Vec::new() })
    };
    cases.iter().map(verdict).collect()
}

fn scores(
    cases: &[EvaluationCase],
    answers: &[Answer],
    mut wrong: impl FnMut(&EvaluationCase, &str),
) -> Vec<Score> {
    let mut scores: Vec<Score> = Vec::new();
    for (case, answer) in cases.iter().zip(answers) {
        let held_out = case.split == Split::HeldOut;
        let place = scores.iter().position(|score| {
            (score.group, &score.class, score.held_out, score.with_system)
                == (case.group, &case.class, held_out, case.with_system)
        });
        let place = place.unwrap_or_else(|| {
            let (group, class) = (case.group, case.class.clone());
            scores.push(Score {
                group,
                class,
                held_out,
                with_system: case.with_system,
                good: 0,
                flipped: 0,
                count: 0,
            });
            scores.len() - 1
        });
        scores[place].count += 1;
        scores[place].flipped += usize::from(case.check.is_flipped(&answer.words()));
        let said = match case.check {
            // Calls are no words.
            Check::Calls(..) => answer.split.answer(&answer.text).to_owned(),
            _ => answer.words(),
        };
        if case.check.judge(&said, answer.ids.len()) {
            scores[place].good += 1;
        } else {
            wrong(case, &answer.text);
        }
    }
    scores
}

/// One line per class: its wordings, with and without a system prompt.
pub fn write_table(scores: &[Score], mut out: impl Write) -> std::io::Result<()> {
    writeln!(out, "| group | class | wordings | plain | system prompt and stamps |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    for score in scores.iter().filter(|score| !score.with_system) {
        let twin = scores.iter().find(|twin| {
            twin.with_system
                && (twin.group, &twin.class, twin.held_out) == (score.group, &score.class, score.held_out)
        });
        let twin = twin.map_or("-".to_owned(), |twin| format!("{:.2}", twin.share()));
        let wordings = if score.held_out { "held out" } else { "read" };
        let (group, class, share) = (score.group, &score.class, score.share());
        writeln!(out, "| {group} | {class} | {wordings} | {share:.2} | {twin} |")?;
    }
    let all = |name: &str, of: &dyn Fn(&Score) -> bool, good: fn(&Score) -> usize, out: &mut dyn Write| {
        let of: Vec<&Score> = scores.iter().filter(|score| of(score)).collect();
        let count: usize = of.iter().map(|score| score.count).sum();
        let good: usize = of.iter().map(|score| good(score)).sum();
        match count {
            0 => Ok(()),
            _ => writeln!(out, "| {name} | held out | {:.3} | - |", good as f64 / count as f64),
        }
    };
    for class in ["-1", "0", "+1"] {
        let of = |score: &Score| score.group == "reaction" && score.class.starts_with(class);
        all(&format!("reaction | {class} in all worlds"), &of, |score| score.good, &mut out)?;
    }
    all(
        "reaction | the wrong way round",
        &|score| score.group == "reaction",
        |score| score.flipped,
        &mut out,
    )?;
    for (name, group) in
        [("of all rules", "wish"), ("all that are trained on", "rule"), ("all", "unseen_rule")]
    {
        let of = |score: &Score| score.group == group && !score.with_system;
        all(&format!("{group} | {name}"), &of, |score| score.good, &mut out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_says_is_scored_and_not_what_was_thought() {
        let of = |group: &str, class: &str| {
            let cases = evaluation_cases(1, 1).into_iter();
            cases.filter(|case| case.group == group && case.class == class).take(1).collect::<Vec<_>>()
        };
        let text = "<think>\n**Step 1:** add.\n</think>\n\n2 + 2 = 4.".to_owned();
        let split = ReplySplit::of(&text, ParserConfig::new(&[], false));
        let answer = Answer { text, split, ids: vec![0; 9] };
        assert_eq!(answer.words(), "2 + 2 = 4.");
        let found = scores(&of("redo", "student"), &[answer], |_, text| panic!("{text}"));
        assert_eq!((found[0].good, found[0].count), (1, 1));
        let called = of("tool", "calls");
        let Check::Calls(name, arguments) = &called[0].check else { panic!("a call is asked for") };
        let text = openclaw_actors::conversation::call_text(name, arguments);
        let split = ReplySplit::of(&text, ParserConfig::new(&called[0].tools, false));
        let found = scores(&called, &[Answer { text, split, ids: vec![0; 9] }], |_, text| panic!("{text}"));
        assert_eq!((found[0].good, found[0].count), (1, 1));
    }
}
