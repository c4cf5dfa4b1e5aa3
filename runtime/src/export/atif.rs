//! Trajectories in the Agent Trajectory Interchange Format: a file per conversation, written step by step.

mod steps;

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::Context;
use openclaw_journal::{Episode, EpisodeState, EpisodeStory, JournalReader, SessionId, Story, TurnId};
use openclaw_model::exact_json;
use serde::Serialize;
use serde_json::{Value, json};

use self::steps::{Step, add_result, heard, replied, use_ids};
use super::{
    Progress,
    output::{NewFolder, cannot_write, file_stem},
    sessions::{Conversation, Picks, Planned, each_session, read},
};
use crate::run_dir;

/// What readers of 1.6 to 1.8 all take; 1.8 adds audio alone.
const SCHEMA_VERSION: &str = "ATIF-v1.7";

/// Writes every conversation that is meant.
pub fn export(
    reader: &JournalReader,
    run_dir: &Path,
    picks: &Picks,
    out: &Path,
    replace: bool,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let folder = NewFolder::create(out, replace)?;
    let model = run_dir::base_model(run_dir);
    each_session(reader, picks, progress, |session, conversations, progress| {
        let episodes = reader.episodes_in(session)?;
        for (index, conversation) in conversations.iter().enumerate() {
            let is_next =
                |next: &&Conversation| conversation.goes_on && next.number == conversation.number + 1;
            let continued = conversations.get(index + 1).filter(is_next);
            let (name, file) = folder.file(&stem(session, conversation), ".json")?;
            let write = || -> anyhow::Result<bool> {
                let mut document = Document::begin(file, session, conversation)?;
                document.totals.extra.episodes = episodes_of(&episodes, conversation);
                for planned in &conversation.turns {
                    match read(reader, planned, progress)? {
                        Some(story) => {
                            document.turn(&story, planned)?;
                            progress.counts.turns += 1;
                        }
                        None => document.miss(planned),
                    }
                }
                let continued = continued.map(|next| format!("{}.json", stem(session, next)));
                Ok(document.finish(model.as_deref(), continued)?)
            };
            if !write().with_context(|| cannot_write(&out.join(&name)))? {
                folder.remove(&name)?;
            }
        }
        Ok(())
    })?;
    folder.finish()
}

/// What the file of a conversation is called, and the trajectory in it. An id has no `~` in its name.
fn stem(session: &SessionId, conversation: &Conversation) -> String {
    match conversation.number {
        1 => file_stem(&session.0),
        number => format!("{}~{number}", file_stem(&session.0)),
    }
}

/// A trajectory that is being written.
struct Document<W> {
    out: W,
    steps: u64,
    /// Waits for the results of its tool calls.
    pending: Option<Step>,
    /// So many messages of the next request were written, where not all that its place says were.
    told: Option<usize>,
    tools: Vec<Value>,
    totals: FinalMetrics,
}

#[derive(Serialize)]
struct Tail<'a> {
    agent: Agent<'a>,
    final_metrics: FinalMetrics,
    #[serde(skip_serializing_if = "Option::is_none")]
    continued_trajectory_ref: Option<String>,
}

#[derive(Serialize)]
struct Agent<'a> {
    name: &'static str,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "exact_json::all_as_written")]
    tool_definitions: Vec<Value>,
}

#[derive(Default, Serialize)]
struct FinalMetrics {
    total_prompt_tokens: u64,
    total_completion_tokens: u64,
    total_steps: u64,
    extra: Rewards,
}

#[derive(Default, Serialize)]
struct Rewards {
    total_reward: i64,
    judged_replies: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    episodes: Vec<Value>,
}

/// Episodes that turns of a conversation are steps of: what they were about, and how they came out.
fn episodes_of(episodes: &[EpisodeStory], conversation: &Conversation) -> Vec<Value> {
    let is_step = |turn: &TurnId| conversation.turns.iter().any(|planned| planned.turn == *turn);
    let of = episodes.iter().filter(|(_, steps)| {
        // Where no method has a step of it, it is told in each conversation of its session.
        steps.is_empty() || steps.iter().any(|(_, step)| is_step(&step.turn))
    });
    of.map(|(row, _)| episode(&row.episode, &row.state)).collect()
}

fn episode(episode: &Episode, state: &EpisodeState) -> Value {
    let Episode { id, environment, task, seed, group, .. } = episode;
    let mut told = json!({"id": id, "environment": environment, "task": task, "seed": seed, "group": group});
    match state {
        EpisodeState::Open => told["state"] = "open".into(),
        EpisodeState::Abandoned(reason) => {
            told["state"] = "abandoned".into();
            told["reason"] = reason.as_str().into();
        }
        EpisodeState::Ended(outcome) => {
            told["state"] = "ended".into();
            told["reward"] = outcome.reward.into();
            told["success"] = outcome.success.into();
            told["numbers"] = json!(outcome.numbers);
        }
    }
    told
}

impl<W: Write> Document<W> {
    fn begin(mut out: W, session: &SessionId, conversation: &Conversation) -> io::Result<Self> {
        let [schema, session_id, id] = [SCHEMA_VERSION, &session.0, &stem(session, conversation)]
            .map(|text| Value::from(text).to_string());
        write!(
            out,
            "{{\"schema_version\":{schema},\"session_id\":{session_id},\"trajectory_id\":{id},\"steps\":["
        )?;
        Ok(Self {
            out,
            steps: 0,
            pending: None,
            told: None,
            tools: Vec::new(),
            totals: FinalMetrics::default(),
        })
    }

    fn turn(&mut self, story: &Story, planned: &Planned) -> io::Result<()> {
        let turn = &story.row.turn;
        let placed = planned.placed;
        let told = self.told.take().unwrap_or(placed.told);
        // Its client may have given the calls of the reply before other ids, and the results are told by those.
        let before = placed.told.checked_sub(1).and_then(|place| turn.messages.get(place));
        if let (Some(before), Some(step)) = (before, &mut self.pending) {
            use_ids(step, before);
        }
        for (place, message) in turn.messages.iter().enumerate().skip(told) {
            if !add_result(self.pending.as_mut(), message) {
                self.push(heard(message, place < placed.copied))?;
            }
        }
        let reply = replied(story, planned);
        self.totals.total_prompt_tokens += turn.completion.prompt_ids.len() as u64;
        self.totals.total_completion_tokens += turn.completion.response_ids.len() as u64;
        if let Some(reward) = story.row.verdict.as_ref().and_then(|verdict| verdict.reward) {
            self.totals.extra.total_reward += i64::from(reward);
            self.totals.extra.judged_replies += 1;
        }
        for tool in turn.tools.iter().filter(|tool| tool.is_object()) {
            if !self.tools.contains(tool) {
                self.tools.push(tool.clone());
            }
        }
        self.push(reply)
    }

    /// A turn cannot be read after all: the next one has it in its history.
    fn miss(&mut self, planned: &Planned) {
        self.told.get_or_insert(planned.placed.told);
    }

    fn push(&mut self, mut step: Step) -> io::Result<()> {
        self.steps += 1;
        step.step_id = self.steps;
        self.write_pending()?;
        self.pending = Some(step);
        Ok(())
    }

    fn write_pending(&mut self) -> io::Result<()> {
        let Some(step) = self.pending.take() else { return Ok(()) };
        self.out.write_all(if step.step_id == 1 { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut self.out, &step)?;
        Ok(())
    }

    /// Whether it has any step.
    fn finish(mut self, model: Option<&str>, continued: Option<String>) -> io::Result<bool> {
        self.write_pending()?;
        let agent = Agent {
            name: "openclaw-rl",
            version: env!("CARGO_PKG_VERSION"),
            model_name: model,
            tool_definitions: self.tools,
        };
        let final_metrics = FinalMetrics { total_steps: self.steps, ..self.totals };
        let tail =
            serde_json::to_string(&Tail { agent, final_metrics, continued_trajectory_ref: continued })?;
        // The rest of the object that `begin` opened.
        writeln!(self.out, "\n],{}", &tail[1..])?;
        self.out.flush()?;
        Ok(self.steps > 0)
    }
}
