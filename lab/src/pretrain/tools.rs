//! Tool definitions, calls, results, and answers that use them.
use super::conversations::Talk;
use super::system_prompts;
use super::text::{Document, DocumentKind};
use openclaw_environments::dice::Dice;
use serde_json::{Value, json};

const CITIES: &[&str] =
    &["Oslo", "Paris", "Rome", "Lima", "Cairo", "Delhi", "Bern", "Tokyo", "Quito", "Riga"];
const FILES: &[&str] = &[
    "notes.txt",
    "todo.md",
    "plan.txt",
    "data/list.csv",
    "docs/readme.md",
    "src/main.rs",
    "mail.txt",
    "log/day.txt",
    "recipe.md",
    "names.txt",
];
const CONTENTS: &[&str] = &[
    "Buy eggs and milk.",
    "Call Ana on Friday.",
    "The key is under the mat.",
    "Meeting at the office.",
    "Water the flowers.",
    "Send the letter to Tom.",
    "Pay the rent.",
    "Bring the red folder.",
];
const SKIES: &[&str] = &["rain", "sun", "clouds", "snow", "wind"];

/// A call, what it may return, and the answer to that.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) request: String,
    pub(super) tool: &'static str,
    pub(super) arguments: Value,
    pub(super) result: String,
    pub(super) answer: String,
    pub(super) failed: bool,
}

impl Exchange {
    /// A random one; about a quarter of them fail.
    pub(super) fn new(dice: &mut Dice) -> Self {
        let failed = dice.chance(0.25);
        match dice.index(4) {
            0 => weather(failed, dice),
            1 => read(failed, dice),
            2 => calculate(failed, dice),
            _ => list(failed, dice),
        }
    }

    /// The call as the chat template writes it.
    pub(super) fn call_text(&self) -> String {
        let call = json!({"name": self.tool, "arguments": self.arguments});
        format!("<tool_call>\n{call}\n</tool_call>")
    }
}

fn weather(failed: bool, dice: &mut Dice) -> Exchange {
    let city = dice.pick(CITIES);
    let (degrees, sky) = (dice.between(1, 30), dice.pick(SKIES));
    Exchange {
        request: dice
            .pick(&["What is the weather in {}?", "How is the weather in {} today?", "weather in {} please"])
            .replace("{}", city),
        tool: "get_weather",
        arguments: json!({"city": city}),
        result: if failed {
            failure(&["city not found", "the service did not answer", "timeout after 10 seconds"], dice)
        } else {
            json!({"city": city, "degrees": degrees, "sky": sky}).to_string()
        },
        answer: if failed {
            format!("I could not get the weather in {city}.")
        } else {
            format!("It is {degrees} degrees with {sky} in {city}.")
        },
        failed,
    }
}

fn read(failed: bool, dice: &mut Dice) -> Exchange {
    let (path, content) = (dice.pick(FILES), dice.pick(CONTENTS));
    Exchange {
        request: dice
            .pick(&["Read {}.", "What does {} say?", "Please read the file {}.", "open {}"])
            .replace("{}", path),
        tool: "read",
        arguments: json!({"path": path}),
        result: if failed {
            failure(&["no such file or directory", "permission denied", "file not found"], dice)
        } else {
            content.to_owned()
        },
        answer: if failed {
            format!("I could not read {path}.")
        } else {
            format!("The file {path} says: {content}")
        },
        failed,
    }
}

fn calculate(failed: bool, dice: &mut Dice) -> Exchange {
    let (left, right) = (dice.between(11, 99), dice.between(11, 99));
    let expression = format!("{left} * {right}");
    Exchange {
        request: dice
            .pick(&["Use the calculator for {}.", "Please calculate {} with the tool.", "calculator: {}"])
            .replace("{}", &expression),
        tool: "calculator",
        arguments: json!({"expression": expression}),
        result: if failed {
            failure(&["invalid argument", "missing argument expression", "syntax error"], dice)
        } else {
            (left * right).to_string()
        },
        answer: if failed {
            "The calculator did not work.".to_owned()
        } else {
            format!("The result is {}.", left * right)
        },
        failed,
    }
}

fn list(failed: bool, dice: &mut Dice) -> Exchange {
    let folder = dice.pick(&["docs", "src", "home", "photos", "mail", "work"]);
    let (first, second) = (dice.pick(FILES), dice.pick(FILES));
    Exchange {
        request: dice
            .pick(&["List the files in {}.", "Which files are in {}?", "Show me the folder {}.", "ls {}"])
            .replace("{}", folder),
        tool: "exec",
        arguments: json!({"command": format!("ls {folder}")}),
        result: if failed {
            failure(&["exit code 1", "command not found", "exit code 2: no such folder"], dice)
        } else {
            format!("{first}\n{second}")
        },
        answer: if failed {
            format!("I could not list {folder}.")
        } else {
            format!("The folder {folder} has {first} and {second}.")
        },
        failed,
    }
}

fn failure(reasons: &[&str], dice: &mut Dice) -> String {
    let reason = dice.pick(reasons);
    match dice.index(3) {
        0 => format!("Error: {reason}"),
        1 => json!({"error": reason}).to_string(),
        _ => format!("error: {reason}"),
    }
}

fn definition(tool: &str) -> Value {
    let (description, argument) = match tool {
        "get_weather" => ("Weather in a city", "city"),
        "read" => ("Read a file", "path"),
        "calculator" => ("Calculate an expression", "expression"),
        "exec" => ("Run a shell command", "command"),
        "web_search" => ("Search the web", "query"),
        _ => ("Send a message", "text"),
    };
    let mut properties = serde_json::Map::new();
    properties.insert(argument.to_owned(), json!({"type": "string"}));
    json!({"type": "function", "function": {
        "name": tool,
        "description": description,
        "parameters": {"type": "object", "properties": properties, "required": [argument]},
    }})
}

const NAMES: [&str; 6] = ["get_weather", "read", "calculator", "exec", "web_search", "message"];

/// One to `most` tool definitions.
pub(super) fn definitions(most: i64, dice: &mut Dice) -> Vec<Value> {
    let count = dice.between(1, most) as usize;
    let start = dice.index(NAMES.len());
    (start..start + count).map(|at| definition(NAMES[at % NAMES.len()])).collect()
}

/// A request, a call, its result and the answer; sometimes a second one.
pub(super) fn round_trip(dice: &mut Dice) -> Document {
    let mut talk = Talk::bare(DocumentKind::Tools);
    if dice.chance(0.4) {
        let words = dice.between(5, 60) as usize;
        talk.system(&system_prompts::page(words, dice));
    }
    let exchange = Exchange::new(dice);
    talk.user(&exchange.request, dice);
    let mut document = talk.finish();
    document.tools = definitions(2, dice);
    if !document.tools.iter().any(|tool| tool["function"]["name"] == exchange.tool) {
        let at = dice.index(document.tools.len() + 1);
        document.tools.insert(at, definition(exchange.tool));
    }
    document.push_message(json!({
        "role": "assistant",
        "content": "",
        "tool_calls": [{
            "id": format!("call_{}", dice.between(1, 9)),
            "type": "function",
            "function": {"name": exchange.tool, "arguments": exchange.arguments},
        }],
    }));
    document.push("tool", &exchange.result);
    document.push("assistant", &exchange.answer);
    document
}
