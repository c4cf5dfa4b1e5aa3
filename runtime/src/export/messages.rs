//! Conversations as OpenAI's messages, one JSON object per line.

use std::{
    io::{self, BufWriter, Stdout, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use openclaw_actors::conversation;
use openclaw_journal::{JournalReader, SessionId, Story, TurnId, TurnState};
use openclaw_model::exact_json;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Progress, calls,
    output::{NewFile, cannot_write},
    sessions::{Conversation, Picks, Planned, each_session, read},
};

/// For `--help`.
pub const HELP: &str = "\
Each line is {\"messages\": [..], \"tools\": [..]}: OpenAI's chat format for fine-tuning, which `openclaw-rl sft` and most \
trainers read. Replies that are context alone have \"weight\": 0: those that the filters do not ask for, those that came \
with X-No-Train, and those that were not drawn in this run. A conversation ends with its last reply that has a weight; \
one without any is left out. A trainer that does not know `weight` would learn from all replies of a line.

With --each turn a line is a request as it was answered, and its reply: what a model with thinking needs, whose \
template leaves the thinking out of earlier replies. What the policy thought is in `reasoning_content`.

Examples:
  openclaw-rl export messages --out chats.jsonl
  openclaw-rl export messages --out good.jsonl --min-reward 1 --since 7d
  openclaw-rl export messages --out - --each turn --fate trained --metadata | jq .metadata
  openclaw-rl sft configs/models/nano good.jsonl --output models/mine";

/// How conversations are written.
#[derive(Clone, Debug, Args)]
pub struct MessagesArgs {
    /// The file to write; - for standard output.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// What a line is.
    #[arg(long, value_enum, default_value_t)]
    pub each: Each,
    /// Adds `metadata` to each line: session, turns, policy versions, rewards, fates. OpenAI takes no such key, `sft` does.
    #[arg(long)]
    pub metadata: bool,
}

/// What a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Each {
    /// A conversation, with all of its replies.
    #[default]
    Conversation,
    /// A request and its reply.
    Turn,
}

#[derive(Serialize)]
struct Line<'a> {
    messages: &'a [Value],
    #[serde(skip_serializing_if = "<[Value]>::is_empty", serialize_with = "exact_json::all_as_written")]
    tools: &'a [Value],
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata<'a>>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    session_id: &'a SessionId,
    /// Of the session, from 1.
    conversation: usize,
    replies: &'a [Reply],
}

/// What is known of a reply that was drawn in this run.
#[derive(Serialize)]
struct Reply {
    /// Its place among the messages.
    message: usize,
    turn_id: TurnId,
    policy_version: u64,
    reward: Option<i8>,
    fate: TurnState,
}

/// A conversation as far as it was put together.
#[derive(Default)]
struct Talk {
    messages: Vec<Value>,
    replies: Vec<Reply>,
    /// Calls of the last reply that no tool has answered.
    open_calls: Vec<String>,
}

/// Writes every conversation that is meant.
pub fn export(
    reader: &JournalReader,
    args: &MessagesArgs,
    picks: &Picks,
    replace: bool,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let mut sink = Sink::open(&args.out, replace)?;
    each_session(reader, picks, progress, |session, conversations, progress| {
        for conversation in conversations {
            let write = |talk: &Talk, tools: &[Value]| {
                let metadata = Metadata {
                    session_id: session,
                    conversation: conversation.number,
                    replies: &talk.replies,
                };
                let metadata = Some(metadata).filter(|_| args.metadata);
                let line = serde_json::to_string(&Line { messages: &talk.messages, tools, metadata })?;
                writeln!(sink, "{}", escaped(line)).with_context(|| cannot_write(&args.out))
            };
            match args.each {
                Each::Conversation => whole(reader, conversation, progress, write)?,
                Each::Turn => turn_by_turn(reader, conversation, progress, write)?,
            }
        }
        Ok(())
    })?;
    sink.finish()
}

fn whole(
    reader: &JournalReader,
    conversation: &Conversation,
    progress: &mut Progress,
    write: impl FnOnce(&Talk, &[Value]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let learnt = conversation.turns.iter().rposition(Planned::is_learnt);
    let (wanted, rest) = conversation.turns.split_at(learnt.map_or(0, |last| last + 1));
    rest.iter().for_each(|turn| progress.counts.leave_out(turn));
    let mut talk = Talk::default();
    let mut tools = None;
    let mut told = None;
    let mut has_weight = false;
    for planned in wanted {
        let Some(story) = read(reader, planned, progress)? else {
            // The next turn has it in its history.
            told.get_or_insert(planned.placed.told);
            continue;
        };
        let turn = &story.row.turn;
        let before = planned.placed.told.checked_sub(1).and_then(|place| turn.messages.get(place));
        talk.use_ids(before.filter(|_| told.is_none()));
        for message in turn.messages.iter().skip(told.take().unwrap_or(planned.placed.told)) {
            talk.hear(message);
        }
        talk.reply(&story, planned.is_learnt());
        has_weight |= planned.is_learnt();
        progress.counts.turns += 1;
        tools = Some(turn.tools.clone());
    }
    match tools.filter(|_| has_weight) {
        Some(tools) => write(&talk, &tools),
        None => Ok(()),
    }
}

fn turn_by_turn(
    reader: &JournalReader,
    conversation: &Conversation,
    progress: &mut Progress,
    mut write: impl FnMut(&Talk, &[Value]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for planned in &conversation.turns {
        if !planned.is_learnt() {
            progress.counts.leave_out(planned);
            continue;
        }
        let Some(story) = read(reader, planned, progress)? else { continue };
        let mut talk = Talk::default();
        story.row.turn.messages.iter().for_each(|message| talk.hear(message));
        talk.reply(&story, true);
        progress.counts.turns += 1;
        write(&talk, &story.row.turn.tools)?;
    }
    Ok(())
}

impl Talk {
    /// A message of a request.
    fn hear(&mut self, message: &Value) {
        let role = message["role"].as_str().unwrap_or("user");
        if role == "assistant" {
            return self.say(message, "", false);
        }
        let mut fields = Map::new();
        fields.insert("role".into(), role.into());
        fields.insert("content".into(), message["content"].as_str().unwrap_or_default().into());
        if role == "tool" {
            let given = message["tool_call_id"].as_str().map(str::to_owned);
            let place = self.open_calls.iter().position(|call| given.as_ref().is_none_or(|id| id == call));
            let call = place.map(|place| self.open_calls.remove(place)).or(given);
            fields.extend(call.map(|id| ("tool_call_id".to_owned(), id.into())));
        }
        if let Some(name) = message["name"].as_str() {
            fields.insert("name".into(), name.into());
        }
        self.messages.push(fields.into());
    }

    /// A reply that was drawn in this run.
    fn reply(&mut self, story: &Story, is_learnt: bool) {
        let row = &story.row;
        self.replies.push(Reply {
            message: self.messages.len(),
            turn_id: row.turn.id.clone(),
            policy_version: row.turn.completion.policy_version,
            reward: row.verdict.as_ref().and_then(|verdict| verdict.reward),
            fate: row.state,
        });
        self.say(&conversation::reply(&row.turn), &row.turn.id.0, is_learnt);
    }

    /// An assistant message. Calls of a `turn` get ids of their own: those that the client was given are not kept.
    fn say(&mut self, message: &Value, turn: &str, is_learnt: bool) {
        let mut fields = Map::new();
        fields.insert("role".into(), "assistant".into());
        let calls = message["tool_calls"].as_array().filter(|calls| !calls.is_empty());
        let content = message["content"].as_str().filter(|text| calls.is_none() || !text.is_empty());
        fields.insert("content".into(), content.into());
        if let Some(reasoning) = message["reasoning_content"].as_str().filter(|text| !text.is_empty()) {
            fields.insert("reasoning_content".into(), reasoning.into());
        }
        let call = |(place, call): (usize, &Value)| {
            let id = calls::id(call, place, turn);
            let arguments = match &call["function"]["arguments"] {
                Value::String(text) => text.clone(),
                Value::Null => "{}".to_owned(),
                other => exact_json::to_json(other),
            };
            let function = serde_json::json!({"name": call["function"]["name"], "arguments": arguments});
            serde_json::json!({"id": id, "type": "function", "function": function})
        };
        if let Some(calls) = calls {
            fields.insert("tool_calls".into(), calls.iter().enumerate().map(call).collect());
        }
        if !is_learnt {
            fields.insert("weight".into(), 0.into());
        }
        self.messages.push(fields.into());
        self.open_calls = call_ids(&self.messages[self.messages.len() - 1]);
    }

    /// Takes over the ids of the last reply's calls from the message that its client made of it.
    fn use_ids(&mut self, theirs: Option<&Value>) {
        let (Some(theirs), Some(message)) = (theirs, self.messages.last_mut()) else { return };
        let ours = message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten();
        for (call, theirs) in ours.zip(calls::given_by(theirs)) {
            if let Some(id) = theirs {
                call["id"] = id.into();
            }
        }
        self.open_calls = call_ids(message);
    }
}

fn call_ids(message: &Value) -> Vec<String> {
    calls::given_by(message).flatten().map(str::to_owned).collect()
}

/// Control characters that JSON leaves as they are would steer a terminal.
fn escaped(line: String) -> String {
    let is_control = |c: char| ('\u{7f}'..='\u{9f}').contains(&c);
    if !line.contains(is_control) {
        return line;
    }
    let escape = |c: char| if is_control(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    line.chars().map(escape).collect()
}

enum Sink {
    File(NewFile),
    Stdout(BufWriter<Stdout>),
}

impl Sink {
    fn open(path: &Path, replace: bool) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stdout(BufWriter::new(io::stdout())));
        }
        NewFile::create(path, replace).map(Self::File)
    }

    fn finish(self) -> anyhow::Result<()> {
        match self {
            Self::File(file) => file.finish(),
            Self::Stdout(mut out) => out.flush().context("cannot write to standard output"),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(out) => out.flush(),
        }
    }
}
