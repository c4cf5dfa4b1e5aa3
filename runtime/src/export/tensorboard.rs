//! The curves of training as TensorBoard's event files.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use openclaw_journal::{JournalReader, StepRow, TurnState};

use super::{
    Progress,
    event_file::{EventWriter, Scalar},
    output::{NewFolder, cannot_write},
    sessions::within,
    when::When,
};

/// For `--help`.
pub const HELP: &str = "\
Curves by step: train/ (loss, kl, entropy, clip_fraction, truncated_fraction, grad_norm, drift), batch/ (turns, tokens, \
rows, version, withheld, skipped), reward/ and staleness/ over the turns of the step's batch, as far as they are kept, dropped/ by reason \
since the step before, and time/. The file's name stays the same from export to export: with --force, TensorBoard shows the \
latest one.

Weights & Biases has no command that reads such files any more (its client 0.31). In Python, with mode=\"offline\" for later:
  curves = tensorboard.backend.event_processing.event_accumulator.EventAccumulator(\"curves/run\"); curves.Reload()
  for tag in curves.Tags()[\"scalars\"]:
    run.define_metric(tag, step_metric=\"step\")
    for point in curves.Scalars(tag): run.log({tag: point.value, \"step\": point.step})

Examples:
  openclaw-rl export tensorboard --out curves/run
  tensorboard --logdir curves";

/// Rows that are read at once.
const ROWS_AT_ONCE: usize = 512;

/// Which steps.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// From then on.
    pub since: Option<When>,
    /// To then.
    pub until: Option<When>,
}

/// What a step learnt from, as far as it is kept.
#[derive(Clone, Copy, Debug, Default)]
struct Taught {
    turns: u64,
    approved: u64,
    rejected: u64,
    neutral: u64,
    versions: u64,
    oldest_version: u64,
}

/// Writes the curves; says what was written.
pub fn export(
    reader: &JournalReader,
    span: Span,
    out: &Path,
    replace: bool,
    progress: &mut Progress,
) -> anyhow::Result<String> {
    let folder = NewFolder::create(out, replace)?;
    let steps = read_steps(reader, progress)?;
    let taught = read_lessons(reader, progress)?;
    let dropped = read_dropped(reader, &steps)?;
    let bases: HashMap<u64, u64> =
        reader.versions()?.into_iter().map(|version| (version.number, version.base)).collect();

    let begun = steps.first().map_or(UNIX_EPOCH, |step| step.when);
    let begun_secs = begun.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (name, file) = folder.file(&format!("events.out.tfevents.{begun_secs:010}"), ".openclaw-rl")?;
    let path = out.join(name);
    let mut writer = EventWriter::new(file, begun).with_context(|| cannot_write(&path))?;
    let mut written = 0;
    let mut before: Option<&StepRow> = None;
    let mut version = 0;
    for (index, step) in steps.iter().enumerate() {
        // A step that was withheld has no version, and started from the last one that was not.
        let base = step.version.and_then(|version| bases.get(&version).copied()).unwrap_or(version);
        if within(step.when, span.since, span.until) {
            let mut values = step_values(step, base);
            values.extend(taught.get(&step.step).map(|taught| taught.values(base)).into_iter().flatten());
            let dropped = dropped.range((index, String::new())..(index + 1, String::new()));
            values.extend(dropped.map(|((_, reason), count)| (format!("dropped/{reason}"), *count as f64)));
            let since = before.and_then(|before| step.when.duration_since(before.when).ok());
            values.extend(since.map(|since| ("time/since_last_step_secs".to_owned(), since.as_secs_f64())));
            let scalar = |(tag, value): (String, f64)| Scalar { tag, simple_value: Some(value as f32) };
            let values = values.into_iter().map(scalar).collect();
            writer.scalars(step.when, step.step, values).with_context(|| cannot_write(&path))?;
            written += 1;
        }
        version = step.version.unwrap_or(base);
        before = Some(step);
    }
    writer.finish().with_context(|| cannot_write(&path))?;
    folder.finish()?;
    let left_out =
        [(steps.len() - written, "not asked for"), (progress.counts.unreadable as usize, "unreadable")];
    let left_out: Vec<_> = left_out
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let told = format!("wrote {written} step{}", if written == 1 { "" } else { "s" });
    Ok(if left_out.is_empty() { told } else { format!("{told}; left out {}", left_out.join(", ")) })
}

fn step_values(step: &StepRow, base: u64) -> Vec<(String, f64)> {
    let report = &step.report;
    let values = [
        ("train/loss", report.loss),
        ("train/kl", report.kl),
        ("train/entropy", report.entropy),
        ("train/clip_fraction", report.clip_fraction),
        ("train/truncated_fraction", report.truncated_fraction),
        ("train/grad_norm", report.grad_norm),
        ("train/drift", report.policy_kl.abs()),
        ("batch/turns", step.turns as f64),
        ("batch/tokens", report.tokens as f64),
        ("batch/rows", report.rows as f64),
        ("batch/version", step.version.unwrap_or(base) as f64),
        ("batch/withheld", f64::from(step.withheld.is_some())),
        ("batch/skipped", f64::from(report.skipped)),
    ];
    values.map(|(tag, value)| (tag.to_owned(), value)).into()
}

impl Taught {
    fn values(self, base: u64) -> [(String, f64); 6] {
        let turns = self.turns as f64;
        let judged = (self.approved + self.rejected + self.neutral).max(1) as f64;
        [
            ("reward/mean", (self.approved as f64 - self.rejected as f64) / judged),
            ("reward/approved", self.approved as f64),
            ("reward/rejected", self.rejected as f64),
            ("reward/neutral", self.neutral as f64),
            ("staleness/mean", base as f64 - self.versions as f64 / turns),
            ("staleness/max", base as f64 - self.oldest_version as f64),
        ]
        .map(|(tag, value)| (tag.to_owned(), value))
    }
}

fn read_steps(reader: &JournalReader, progress: &mut Progress) -> anyhow::Result<Vec<StepRow>> {
    let mut steps = Vec::new();
    let mut after = 0;
    loop {
        let page = reader.steps(after, ROWS_AT_ONCE)?;
        let Some((last, _)) = page.last() else { return Ok(steps) };
        after = *last;
        for (_, step) in page {
            match step {
                Ok(step) => steps.push(step),
                Err(error) => {
                    progress.counts.unreadable += 1;
                    progress.tell(&error.line());
                }
            }
        }
    }
}

fn read_lessons(reader: &JournalReader, progress: &mut Progress) -> anyhow::Result<HashMap<u64, Taught>> {
    let mut taught: HashMap<u64, Taught> = HashMap::new();
    let mut after = 0;
    loop {
        let page = reader.lessons(after, ROWS_AT_ONCE)?;
        let Some((last, _)) = page.last() else { return Ok(taught) };
        after = *last;
        for (_, lesson) in page {
            let lesson = match lesson {
                Ok(lesson) => lesson,
                Err(error) => {
                    progress.counts.unreadable += 1;
                    progress.tell(&error.line());
                    continue;
                }
            };
            // A turn that an earlier process had taken waits for another step.
            if !matches!(lesson.state, TurnState::Leased | TurnState::Trained | TurnState::Quarantined) {
                continue;
            }
            let taught = taught.entry(lesson.step).or_default();
            let is_first = taught.turns == 0;
            taught.turns += 1;
            match lesson.reward {
                Some(1) => taught.approved += 1,
                Some(-1) => taught.rejected += 1,
                _ => taught.neutral += 1,
            }
            taught.versions += lesson.version;
            taught.oldest_version =
                if is_first { lesson.version } else { taught.oldest_version.min(lesson.version) };
        }
    }
}

/// How many turns were dropped before each step and after the one before, by their reasons.
fn read_dropped(reader: &JournalReader, steps: &[StepRow]) -> anyhow::Result<BTreeMap<(usize, String), u64>> {
    let times: Vec<SystemTime> = steps.iter().map(|step| step.when).collect();
    let mut dropped = BTreeMap::new();
    let mut after = 0;
    loop {
        let page = reader.dropped(after, ROWS_AT_ONCE)?;
        let Some((last, ..)) = page.last() else { return Ok(dropped) };
        after = *last;
        for (_, when, reason) in page {
            let step = times.partition_point(|time| *time < when);
            *dropped.entry((step, reason)).or_default() += 1;
        }
    }
}
