//! Whole episodes, as an agent of the runtime has them: the families of the environments, and pages whose elements have
//! numbers. Some of them hold a step that goes wrong, which is not learnt, and what is done about it, which is.
use super::text::{Document, DocumentKind};
use super::{pages, tools};
use openclaw_actors::{
    conversation::call_text,
    prompts::{Exhibit, PromptStyle, hint_answer, hint_prompt, judge_prompt, with_hint},
};
use openclaw_environments::{
    dice::Dice,
    draw::Kinds,
    persona::Split,
    terminal::{self, families as terminal_families},
    tool_call::families as code,
    world::{Said, Tool},
};
use serde_json::{Map, Value, json};

/// Above every number that an environment gives a task, so that no text has a task that is trained or measured on.
const SEEDS: u64 = 1 << 59;

/// What was done in a step and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) tool: String,
    pub(super) arguments: Map<String, Value>,
    pub(super) result: String,
    /// It led nowhere.
    pub(super) is_wrong: bool,
    /// Where it failed, what would have been better.
    pub(super) lesson: Option<String>,
}

impl Step {
    pub(super) fn new(tool: &str, arguments: &[(&str, Value)], result: impl Into<String>) -> Self {
        let arguments = arguments.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Self { tool: tool.to_owned(), arguments, result: result.into(), is_wrong: false, lesson: None }
    }

    pub(super) fn wrong(self, lesson: impl Into<String>) -> Self {
        Self { is_wrong: true, lesson: Some(lesson.into()), ..self }
    }
}

/// An episode as it could be played.
#[derive(Clone, Debug)]
pub(super) struct Episode {
    pub(super) opening: Vec<Value>,
    pub(super) tools: Vec<Value>,
    pub(super) steps: Vec<Step>,
    /// What is said at the end.
    pub(super) ending: String,
}

impl Episode {
    /// One of any family; with steps that go wrong if `slips`.
    pub(super) fn new(split: Split, slips: bool, dice: &mut Dice) -> Self {
        match dice.weighted(&[(0, 0.4), (1, 0.42), (2, 0.18)]) {
            0 => coded(split, slips, dice),
            1 => typed(split, slips, dice),
            _ => pages::episode(slips, dice),
        }
    }

    fn document(mut self, dice: &mut Dice) -> Document {
        // Whoever is told before does not fail.
        let lesson = self.steps.iter().find_map(|step| step.lesson.clone());
        if let Some(lesson) = lesson.filter(|_| dice.chance(0.4)) {
            self.steps.retain(|step| step.lesson.is_none());
            let asked = self.opening.iter_mut().rfind(|said| said["role"] == "user");
            if let Some(asked) = asked {
                asked["content"] = with_hint(asked["content"].as_str().unwrap_or_default(), &lesson).into();
            }
        }
        let mut document = Document::new(DocumentKind::Episode);
        document.tools = self.tools;
        document.messages = self.opening;
        for step in self.steps {
            let call = tools::calling(&step.tool, &step.arguments, dice);
            if step.is_wrong {
                document.messages.push(call);
            } else {
                document.push_message(call);
            }
            document.push("tool", &step.result);
        }
        document.push("assistant", &self.ending);
        document
    }

    /// What the judge of step `at` is shown, as the runtime shows it.
    pub(super) fn judged(&self, at: usize) -> String {
        self.shown(at, judge_prompt)
    }

    /// What the hint writer is shown of a step that failed, and what it is to say.
    pub(super) fn taught(&self) -> Option<(String, String)> {
        let at = self.steps.iter().position(|step| step.lesson.is_some())?;
        Some((self.shown(at, hint_prompt), hint_answer(self.steps[at].lesson.as_deref())))
    }

    fn shown(&self, at: usize, prompt: fn(PromptStyle, &Exhibit<'_>) -> String) -> String {
        let call = |step: &Step| call_text(&step.tool, &Value::Object(step.arguments.clone()));
        let mut history: Vec<(String, String)> = Vec::new();
        for step in &self.steps[..at] {
            history.push(("assistant".into(), call(step)));
            history.push(("tool".into(), step.result.clone()));
        }
        let task = self.opening.iter().rfind(|said| said["role"] == "user");
        let task = task.and_then(|said| said["content"].as_str()).unwrap_or_default();
        history.push(("user".into(), task.to_owned()));
        let exhibit = Exhibit {
            history: &history,
            answer: &call(&self.steps[at]),
            next_state: &self.steps[at].result,
            next_role: "tool",
        };
        prompt(PromptStyle::Compact, &exhibit)
    }
}

/// A document of one episode.
pub(super) fn episode(dice: &mut Dice) -> Document {
    let slips = dice.chance(0.3);
    Episode::new(Split::Train, slips, dice).document(dice)
}

fn messages(said: Vec<Said>) -> Vec<Value> {
    said.iter().map(Said::message).collect()
}

fn functions(tools: Vec<Tool>) -> Vec<Value> {
    tools.iter().map(Tool::function).collect()
}

/// A problem that is solved with Python.
fn coded(split: Split, slips: bool, dice: &mut Dice) -> Episode {
    let family = code::Family::ALL[dice.index(3)];
    let digits = dice.pick(&[&(2, 3), &(2, 4), &(3, 4), &(4, 6)]);
    let knobs = code::Knobs {
        digits: *digits,
        items: (3, 7),
        distractors: dice.index(3),
        decoy_tools: dice.index(3),
        kinds: Kinds::Own,
    };
    let task = code::task(family, split, SEEDS | dice.seed() >> 6, &knobs);
    let mut steps = Vec::new();
    let slip = slips.then(|| dice.index(task.plan.len()));
    for (at, (action, ran)) in task.plan.iter().enumerate() {
        if slip == Some(at) {
            let usual = task.plan.iter().find_map(|(action, _)| match action {
                code::Action::Call { code, .. } => Some(code.as_str()),
                _ => None,
            });
            steps.push(coding_slip(&task, usual.unwrap_or_default(), dice));
        }
        if let code::Action::Call { tool, code } = action {
            let result = match &ran.error {
                Some(class) => traceback(code, class, dice),
                None if ran.output.trim().is_empty() => "[nothing was printed]".to_owned(),
                None => ran.output.trim_end().to_owned(),
            };
            let lesson = ran.error.as_ref().map(|class| repair(code, class));
            steps.push(Step { lesson, ..Step::new(tool, &[("code", json!(code))], result) });
        }
    }
    let ending = match dice.index(4) {
        0 => format!("\\boxed{{{}}}", task.answer),
        1 => format!("It is \\boxed{{{}}}.", task.answer),
        2 => format!("The result is \\boxed{{{}}}.", task.answer),
        _ => format!("The answer is \\boxed{{{}}}.", task.answer),
    };
    Episode { opening: messages(task.opening()), tools: functions(task.offered()), steps, ending }
}

fn coding_slip(task: &code::FamilyTask, usual: &str, dice: &mut Dice) -> Step {
    let code = |code: &str, result: String, lesson: &str| {
        Step::new(code::TOOL, &[("code", json!(code))], result).wrong(lesson)
    };
    let decoys: Vec<&&str> = task.tools.iter().filter(|tool| **tool != code::TOOL).collect();
    match dice.index(4) {
        0 if !decoys.is_empty() => {
            let name = decoys[dice.index(decoys.len())];
            let argument = task.offered().iter().find(|tool| tool.name == **name).and_then(|tool| {
                let properties = tool.parameters["properties"].as_object()?;
                properties.keys().next().cloned()
            });
            let value = json!(task.instruction.split_whitespace().last().unwrap_or_default());
            Step::new(name, &[(&argument.unwrap_or_default(), value)], format!("{name} is of no use here."))
                .wrong(format!("Use {} and not {name}.", code::TOOL))
        }
        1 if usual.ends_with(')') => {
            let open = usual[..usual.len() - 1].to_owned();
            let mark = " ".repeat(open.rfind('(').unwrap_or(0));
            let shown = format!(
                "  File \"<code>\", line 1\n    {open}\n    {mark}^\nSyntaxError: '(' was never closed"
            );
            code(&open, shown, "Close every bracket that is opened.")
        }
        // Only what is printed can go unprinted.
        3 if task.family == code::Family::Expression => {
            let quiet = usual.trim_start_matches("print").to_owned();
            code(&quiet, "[nothing was printed]".to_owned(), "Print the result with print().")
        }
        _ => code(
            "print(answer)",
            traceback("print(answer)", "NameError", dice),
            "Write what is to be computed, no name that does not exist.",
        ),
    }
}

/// What is to be done about code that raises.
fn repair(code: &str, class: &str) -> String {
    let inside = |from: char, to: char| {
        let start = code.find(from).map_or(0, |at| at + 1);
        let end = code[start..].find(to).map_or(code.len(), |at| start + at);
        &code[start..end]
    };
    match class {
        "TypeError" if code.contains("sum(") => "Leave out the values that are None.".to_owned(),
        "TypeError" => format!("Turn {} into a number with int().", inside('(', ' ')),
        "IndexError" => {
            let item: usize = inside('[', ']').parse().unwrap_or(1);
            format!("Item {item} has the index {}.", item.saturating_sub(1))
        }
        "KeyError" => format!("Write the key {} in lower case.", inside('"', '"')),
        _ => "Read the error and change the code.".to_owned(),
    }
}

/// What Python says of these lines.
fn traceback(code: &str, class: &str, dice: &mut Dice) -> String {
    let inner = code.strip_prefix("print(").and_then(|code| code.strip_suffix(')')).unwrap_or(code);
    let why = match class {
        "TypeError" if inner.contains("sum(") => {
            "unsupported operand type(s) for +: 'int' and 'NoneType'".to_owned()
        }
        "TypeError" => "can only concatenate str (not \"int\") to str".to_owned(),
        "IndexError" => "list index out of range".to_owned(),
        "KeyError" => format!("'{}'", inner.split('"').nth(1).unwrap_or_default()),
        "ValueError" => "invalid literal for int() with base 10".to_owned(),
        "AttributeError" => "'list' object has no attribute 'length'".to_owned(),
        "NameError" => format!("name '{inner}' is not defined"),
        _ => "invalid value".to_owned(),
    };
    // The part that is marked: a call, an index, or all of a sum.
    let part = match class {
        "TypeError" if inner.contains("sum(") => inner.find(')').map_or(inner, |end| &inner[..=end]),
        "IndexError" | "KeyError" => inner.find(']').map_or(inner, |end| &inner[..=end]),
        _ => inner,
    };
    let marks: String = match (class, part.find(['[', '+'])) {
        ("IndexError" | "KeyError", Some(at)) => "~".repeat(at) + &"^".repeat(part.len() - at),
        ("TypeError", Some(at)) if !part.contains('(') => {
            "~".repeat(at) + "^" + &"~".repeat(part.len().saturating_sub(at + 1))
        }
        _ => "^".repeat(part.len()),
    };
    let indent = " ".repeat(4 + code.find(part).unwrap_or(0));
    let marked = if dice.chance(0.8) { format!("{indent}{marks}\n") } else { String::new() };
    format!(
        "Traceback (most recent call last):\n  File \"<code>\", line 1, in <module>\n    {code}\n{marked}{class}: {why}"
    )
}

/// A task in a shell.
fn typed(split: Split, slips: bool, dice: &mut Dice) -> Episode {
    let family = terminal_families::Family::ALL[dice.index(3)];
    let knobs = terminal_families::Knobs {
        files: (2, 5),
        depth: 1 + dice.index(2),
        operations: (1, 2),
        lines: (3, 6),
        folders: (2, 3),
        kinds: Kinds::Own,
    };
    let task = terminal_families::task(family, split, SEEDS | dice.seed() >> 6, &knobs);
    let mut steps = Vec::new();
    let slip = slips.then(|| dice.index(task.plan.len()));
    for (at, command) in task.plan.iter().enumerate() {
        if slip == Some(at) {
            steps.push(typing_slip(command, dice));
        }
        let result = shown(&task.start, command);
        match command.strip_prefix("cat ") {
            Some(path) if dice.chance(0.2) => {
                steps.push(Step::new("read_file", &[("path", json!(path))], result))
            }
            _ => steps.push(Step::new("bash", &[("command", json!(command))], result)),
        }
    }
    let ending = dice.pick(&["Done.", "Done.", "It is done.", "That is done.", "Finished."]).to_owned();
    Episode { opening: messages(task.opening()), tools: functions(terminal::tools()), steps, ending }
}

/// What a command of a plan shows.
pub(super) fn shown(start: &terminal::tree::Tree, command: &str) -> String {
    let entries = |folder: &str| {
        let inside = start.paths().filter_map(|path| path.strip_prefix(folder)?.strip_prefix('/'));
        let names: Vec<&str> = inside.filter(|name| !name.contains('/')).collect();
        names.join("\n")
    };
    let text = match command.split_once(' ') {
        Some(("cat", path)) => match start.get(path) {
            Some(terminal::tree::Node::File(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        },
        Some(("ls", folders)) => {
            let mut folders: Vec<&str> = folders.split(' ').collect();
            folders.sort_unstable();
            match folders.as_slice() {
                [folder] => entries(folder),
                folders => {
                    let listed: Vec<String> =
                        folders.iter().map(|folder| format!("{folder}:\n{}", entries(folder))).collect();
                    listed.join("\n\n")
                }
            }
        }
        _ => String::new(),
    };
    let text = text.trim_end();
    if text.is_empty() { "[no output]".to_owned() } else { text.to_owned() }
}

fn typing_slip(command: &str, dice: &mut Dice) -> Step {
    let bash = |command: &str, result: String| {
        let lesson = match result.as_str() {
            "/workspace" => "Do what was asked.".to_owned(),
            _ => format!(
                "There is no {}: copy the names letter by letter.",
                command.split(' ').nth(1).unwrap_or("file")
            ),
        };
        Step::new("bash", &[("command", json!(command))], result).wrong(lesson)
    };
    let paths: Vec<&str> = command.split(' ').skip(1).filter(|part| part.contains(['/', '.'])).collect();
    let path = paths.first().copied().unwrap_or("notes.txt");
    // A letter that is not there, or one too many.
    let mut off = path.to_owned();
    let at = dice.index(off.len().max(1));
    if off.is_char_boundary(at) && off.len() > 3 {
        off.remove(at);
    }
    match dice.index(4) {
        0 => bash(&format!("cat {off}"), format!("cat: {off}: No such file or directory\n[exit code 1]")),
        1 => bash(
            &format!("ls {off}"),
            format!("ls: cannot access '{off}': No such file or directory\n[exit code 2]"),
        ),
        2 => {
            let to = paths.get(1).copied().unwrap_or("/tmp");
            bash(
                &format!("mv {off} {to}"),
                format!("mv: cannot stat '{off}': No such file or directory\n[exit code 1]"),
            )
        }
        _ => bash("pwd", "/workspace".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn episodes_are_whole_and_their_slips_are_not_learnt() {
        let mut dice = Dice::new(1);
        let (mut slipped, mut steps) = (0, 0);
        for _ in 0..600 {
            let slips = dice.chance(0.5);
            let made = Episode::new(Split::Train, slips, &mut dice);
            let wrong = made.steps.iter().filter(|step| step.is_wrong).count();
            assert!(wrong <= 1 && made.steps.len() > wrong, "{made:?}");
            assert!(made.steps.iter().all(|step| !step.result.is_empty()), "{made:?}");
            slipped += wrong;
            steps += made.steps.len();
            let (all, trained) = (made.steps.len(), made.steps.len() - wrong);
            let prompt = made.judged(0);
            let document = made.document(&mut dice);
            // Fewer where a hint spares a failure.
            assert!(document.trained.len() <= trained + 1);
            assert!(document.messages.iter().filter(|message| message["role"] == "tool").count() <= all);
            assert!(prompt.starts_with("[judge]"));
        }
        assert!(slipped > 200 && steps > 900, "{slipped} {steps}");
    }

    #[test]
    fn tracebacks_are_those_of_python() {
        let mut dice = Dice::new(3);
        let text = std::iter::repeat_with(|| traceback("print(lupa[\"Bino\"] + 5)", "KeyError", &mut dice));
        let marked = text.take(20).find(|text| text.contains('^')).expect("most are marked");
        assert!(
            marked.ends_with("    print(lupa[\"Bino\"] + 5)\n          ~~~~^^^^^^^^\nKeyError: 'Bino'"),
            "{marked}"
        );
    }
}
