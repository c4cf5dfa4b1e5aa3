//! What a verifier's script does, read before it is run. Most do nothing but install pytest, run it on the verifier's own tests and
//! write down whether it passed, as the templates of Harbor and Terminal-Bench have it. Their first step needs a network that no
//! sandbox has; what is left is a [`Run`], and the rest is not run. Any other script is run as it is, or is refused where it
//! would fetch something.
use std::collections::BTreeSet;

use super::{
    dockerfile::{Manager, Package, fetcher, installer, is_assignment, pip},
    shell::{pieces, words},
};

/// Pytest on the verifier's own tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Options and tests; the folder of tests is `/tests`.
    pub args: Vec<String>,
    /// Where it is run, if the script says so.
    pub folder: Option<String>,
    /// Where modules are looked up, too.
    pub python_path: Vec<String>,
    /// What the script would have installed.
    pub needs: BTreeSet<Package>,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The script is pytest and nothing else.
    Pytest(Run),
    /// The script itself.
    Script,
}

/// A line that needs a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network, for line {line}: {text}")]
pub struct Fetches {
    /// Counted from 1.
    pub line: usize,
    /// As written.
    pub text: String,
}

/// Reads a script. `rewards`: it has to write a reward file.
pub fn read(text: &str, rewards: bool) -> Result<Check, Fetches> {
    let lines = lines(text);
    match Reader::read(&lines, rewards) {
        Some(run) => Ok(Check::Pytest(run)),
        None => match lines.iter().find(|(_, line)| fetches(line)) {
            Some((line, text)) => Err(Fetches { line: *line, text: text.chars().take(80).collect() }),
            None => Ok(Check::Script),
        },
    }
}

/// Lines with their numbers: continued ones joined, comments and empty ones left out.
fn lines(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let (part, goes_on) = match line.strip_suffix('\\') {
            Some(part) => (part.trim_end(), true),
            None => (line, false),
        };
        match found.last_mut().filter(|_| is_open) {
            Some((_, begun)) => *begun = format!("{begun} {part}"),
            None => found.push((at + 1, part.to_owned())),
        }
        is_open = goes_on;
    }
    found
}

/// What the script has done so far. `None` of its methods: it is no such script.
#[derive(Default)]
struct Reader {
    run: Run,
    has_run: bool,
    /// Inside an `if` about the result, whether its branch is that of a pass.
    passed: Option<bool>,
    rewards: (bool, bool),
}

impl Reader {
    fn read(lines: &[(usize, String)], rewards: bool) -> Option<Run> {
        let mut reader = Self::default();
        let mut skips = false;
        for (_, line) in lines {
            // It ends a container that was set up wrongly.
            skips |= line.starts_with("if ") && line.contains("$PWD");
            if skips {
                skips = line != "fi";
                continue;
            }
            reader.line(line)?;
        }
        let pytest = Package { manager: Manager::Pip, name: "pytest".into(), version: String::new() };
        let Self { mut run, has_run, rewards: written, .. } = reader;
        if !run.needs.iter().any(|need| need.manager == Manager::Pip && need.name == "pytest") {
            run.needs.insert(pytest);
        }
        (has_run && (!rewards || written == (true, true))).then_some(run)
    }

    fn line(&mut self, line: &str) -> Option<()> {
        // The installer of uv, which nobody needs then.
        if line.contains("astral.sh/uv") && line.starts_with("curl ") && pieces(line)?.len() == 1 {
            return Some(());
        }
        if line.starts_with("if ") {
            // All of a block may stand in one line.
            for part in line.split(';').map(str::trim).filter(|part| !part.is_empty()) {
                match part.strip_prefix("if ") {
                    Some(condition) => self.condition(condition)?,
                    None => self.command(part)?,
                }
            }
            return Some(());
        }
        for piece in pieces(line)? {
            self.command(piece.text)?;
        }
        Some(())
    }

    fn condition(&mut self, condition: &str) -> Option<()> {
        let parts = words(condition)?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            // What is missing would be installed.
            ["!", "command", "-v", ..] if !self.has_run => Some(()),
            ["[" | "[[", code, sign, "0", "]" | "]]"] if self.has_run && code.starts_with('$') => {
                self.passed = Some(match *sign {
                    "-eq" | "==" | "=" => true,
                    "-ne" | "!=" => false,
                    _ => return None,
                });
                Some(())
            }
            _ => {
                self.pytest(condition)?;
                self.passed = Some(true);
                Some(())
            }
        }
    }

    fn command(&mut self, text: &str) -> Option<()> {
        let text = match text.split_once(' ').filter(|(first, _)| ["then", "else"].contains(first)) {
            Some((first, rest)) => {
                self.command(first)?;
                rest.trim()
            }
            None => text,
        };
        let parts = words(text)?;
        let plain: Vec<&str> = parts.iter().map(String::as_str).collect();
        match plain.as_slice() {
            ["echo", score @ ("0" | "1" | "0.0" | "1.0"), rest @ ..] if is_reward(rest) => self.reward(score),
            _ if text.contains(['>', '|', '`']) || text.contains("$(") => self.pytest(text),
            ["set" | "echo" | "exit" | "true" | ":" | "then" | "fi", ..] => {
                if plain == ["fi"] {
                    self.passed = None;
                }
                Some(())
            }
            ["else"] => {
                self.passed = self.passed.map(|passed| !passed);
                Some(())
            }
            ["mkdir", "-p", folder] if folder.starts_with("/logs") => Some(()),
            ["source" | ".", file]
                if file.ends_with("/.local/bin/env") || file.ends_with("/bin/activate") =>
            {
                Some(())
            }
            ["cd", folder] if !self.has_run => {
                let folder = folder.strip_prefix("$").is_none().then(|| (*folder).to_owned())?;
                self.run.folder = Some(folder);
                Some(())
            }
            ["export", assigned] if is_assignment(assigned) => self.variable(assigned),
            [assigned] if is_assignment(assigned) => match self.has_run {
                true => assigned.ends_with("=$?").then_some(()),
                false => self.variable(assigned),
            },
            _ if self.has_run => None,
            ["uv", "init" | "venv" | "python", ..] => Some(()),
            ["uv", "add", packages @ ..] | ["uv", "pip", "install", packages @ ..] => {
                for package in packages.iter().filter(|word| !word.starts_with('-')) {
                    self.need(package)?;
                }
                Some(())
            }
            _ => match installer(&parts, &mut self.run.needs) {
                Ok(true) => {
                    // They are for what is left out.
                    let ours = ["curl", "uv", "pytest-json-ctrf", "ca-certificates"];
                    self.run.needs.retain(|need| !ours.contains(&&*need.name));
                    Some(())
                }
                _ => self.pytest(text),
            },
        }
    }

    /// Whether it passed is what is written, in either branch.
    fn reward(&mut self, score: &str) -> Option<()> {
        let says = score.starts_with('1');
        match (self.has_run, self.passed) {
            // Until it is known.
            (false, None) if !says => Some(()),
            (true, Some(passed)) if passed == says => {
                if says {
                    self.rewards.0 = true
                } else {
                    self.rewards.1 = true
                }
                Some(())
            }
            _ => None,
        }
    }

    fn variable(&mut self, assigned: &str) -> Option<()> {
        let (name, value) = assigned.split_once('=')?;
        match name {
            "PYTHONPATH" => {
                let folders = value.split(':').filter(|part| !part.is_empty() && !part.starts_with('$'));
                self.run.python_path.extend(folders.map(str::to_owned));
                Some(())
            }
            "PATH" | "DEBIAN_FRONTEND" | "PYTHONDONTWRITEBYTECODE" | "PYTHONUNBUFFERED" => Some(()),
            _ => (name.starts_with("UV_") || name.starts_with("PIP_")).then_some(()),
        }
    }

    fn need(&mut self, package: &str) -> Option<()> {
        let package = pip(package)?;
        if package.name != "pytest-json-ctrf" {
            self.run.needs.insert(package);
        }
        Some(())
    }

    /// `[NAME=value] [uv run | uvx [-p VERSION] [-w PACKAGE] | python -m] pytest ARGUMENTS`, and what keeps its code or output.
    fn pytest(&mut self, text: &str) -> Option<()> {
        let text = text.split(" | tee ").next()?.trim();
        let text = text.strip_suffix("2>&1").unwrap_or(text);
        let text = match text.split_once(" || ") {
            Some((run, after)) => (after == "true" || after.ends_with("=$?")).then_some(run)?,
            None => text,
        };
        if self.has_run || text.contains(['|', '>', '<', '&', '`', '(']) {
            return None;
        }
        let parts = words(text)?;
        let mut parts = parts.iter().map(String::as_str).peekable();
        while let Some(assigned) = parts.next_if(|word| is_assignment(word)) {
            self.variable(assigned)?;
        }
        let first = parts.next()?;
        let by_uv = match first {
            "uvx" => true,
            "uv" => parts.next() == Some("run"),
            _ => false,
        };
        let mut program = if by_uv { self.uv(&mut parts)? } else { first };
        if program == "python" || program == "python3" {
            program = parts.next().filter(|word| *word == "-m").and_then(|_| parts.next())?;
        }
        if program != "pytest" {
            return None;
        }
        self.arguments(parts)?;
        self.has_run = true;
        Some(())
    }

    /// Options of uv, up to the program.
    fn uv<'a>(&mut self, parts: &mut impl Iterator<Item = &'a str>) -> Option<&'a str> {
        loop {
            match parts.next()? {
                "-p" | "--python" => drop(parts.next()?),
                "-w" | "--with" => self.need(parts.next()?)?,
                "--no-project" | "--isolated" | "--active" | "-q" | "--quiet" => {}
                option if option.starts_with("--with=") => self.need(&option[7..])?,
                option if option.starts_with('-') => return None,
                program => return Some(program),
            }
        }
    }

    /// Those of pytest: no more than what is known to change nothing but its words, or which of the verifier's tests run.
    fn arguments<'a>(&mut self, mut parts: impl Iterator<Item = &'a str>) -> Option<()> {
        let mut has_tests = false;
        while let Some(word) = parts.next() {
            match word {
                // Its results are counted as they come, and all of them.
                "--ctrf" | "--junitxml" | "--maxfail" => drop(parts.next()?),
                "-x" | "--exitfirst" => {}
                _ if ["--ctrf=", "--junitxml=", "--maxfail="].iter().any(|known| word.starts_with(known)) => {
                }
                "-k" | "-m" | "-p" | "--tb" => {
                    let value = parts.next()?;
                    // A plugin is refused unless it is taken away.
                    (word != "-p" || value.starts_with("no:")).then_some(())?;
                    self.run.args.extend([word.to_owned(), value.to_owned()]);
                }
                "-v" | "-vv" | "-q" | "-s" | "--no-header" => self.run.args.push(word.to_owned()),
                _ if ["-r", "--tb=", "--color", "--timeout="].iter().any(|known| word.starts_with(known)) => {
                    self.run.args.push(word.to_owned());
                }
                _ => {
                    let file = word.replace("${TEST_DIR}", "/tests").replace("$TEST_DIR", "/tests");
                    let own = file == "/tests" || file.starts_with("/tests/");
                    (own && !file.contains(['$', '*']) && !file.contains("..")).then_some(())?;
                    has_tests = true;
                    self.run.args.push(file);
                }
            }
        }
        has_tests.then_some(())
    }
}

/// `> /logs/verifier/reward.txt`.
fn is_reward(words: &[&str]) -> bool {
    matches!(words, [">", "/logs/verifier/reward.txt"] | [">/logs/verifier/reward.txt"])
}

/// Whether a line would fetch something from elsewhere.
fn fetches(line: &str) -> bool {
    let line = ["if ", "! ", "then ", "else "]
        .iter()
        .fold(line, |line, word| line.strip_prefix(word).unwrap_or(line));
    let cut = line.split([';', '|', '&', '(', ')']).map(str::trim);
    cut.filter(|part| !part.is_empty()).any(|part| {
        let words = words(part).unwrap_or_else(|| part.split_whitespace().map(str::to_owned).collect());
        let start =
            words.iter().position(|word| !is_assignment(word) && word != "sudo").unwrap_or(words.len());
        let words = &words[start..];
        let here = |word: &String| {
            ["localhost", "127.0.0.1", "0.0.0.0", "[::1]"].iter().any(|host| word.contains(host))
        };
        match words.first().map(String::as_str) {
            Some("command" | "which" | "type" | "echo" | "printf") | None => false,
            Some("curl" | "wget") => !words.iter().any(here),
            Some(program) if fetcher(program).is_some() => {
                !words.iter().any(|word| word == "--version" || word == "-V")
            }
            _ => installer(words, &mut BTreeSet::new()).unwrap_or(true),
        }
    })
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
