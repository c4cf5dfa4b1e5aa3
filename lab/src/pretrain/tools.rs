//! Tools that people could have, what they ask of them, the call for it, and what comes back. Names and values are made up
//! anew each time, so that they are read from the definition and the request, and not known.
use super::conversations::Talk;
use super::system_prompts;
use super::text::{Document, DocumentKind};
use super::values;
use openclaw_actors::conversation::call_text;
use openclaw_environments::{dice::Dice, persona::Split};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// A tool as somebody wrote it.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    about: &'static str,
    arguments: Vec<(&'static str, Kind)>,
    rows: Vec<Row>,
}

/// What an argument takes.
#[derive(Debug)]
enum Kind {
    Value(&'static str),
    Choice(Vec<&'static str>),
}

#[derive(Debug)]
struct Row {
    request: &'static str,
    result: &'static str,
    answer: &'static str,
}

static TRAIN: LazyLock<Vec<Tool>> = LazyLock::new(|| read(include_str!("texts/tools.tsv")));
static HELD_OUT: LazyLock<Vec<Tool>> = LazyLock::new(|| read(include_str!("held_out/tools.tsv")));

fn read(file: &'static str) -> Vec<Tool> {
    let mut tools: Vec<Tool> = Vec::new();
    for line in file.lines().filter(|line| !line.is_empty()) {
        let mut columns = line.split('\t');
        let mut column = || columns.next().expect("the file has its columns");
        let (name, about, arguments) = (column(), column(), column());
        let row = Row { request: column(), result: column(), answer: column() };
        match tools.iter_mut().find(|tool| tool.name == name) {
            Some(tool) => tool.rows.push(row),
            None => {
                let argument = |argument: &'static str| {
                    let (name, kind) = argument.split_once(':').expect("an argument has a type");
                    let choices = kind.strip_prefix("choice(").and_then(|kind| kind.strip_suffix(')'));
                    (name, choices.map_or(Kind::Value(kind), |all| Kind::Choice(all.split('|').collect())))
                };
                tools.push(Tool {
                    name,
                    about,
                    arguments: arguments.split(';').map(argument).collect(),
                    rows: vec![row],
                });
            }
        }
    }
    tools
}

/// The tools of one author.
pub(super) fn all(split: Split) -> &'static [Tool] {
    match split {
        Split::Train => &TRAIN,
        Split::HeldOut => &HELD_OUT,
    }
}

impl Tool {
    /// As chat templates have it, under this name.
    fn definition(&self, name: &str, names: &[String]) -> Value {
        let property = |(argument, (_, kind)): (&String, &(&str, Kind))| {
            let schema = match kind {
                Kind::Value("number") => json!({"type": "integer"}),
                Kind::Value(_) => json!({"type": "string"}),
                Kind::Choice(all) => json!({"type": "string", "enum": all}),
            };
            (argument.clone(), schema)
        };
        let properties: Map<String, Value> = names.iter().zip(&self.arguments).map(property).collect();
        json!({"type": "function", "function": {
            "name": name,
            "description": self.about,
            "parameters": {"type": "object", "properties": properties, "required": names},
        }})
    }

    fn own_names(&self) -> Vec<String> {
        self.arguments.iter().map(|(name, _)| (*name).to_owned()).collect()
    }
}

/// A request, the call for it, what that may return, and the answer to that.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) request: String,
    /// The definition of the tool.
    pub(super) tool: Value,
    pub(super) arguments: Map<String, Value>,
    pub(super) result: String,
    pub(super) answer: String,
    pub(super) failed: bool,
}

impl Exchange {
    /// A random one; about a quarter of them fail.
    pub(super) fn new(dice: &mut Dice) -> Self {
        Self::any(Split::Train, dice)
    }

    /// The same by either author.
    pub(super) fn any(split: Split, dice: &mut Dice) -> Self {
        let tool = &all(split)[dice.index(all(split).len())];
        let failed = dice.chance(0.25);
        Self::of(tool, failed, dice)
    }

    /// One for a tool.
    pub(super) fn of(tool: &Tool, failed: bool, dice: &mut Dice) -> Self {
        let row = &tool.rows[dice.index(tool.rows.len())];
        let (mut request, mut result, mut answer) =
            (row.request.to_owned(), row.result.to_owned(), row.answer.to_owned());
        let mut arguments = Map::new();
        for (name, kind) in &tool.arguments {
            let value = match kind {
                Kind::Value(kind) => values::of(kind, dice),
                Kind::Choice(all) => chosen(&mut request, name, all, dice),
            };
            for text in [&mut request, &mut result, &mut answer] {
                *text = text.replace(&format!("{{{name}}}"), &value);
            }
            let number = matches!(kind, Kind::Value("number")).then(|| value.parse::<i64>().ok()).flatten();
            arguments.insert((*name).to_owned(), number.map_or_else(|| json!(value), |number| json!(number)));
        }
        for (mark, kind) in
            [("{1}", "number"), ("{2}", "number"), ("{a}", "word"), ("{b}", "word"), ("{A}", "name")]
        {
            if result.contains(mark) || answer.contains(mark) {
                let value = values::of(kind, dice);
                (result, answer) = (result.replace(mark, &value), answer.replace(mark, &value));
            }
        }
        let failed = failed || tells_of_failure(&result);
        if failed && !tells_of_failure(&result) {
            let reason = reason(dice);
            answer = dice
                .pick(&["That did not work: {}.", "I could not do it: {}.", "It failed: {}."])
                .replace("{}", &reason);
            result = match dice.index(4) {
                0 => format!("Error: {reason}"),
                1 => json!({"error": reason}).to_string(),
                2 => format!("error: {reason}"),
                _ => format!("{}: {reason}", tool.name),
            };
        }
        let request = request.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut exchange = Self {
            request,
            tool: tool.definition(tool.name, &tool.own_names()),
            arguments,
            result,
            answer,
            failed,
        };
        if dice.chance(0.4) {
            exchange.rename(tool, dice);
        }
        exchange
    }

    /// Gives the tool and its arguments names that say nothing: only the definition tells.
    fn rename(&mut self, tool: &Tool, dice: &mut Dice) {
        let name = values::identifier(dice);
        let mut names: Vec<String> = Vec::new();
        while names.len() < tool.arguments.len() {
            let name = values::identifier(dice);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        self.tool = tool.definition(&name, &names);
        self.result = self.result.replace(tool.name, &name);
        let own = std::mem::take(&mut self.arguments);
        for ((argument, _), name) in tool.arguments.iter().zip(&names) {
            self.arguments.insert(name.clone(), own[*argument].clone());
        }
        if dice.chance(0.5) {
            self.request = format!("{} {name}: {}", dice.pick(&["Use", "With", "Call"]), self.request);
        }
    }

    /// The tool's name.
    pub(super) fn name(&self) -> &str {
        self.tool["function"]["name"].as_str().unwrap_or_default()
    }

    /// The call as the chat template writes it.
    pub(super) fn call_text(&self) -> String {
        call_text(self.name(), &Value::Object(self.arguments.clone()))
    }

    /// The call as a message.
    pub(super) fn call(&self, dice: &mut Dice) -> Value {
        calling(self.name(), &self.arguments, dice)
    }

    /// The tool among others.
    pub(super) fn offered(&self, others: usize, dice: &mut Dice) -> Vec<Value> {
        offered(std::slice::from_ref(self), others, dice)
    }
}

/// The tools of these exchanges among others, in any order.
fn offered(exchanges: &[Exchange], others: usize, dice: &mut Dice) -> Vec<Value> {
    let own = exchanges.iter().map(|exchange| exchange.tool.clone());
    let mut offered: Vec<Value> = Vec::new();
    for tool in own.chain((0..others).map(|_| decoy(dice)).collect::<Vec<_>>()) {
        if offered.iter().all(|other| other["function"]["name"] != tool["function"]["name"]) {
            offered.insert(dice.index(offered.len() + 1), tool);
        }
    }
    offered
}

/// An assistant's message that is a call.
pub(super) fn calling(name: &str, arguments: &Map<String, Value>, dice: &mut Dice) -> Value {
    let id = format!("call_{}", dice.between(1, 99));
    json!({"role": "assistant", "content": "", "tool_calls": [
        {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}},
    ]})
}

/// Takes the mark of a choice out of a request, and tells what is chosen.
fn chosen(request: &mut String, name: &str, all: &[&'static str], dice: &mut Dice) -> String {
    let mark = format!("{{{name}=");
    if let Some(start) = request.find(&mark)
        && let Some(end) = request[start..].find('}')
    {
        let value = request[start + mark.len()..start + end].to_owned();
        request.replace_range(start..=start + end, "");
        return value;
    }
    all[dice.index(all.len())].to_owned()
}

/// Some of what people wrote for a tool to return is an error, or nothing at all.
fn tells_of_failure(result: &str) -> bool {
    let result = result.to_lowercase();
    let marks = [
        "error",
        "not found",
        "denied",
        "failed",
        "no such",
        "timeout",
        "timed out",
        "refused",
        "invalid",
        "unknown",
        "cannot",
        "can't",
        "could not",
        "unable",
        "no results",
        "0 results",
        "nothing found",
        "none found",
        "expired",
    ];
    matches!(result.trim(), "" | "none" | "null" | "[]" | "{}")
        || marks.iter().any(|mark| result.contains(mark))
}

fn reason(dice: &mut Dice) -> String {
    dice.pick(&[
        "not found",
        "permission denied",
        "no such file or directory",
        "timeout after 10 seconds",
        "invalid argument",
        "the service did not answer",
        "unknown name",
        "rate limit exceeded",
        "connection refused",
        "out of range",
        "access token expired",
        "quota exceeded",
        "already exists",
        "bad request",
        "internal error 500",
        "unsupported format",
    ])
    .to_owned()
}

fn decoy(dice: &mut Dice) -> Value {
    let tool = &TRAIN[dice.index(TRAIN.len())];
    tool.definition(tool.name, &tool.own_names())
}

/// One to `most` tool definitions.
pub(super) fn definitions(most: i64, dice: &mut Dice) -> Vec<Value> {
    (0..dice.between(1, most)).map(|_| decoy(dice)).collect()
}

/// Some requests to the same tools, each with its call, the result and the answer; sometimes one that no tool is for.
pub(super) fn document(dice: &mut Dice) -> Document {
    let mut talk = Talk::bare(DocumentKind::Tools);
    if dice.chance(0.25) {
        let words = dice.between(5, 60) as usize;
        talk.system(&system_prompts::page(words, dice));
    }
    let mut exchanges: Vec<Exchange> = Vec::new();
    for _ in 0..dice.weighted(&[(1, 0.3), (2, 0.3), (3, 0.2), (4, 0.2)]) {
        let exchange = Exchange::new(dice);
        if exchanges.iter().all(|other| other.name() != exchange.name()) {
            exchanges.push(exchange);
        }
    }
    let others = dice.weighted(&[(0, 0.4), (1, 0.3), (2, 0.2), (3, 0.1)]);
    let unfit = (exchanges.len() + others > 1 && dice.chance(0.08)).then(|| dice.index(exchanges.len()));
    let mut tools = offered(&exchanges, others, dice);
    if let Some(unfit) = unfit {
        tools.retain(|tool| tool["function"]["name"] != exchanges[unfit].name());
    }
    for (nth, exchange) in exchanges.iter().enumerate() {
        talk.user(&exchange.request, dice);
        if unfit == Some(nth) {
            talk.assistant(dice.pick(&["I have no tool for that.", "None of my tools can do that."]));
            continue;
        }
        talk.message(exchange.call(dice));
        talk.message(json!({"role": "tool", "content": exchange.result}));
        talk.assistant(&exchange.answer);
    }
    let mut document = talk.finish();
    document.tools = tools;
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_names_what_its_call_takes() {
        let mut dice = Dice::new(1);
        for split in [Split::Train, Split::HeldOut] {
            assert!(all(split).len() >= 45);
            for tool in all(split) {
                for _ in 0..20 {
                    let exchange = Exchange::of(tool, false, &mut dice);
                    for text in [&exchange.request, &exchange.answer] {
                        assert!(!text.contains(['{', '}']), "{}: {text}", tool.name);
                    }
                    for ((_, kind), value) in tool.arguments.iter().zip(exchange.arguments.values()) {
                        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                        let is_choice = matches!(kind, Kind::Choice(_));
                        assert!(
                            is_choice || exchange.request.contains(&text),
                            "{}: {}",
                            tool.name,
                            exchange.request
                        );
                    }
                }
            }
        }
    }
}
