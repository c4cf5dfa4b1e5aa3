//! What a config may say of a `tool_call` environment, and whether it can be used.

use std::{collections::BTreeSet, path::PathBuf};

use serde::Deserialize;

use super::{
    boxed::AnswerRule,
    families::{Family, Knobs},
};
use crate::{draw::Kinds, sandboxed::Sandbox, world::WorldError};

/// `[environments.NAME]` of this kind: `rows` and `held_out_rows`, or `families` with their knobs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Rows of training, a file of JSON lines.
    pub rows: Option<PathBuf>,
    /// Rows that are held out, a file of JSON lines.
    pub held_out_rows: Option<PathBuf>,
    /// How a boxed answer is compared with the label of a row: `same_value`, `published`.
    pub answer: String,
    /// Families in turn, `tc1`, `tc2`, `tc3`; all of them where there are no rows.
    pub families: Option<Vec<String>>,
    /// Of families: least and most digits of a number, 2 to 9.
    pub digits: (u32, u32),
    /// Of families: least and most items of a printed list, 3 to 40.
    pub items: (usize, usize),
    /// Of families: lines printed beside the one that matters, up to 20.
    pub distractors: usize,
    /// Of families: tools that are offered and of no use, up to 4.
    pub decoy_tools: usize,
    /// Of families: what is held out is of its `own` kinds, or of those `seen` in training.
    pub kinds: String,
    /// Offers the code tool. Without it there is no rule for steps.
    pub interpreter: bool,
    /// Servers whose tools are offered, too.
    pub mcp: Vec<Server>,
    /// What isolates: `bubblewrap`, or `docker` with an `image`.
    pub sandbox: Sandbox,
    /// Of docker: the programs that there are.
    pub image: Option<String>,
    /// Of docker: where its daemon listens, unless it is where its own programs look for it.
    pub socket: Option<PathBuf>,
    /// The most that one step runs, all its calls together, in seconds.
    pub step_secs: u64,
    /// The most that is shown of what one call gave, in bytes: its start and its end.
    pub output_bytes: usize,
    /// Memory of the code, in MiB.
    pub memory_mb: u64,
    /// The most steps of an episode.
    pub steps: u32,
    /// A message that comes before the problem, in place of the one that a row has; an empty one is none. Unless it is
    /// set, rows without one of their own have [`SYSTEM`] or [`SYSTEM_WITHOUT_CODE`], and families have none.
    pub system: Option<String>,
}

/// What a row's problem begins with where nothing else is said.
pub const SYSTEM: &str = "Solve the problem. You can run Python with the tool code_interpreter as often as it helps: \
    print what you want to see. Every call starts anew, and only files stay. When you know the answer, write it as \
    \\boxed{answer} and call nothing more.";

/// The same, where there is no code tool.
pub const SYSTEM_WITHOUT_CODE: &str = "Solve the problem. You can call the tools that you have as often as it helps. \
    When you know the answer, write it as \\boxed{answer} and call nothing more.";

/// A server of tools, which speaks the Model Context Protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Names it in errors.
    pub name: String,
    /// Starts it; it speaks through its input and output. It runs as this process does, in no sandbox.
    pub command: Option<Vec<String>>,
    /// Where it is reached, by streamable HTTP.
    pub url: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let knobs = Knobs::default();
        Self {
            rows: None,
            held_out_rows: None,
            answer: "same_value".to_owned(),
            families: None,
            digits: knobs.digits,
            items: knobs.items,
            distractors: knobs.distractors,
            decoy_tools: knobs.decoy_tools,
            kinds: "own".to_owned(),
            interpreter: true,
            mcp: Vec::new(),
            sandbox: Sandbox::default(),
            image: None,
            socket: None,
            step_secs: 20,
            output_bytes: 4096,
            memory_mb: 512,
            steps: 8,
            system: None,
        }
    }
}

/// Where problems come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problems {
    /// Files of rows.
    Rows(AnswerRule),
    /// Families in turn.
    Families(Vec<Family>, Knobs),
}

impl Settings {
    /// Where its problems come from; an error names the key that cannot be used.
    pub(super) fn check(&self) -> Result<Problems, WorldError> {
        within("step_secs", self.step_secs, 1, 3600)?;
        within("output_bytes", self.output_bytes as u64, 64, 1 << 20)?;
        within("memory_mb", self.memory_mb, 64, 1 << 20)?;
        within("steps", u64::from(self.steps), 1, 1000)?;
        self.check_servers()?;
        let answer = match self.answer.as_str() {
            "same_value" => AnswerRule::SameValue,
            "published" => AnswerRule::Published,
            other => return refuse("answer", format!("{other:?} is not one of same_value, published")),
        };
        let kinds = match self.kinds.as_str() {
            "own" => Kinds::Own,
            "seen" => Kinds::Seen,
            other => return refuse("kinds", format!("{other:?} is not one of own, seen")),
        };
        if self.rows.is_some() || self.held_out_rows.is_some() {
            return self.nothing_of_families().map(|()| Problems::Rows(answer));
        }
        if answer != AnswerRule::default() {
            return refuse("answer", "is of rows alone");
        }
        within("digits", u64::from(self.digits.0), 2, 9)?;
        within("digits", u64::from(self.digits.1), self.digits.0.into(), 9)?;
        within("items", self.items.0 as u64, 3, 40)?;
        within("items", self.items.1 as u64, self.items.0 as u64, 40)?;
        within("distractors", self.distractors as u64, 0, 20)?;
        within("decoy_tools", self.decoy_tools as u64, 0, 4)?;
        let knobs = Knobs {
            digits: self.digits,
            items: self.items,
            distractors: self.distractors,
            decoy_tools: self.decoy_tools,
            kinds,
        };
        Ok(Problems::Families(self.families()?, knobs))
    }

    fn families(&self) -> Result<Vec<Family>, WorldError> {
        let all = || Family::ALL.map(|family| family.name().to_owned()).to_vec();
        let names = self.families.clone().unwrap_or_else(all);
        let mut families = Vec::with_capacity(names.len());
        for name in &names {
            match Family::ALL.into_iter().find(|family| family.name() == name) {
                None => return refuse("families", format!("{name:?} is not one of tc1, tc2, tc3")),
                Some(family) if families.contains(&family) => {
                    return refuse("families", format!("{name} is there twice"));
                }
                Some(family) => families.push(family),
            }
        }
        if families.is_empty() {
            return refuse("families", "is empty");
        }
        // The others begin with what only code can see.
        match families.iter().find(|family| **family != Family::Expression && !self.interpreter) {
            Some(family) => refuse("interpreter", format!("{} cannot be solved without it", family.name())),
            None => Ok(families),
        }
    }

    /// What is said of families would be lost on rows.
    fn nothing_of_families(&self) -> Result<(), WorldError> {
        let other = Self::default();
        let said = [
            ("families", self.families != other.families),
            ("digits", self.digits != other.digits),
            ("items", self.items != other.items),
            ("distractors", self.distractors != other.distractors),
            ("decoy_tools", self.decoy_tools != other.decoy_tools),
            ("kinds", self.kinds != other.kinds),
        ];
        match said.into_iter().find(|(_, is_said)| *is_said) {
            Some((key, _)) => refuse(key, "is of families, and there are rows"),
            None => Ok(()),
        }
    }

    fn check_servers(&self) -> Result<(), WorldError> {
        let mut names = BTreeSet::new();
        for server in &self.mcp {
            let name = &server.name;
            if name.is_empty() {
                return refuse("mcp", "a server has no name");
            }
            if !names.insert(name) {
                return refuse("mcp", format!("two servers are called {name}"));
            }
            match (&server.command, &server.url) {
                (Some(command), None) if command.is_empty() => {
                    return refuse("mcp", format!("the command of {name} is empty"));
                }
                (None, Some(url)) if !url.starts_with("http://") && !url.starts_with("https://") => {
                    return refuse(
                        "mcp",
                        format!("the url of {name} begins with neither http:// nor https://"),
                    );
                }
                (Some(_), None) | (None, Some(_)) => {}
                _ => return refuse("mcp", format!("{name} needs either a command or a url")),
            }
        }
        Ok(())
    }
}

fn within(key: &str, value: u64, least: u64, most: u64) -> Result<(), WorldError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    refuse(key, format!("{value} is not from {least} to {most}"))
}

/// A setting that cannot be used.
pub(super) fn refuse<T>(key: &str, why: impl std::fmt::Display) -> Result<T, WorldError> {
    Err(WorldError::Settings(format!("{key}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named() {
        let problem = |text: &str| {
            let settings: Settings = toml::from_str(text).expect("it can be read");
            settings.check().expect_err(text).to_string()
        };
        for (text, says) in [
            ("step_secs = 0", "step_secs: 0 is not from 1 to 3600"),
            ("output_bytes = 9", "output_bytes: 9 is not from 64 to 1048576"),
            ("memory_mb = 1", "memory_mb: 1 is not from 64 to 1048576"),
            ("steps = 0", "steps: 0 is not from 1 to 1000"),
            ("answer = \"near\"", "answer: \"near\" is not one of same_value, published"),
            ("answer = \"published\"", "answer: is of rows alone"),
            ("kinds = \"all\"", "kinds: \"all\" is not one of own, seen"),
            ("families = [\"tc4\"]", "families: \"tc4\" is not one of tc1, tc2, tc3"),
            ("families = []", "families: is empty"),
            ("families = [\"tc1\", \"tc1\"]", "families: tc1 is there twice"),
            ("interpreter = false", "interpreter: tc2 cannot be solved without it"),
            ("digits = [4, 3]", "digits: 3 is not from 4 to 9"),
            ("items = [1, 3]", "items: 1 is not from 3 to 40"),
            ("rows = \"a\"\ndigits = [2, 2]", "digits: is of families, and there are rows"),
            ("rows = \"a\"\nfamilies = [\"tc1\"]", "families: is of families, and there are rows"),
            ("[[mcp]]\nurl = \"http://a\"", "mcp: a server has no name"),
            ("[[mcp]]\nname = \"a\"", "mcp: a needs either a command or a url"),
            ("[[mcp]]\nname = \"a\"\ncommand = []", "mcp: the command of a is empty"),
            (
                "[[mcp]]\nname = \"a\"\nurl = \"a\"",
                "mcp: the url of a begins with neither http:// nor https://",
            ),
        ] {
            assert_eq!(problem(text), says);
        }
        let unknown = toml::from_str::<Settings>("famlies = []").expect_err("it is refused");
        assert!(unknown.message().contains("famlies"));
    }

    #[test]
    fn the_defaults_are_every_family() {
        let all = Problems::Families(Family::ALL.to_vec(), Knobs::default());
        assert_eq!(Settings::default().check(), Ok(all));
    }
}
