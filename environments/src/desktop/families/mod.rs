//! Families of small tasks on a desktop, made from a seed, in the format of OSWorld. Each has an oracle: what is to be done,
//! by what the list of the screen says.
mod calculator;
mod chooser;
mod editor;
mod files;
mod form;
mod terminal;

use serde::Deserialize;
use serde_json::{Value, json};

use super::osworld::{Machine, OsworldTask};
use crate::draw::{Draw, Split};

/// A family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Family {
    /// DT-1: a form is filled in.
    #[serde(rename = "dt1")]
    Form,
    /// DT-2: something is calculated and written down.
    #[serde(rename = "dt2")]
    Calculator,
    /// DT-3: commands in a terminal.
    #[serde(rename = "dt3")]
    Terminal,
    /// DT-4: a row of a list is chosen.
    #[serde(rename = "dt4")]
    Chooser,
    /// DT-5: files in the file manager.
    #[serde(rename = "dt5")]
    Files,
    /// DT-6: a text in the editor.
    #[serde(rename = "dt6")]
    Editor,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Form, Self::Calculator, Self::Terminal, Self::Chooser, Self::Files, Self::Editor];

    /// The name in ids, settings and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Form => "dt1",
            Self::Calculator => "dt2",
            Self::Terminal => "dt3",
            Self::Chooser => "dt4",
            Self::Files => "dt5",
            Self::Editor => "dt6",
        }
    }

    /// Programs that its tasks use; each is in a package of its name.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Form | Self::Chooser => &["zenity"],
            Self::Calculator => &["galculator", "zenity"],
            Self::Terminal => &["lxterminal"],
            Self::Files => &["pcmanfm"],
            Self::Editor => &["mousepad"],
        }
    }

    fn number(self) -> u64 {
        Self::ALL.iter().position(|family| *family == self).unwrap_or(0) as u64
    }
}

/// What an agent does that can do a task: calls by what the list says, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Clicks the first element of this role and name.
    Click(&'static str, String),
    /// Types into the first element of this role and name.
    Type(&'static str, String, String),
}

/// One task.
#[derive(Clone, Debug, PartialEq)]
pub struct FamilyTask {
    /// In the format of OSWorld.
    pub json: Value,
    /// What does it.
    pub plan: Vec<Move>,
}

impl FamilyTask {
    /// As it is played.
    pub fn read(&self, machine: &Machine) -> OsworldTask {
        OsworldTask::read(&self.json, machine).expect("a task of ours is one")
    }
}

/// A task that grows.
struct Making {
    draw: Draw,
    family: Family,
    id: String,
    config: Vec<Value>,
    plan: Vec<Move>,
}

/// The task of a family, a split and a seed: the same three are the same task for ever.
pub fn task(family: Family, split: Split, seed: u64) -> FamilyTask {
    // All families share one stream of seeds.
    let draw = Draw::new(6, split, seed.wrapping_mul(Family::ALL.len() as u64).wrapping_add(family.number()));
    let id = format!("{}/{split}/{seed}", family.name());
    let making = Making { draw, family, id, config: Vec::new(), plan: Vec::new() };
    match family {
        Family::Form => form::make(making),
        Family::Calculator => calculator::make(making),
        Family::Terminal => terminal::make(making),
        Family::Chooser => chooser::make(making),
        Family::Files => files::make(making),
        Family::Editor => editor::make(making),
    }
}

impl Making {
    /// One of the wordings of this split, with `{..}` where names go.
    fn wording(&mut self, train: &[&'static str], held_out: &[&'static str]) -> &'static str {
        let wordings = if self.draw.split == Split::Train { train } else { held_out };
        wordings[self.draw.dice.index(wordings.len())]
    }

    /// A name with a capital, as people and places have them.
    fn proper(&mut self) -> String {
        let name = self.draw.name();
        let mut characters = name.chars();
        let first = characters.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(characters).collect()
    }

    /// A line of a shell that is run before the agent comes.
    fn run(&mut self, line: impl Into<String>) {
        self.config.push(json!({"type": "execute", "parameters": {"command": line.into(), "shell": true}}));
    }

    /// A program whose window is waited for.
    fn open(&mut self, line: impl Into<String>, title: &str) {
        self.config.push(json!({"type": "launch", "parameters": {"command": line.into(), "shell": true}}));
        self.config.push(json!({"type": "activate_window", "parameters": {"window_name": title}}));
        // What is in a window comes after it.
        self.config.push(json!({"type": "sleep", "parameters": {"seconds": 0.5}}));
    }

    fn click(&mut self, role: &'static str, name: impl Into<String>) {
        self.plan.push(Move::Click(role, name.into()));
    }

    fn type_into(&mut self, role: &'static str, name: impl Into<String>, text: impl Into<String>) {
        self.plan.push(Move::Type(role, name.into(), text.into()));
    }

    /// A task that is done when a command writes this.
    fn done(self, instruction: String, command: String, expected: String) -> FamilyTask {
        let result = json!({"type": "vm_command_line", "command": command, "shell": true});
        let expected = json!({"type": "rule", "rules": {"expected": expected}});
        let evaluator = json!({"func": "exact_match", "result": result, "expected": expected});
        self.judged(instruction, evaluator)
    }

    /// A task that is done when a file has this text.
    fn written(self, instruction: String, path: &str, text: String) -> FamilyTask {
        let evaluator = json!({
            "func": "compare_config",
            "result": {"type": "vm_file", "path": path, "dest": "answer.txt"},
            "expected": {"type": "rule", "rules": {"expected": text}},
        });
        self.judged(instruction, evaluator)
    }

    fn judged(self, instruction: String, evaluator: Value) -> FamilyTask {
        let json = json!({
            "id": self.id,
            "snapshot": "os",
            "instruction": instruction,
            "source": self.family.name(),
            "config": self.config,
            "related_apps": ["os"],
            "evaluator": evaluator,
            "proxy": false,
        });
        FamilyTask { json, plan: self.plan }
    }
}
