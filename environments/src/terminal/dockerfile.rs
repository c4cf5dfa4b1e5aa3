//! The part of Dockerfiles that tasks use, to be carried out without Docker: FROM, COPY, ENV, WORKDIR and RUN.
//! Packages that a RUN line would install become needs, to be met by what the box already has; everything that
//! cannot be carried out is refused by name before anything runs.
use super::shell::{Piece, has_operators, pieces, words};
use std::collections::BTreeSet;
use std::fmt;

/// Longest file that is read, in bytes.
pub const BYTES_MAX: usize = 256 << 10;

/// Most instructions of one file.
pub const INSTRUCTIONS_MAX: usize = 1000;

/// A file of this subset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// The image that it starts from, as written.
    pub image: String,
    /// What is done on it, in order.
    pub instructions: Vec<Instruction>,
    /// What its RUN lines would have installed.
    pub needs: BTreeSet<Package>,
}

/// One instruction. `$NAME` is kept as written: its value is that of the box, changed by the ENV lines before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// From the folder of the file; a target that ends with `/` is a folder.
    Copy {
        /// Files, folders or patterns.
        sources: Vec<String>,
        /// Where they go.
        target: String,
    },
    /// Variables of everything that follows.
    Env(Vec<(String, String)>),
    /// The folder of everything that follows; made if it is not there.
    Workdir(String),
    /// Run by `sh -c`, what installs packages taken out.
    Shell(String),
    /// Run without a shell.
    Exec(Vec<String>),
}

/// A package that a task needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Who would install it.
    pub manager: Manager,
    /// In lower case, for pip with `-` for `_` and `.`.
    pub name: String,
    /// `==1.2`, as written; empty for any version.
    pub version: String,
}

/// An installer of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manager {
    /// Debian packages.
    Apt,
    /// Python packages.
    Pip,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manager = match self.manager {
            Manager::Apt => "apt",
            Manager::Pip => "pip",
        };
        write!(f, "{manager}:{}{}", self.name, self.version)
    }
}

/// What a box has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Images that it can stand for, as tasks write them.
    pub images: BTreeSet<String>,
    /// Debian packages.
    pub apt: BTreeSet<String>,
    /// Python packages, named as in [`Package`].
    pub pip: BTreeSet<String>,
}

/// What a box lacks for a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("needs {}", .0.join(", "))]
pub struct Lacking(pub Vec<String>);

/// A file that is not of this subset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Dockerfile:{line}: {fault}")]
pub struct DockerfileError {
    /// Counted from 1; the first line of an instruction.
    pub line: usize,
    /// What is wrong.
    pub fault: DockerfileFault,
}

/// Why a file is not of this subset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum DockerfileFault {
    #[error("longer than {BYTES_MAX} bytes or {INSTRUCTIONS_MAX} instructions")]
    TooLong,
    #[error("{0} is not supported")]
    Unsupported(String),
    #[error("{0} is not written right")]
    Syntax(String),
    #[error("no FROM")]
    NoFrom,
}

use DockerfileFault::{NoFrom, Syntax, TooLong, Unsupported};

impl Dockerfile {
    /// Reads a file.
    pub fn parse(text: &str) -> Result<Self, DockerfileError> {
        let at = |line, fault| DockerfileError { line, fault };
        if text.len() > BYTES_MAX {
            return Err(at(1, TooLong));
        }
        let (mut image, mut instructions, mut needs) = (None, Vec::new(), BTreeSet::new());
        for (line, instruction) in logical_lines(text).map_err(|(line, fault)| at(line, fault))? {
            if instructions.len() == INSTRUCTIONS_MAX {
                return Err(at(line, TooLong));
            }
            let (name, rest) = instruction.split_once(char::is_whitespace).unwrap_or((&instruction, ""));
            let (name, rest) = (name.to_ascii_uppercase(), rest.trim());
            if image.is_none() && name != "FROM" {
                return Err(at(line, NoFrom));
            }
            if rest.is_empty() {
                return Err(at(line, Syntax(name)));
            }
            let done = match name.as_str() {
                "FROM" if image.is_some() => Err(Unsupported("a second FROM".into())),
                "FROM" => from(rest).map(|from| image = Some(from)),
                "COPY" => copy(rest).map(|copy| instructions.push(copy)),
                "ENV" => env(rest).map(|env| instructions.push(env)),
                "WORKDIR" => workdir(rest).map(|workdir| instructions.push(workdir)),
                "RUN" => run(rest, &mut needs).map(|run| instructions.extend(run)),
                _ => Err(Unsupported(name)),
            };
            done.map_err(|fault| at(line, fault))?;
        }
        let image = image.ok_or(at(1, NoFrom))?;
        Ok(Self { image, instructions, needs })
    }

    /// Whether a box can stand for this file; all that it lacks is named. Versions are not compared.
    pub fn check(&self, offer: &Offer) -> Result<(), Lacking> {
        let image = (!offer.images.contains(&self.image)).then(|| format!("image:{}", self.image));
        let packages = self.needs.iter().filter(|package| match package.manager {
            Manager::Apt => !offer.apt.contains(&package.name),
            Manager::Pip => !offer.pip.contains(&package.name),
        });
        let lacking: Vec<String> = image.into_iter().chain(packages.map(Package::to_string)).collect();
        if lacking.is_empty() { Ok(()) } else { Err(Lacking(lacking)) }
    }
}

/// Instructions with their first line: continued lines joined, comments left out.
fn logical_lines(text: &str) -> Result<Vec<(usize, String)>, (usize, DockerfileFault)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_end();
        let comment = line.trim_start().strip_prefix('#');
        if let Some(comment) = comment {
            let directive = comment.trim().to_ascii_lowercase();
            if lines.is_empty()
                && open.is_none()
                && directive.starts_with("escape")
                && directive.contains('=')
            {
                return Err((at + 1, Unsupported("the escape directive".into())));
            }
            continue;
        }
        // An empty line does not end a continued instruction.
        if line.trim().is_empty() {
            continue;
        }
        let (number, mut instruction) = open.take().unwrap_or((at + 1, String::new()));
        match line.strip_suffix('\\') {
            Some(part) => {
                instruction.push_str(part);
                instruction.push(' ');
                open = Some((number, instruction));
            }
            None => {
                instruction.push_str(line);
                lines.push((number, instruction.trim().to_owned()));
            }
        }
    }
    match open {
        Some((number, instruction)) if instruction.trim().is_empty() => Err((number, Syntax("\\".into()))),
        Some((number, instruction)) => {
            lines.push((number, instruction.trim().to_owned()));
            Ok(lines)
        }
        None => Ok(lines),
    }
}

/// `[--platform=..] image [AS name]`.
fn from(rest: &str) -> Result<String, DockerfileFault> {
    let mut parts = rest.split_whitespace().filter(|part| !part.starts_with("--platform="));
    let image = parts.next().ok_or_else(|| Syntax("FROM".into()))?;
    if image.starts_with("--") || image.contains('$') {
        return Err(Unsupported(format!("FROM {image}")));
    }
    match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => Ok(image.to_owned()),
        (Some(word), Some(_), None) if word.eq_ignore_ascii_case("as") => Ok(image.to_owned()),
        _ => Err(Syntax("FROM".into())),
    }
}

fn copy(rest: &str) -> Result<Instruction, DockerfileFault> {
    if rest.starts_with("--") {
        let flag = rest.split(['=', ' ']).next().unwrap_or(rest);
        return Err(Unsupported(format!("COPY {flag}")));
    }
    if rest.contains("<<") {
        return Err(Unsupported("COPY with <<".into()));
    }
    let mut parts = match json_words(rest) {
        Some(parts) => parts,
        None => words(rest).ok_or_else(|| Syntax("COPY".into()))?,
    };
    let Some(target) = parts.pop().filter(|_| !parts.is_empty()) else { return Err(Syntax("COPY".into())) };
    if let Some(source) = parts.iter().find(|source| source.contains("://")) {
        return Err(Unsupported(format!("COPY {source}")));
    }
    // Docker resolves these beneath the folder; here they are refused, so that no reader has to.
    if let Some(source) = parts.iter().find(|source| source.split('/').any(|part| part == "..")) {
        return Err(Unsupported(format!("COPY {source}")));
    }
    Ok(Instruction::Copy { sources: parts, target })
}

/// `a=1 b="two words"` or the older `a the rest`.
fn env(rest: &str) -> Result<Instruction, DockerfileFault> {
    let (first, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let name_fits =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if !first.contains('=') {
        return match name_fits(first) && !after.trim().is_empty() {
            true => Ok(Instruction::Env(vec![(first.to_owned(), after.trim().to_owned())])),
            false => Err(Syntax("ENV".into())),
        };
    }
    let mut variables = Vec::new();
    for word in words(rest).ok_or_else(|| Syntax("ENV".into()))? {
        match word.split_once('=') {
            Some((name, value)) if name_fits(name) => variables.push((name.to_owned(), value.to_owned())),
            _ => return Err(Syntax("ENV".into())),
        }
    }
    Ok(Instruction::Env(variables))
}

fn workdir(rest: &str) -> Result<Instruction, DockerfileFault> {
    match words(rest).as_deref() {
        Some([path]) => Ok(Instruction::Workdir(path.clone())),
        _ => Err(Syntax("WORKDIR".into())),
    }
}

/// The line without its installers; nothing if nothing is left.
fn run(rest: &str, needs: &mut BTreeSet<Package>) -> Result<Option<Instruction>, DockerfileFault> {
    if rest.starts_with("--") {
        let flag = rest.split(['=', ' ']).next().unwrap_or(rest);
        return Err(Unsupported(format!("RUN {flag}")));
    }
    if let Some(command) = json_words(rest) {
        if command.is_empty() {
            return Err(Syntax("RUN".into()));
        }
        return match installer(&command, needs)? {
            true => Ok(None),
            false => Ok(Some(Instruction::Exec(command))),
        };
    }
    if rest.contains("<<") {
        return Err(Unsupported("RUN with <<".into()));
    }
    let (mut kept, mut after_semicolon) = (String::new(), false);
    for Piece { text, joined_by } in pieces(rest).ok_or_else(|| Syntax("RUN".into()))? {
        let parsed = words(text);
        let installs = match &parsed {
            Some(words) if !has_operators(text) => installer(words, needs)?,
            // Inside pipes and groups an installer cannot be taken out, only be seen.
            _ => match fetcher(text) {
                Some(name) => {
                    return Err(Unsupported(format!("RUN with {name} in a group, pipe or redirection")));
                }
                None => false,
            },
        };
        // A `;` before what was taken out still lets the next command run when the one before failed.
        after_semicolon |= joined_by == " ; ";
        if installs {
            continue;
        }
        if !kept.is_empty() {
            kept.push_str(if after_semicolon { " ; " } else { joined_by });
        }
        after_semicolon = false;
        kept.push_str(text);
    }
    Ok((!kept.is_empty()).then_some(Instruction::Shell(kept)))
}

/// Programs that would need a network.
const FETCHERS: [&str; 23] = [
    "apt-get",
    "apt",
    "aptitude",
    "pip",
    "pip3",
    "pipx",
    "uv",
    "uvx",
    "conda",
    "curl",
    "wget",
    "npm",
    "npx",
    "yarn",
    "pnpm",
    "gem",
    "cargo",
    "rustup",
    "apk",
    "yum",
    "dnf",
    "apt-key",
    "add-apt-repository",
];

/// The first word that names one of [`FETCHERS`].
pub(super) fn fetcher(text: &str) -> Option<&'static str> {
    let mut parts = text.split(|c: char| !(c.is_alphanumeric() || "-_./".contains(c)));
    parts.find_map(|part| {
        let name = part.rsplit('/').next().unwrap_or(part);
        FETCHERS.into_iter().find(|fetcher| *fetcher == name)
    })
}

/// Whether a command only prepares or installs packages, which are then added to `needs`; a command that would
/// fetch something else is refused.
pub(super) fn installer(command: &[String], needs: &mut BTreeSet<Package>) -> Result<bool, DockerfileFault> {
    let assigned = command.iter().take_while(|word| is_assignment(word)).count();
    let words: Vec<&str> = command[assigned..].iter().map(String::as_str).collect();
    let words = match words.as_slice() {
        ["sudo", rest @ ..] => rest,
        all => all,
    };
    let refused = |words: &[&str]| Unsupported(format!("RUN {}", words[..words.len().min(4)].join(" ")));
    match words {
        ["apt-get" | "apt", rest @ ..] => match non_flags(rest, &["-o", "-t", "-c"]).split_first() {
            Some((&("update" | "clean" | "autoclean" | "autoremove" | "upgrade"), [])) => Ok(true),
            Some((&"install", packages)) if !packages.is_empty() => {
                for package in packages {
                    needs.insert(apt(package).ok_or_else(|| refused(words))?);
                }
                Ok(true)
            }
            _ => Err(refused(words)),
        },
        ["rm", flags, path] if flags.starts_with('-') && path.starts_with("/var/lib/apt/lists") => Ok(true),
        ["pip" | "pip3", rest @ ..] | ["python" | "python3", "-m", "pip", rest @ ..] => {
            // An index, a file of requirements or a folder would have to be fetched or built.
            if rest.iter().any(|word| ["-r", "-e", "-i", "-f", "-c"].contains(word) || value_flag(word)) {
                return Err(refused(words));
            }
            match non_flags(rest, &[]).split_first() {
                Some((&"install", packages)) if !packages.is_empty() => {
                    for package in packages {
                        needs.insert(pip(package).ok_or_else(|| refused(words))?);
                    }
                    Ok(true)
                }
                Some((&"cache", _)) => Ok(true),
                _ => Err(refused(words)),
            }
        }
        ["git", "clone" | "fetch" | "pull" | "submodule", ..] | ["go", "get" | "install", ..] => {
            Err(refused(words))
        }
        [program, ..] if fetcher(program).is_some() => Err(refused(words)),
        ["sh" | "bash" | "/bin/sh" | "/bin/bash", "-c" | "-lc", script, ..] if fetcher(script).is_some() => {
            Err(refused(words))
        }
        ["python" | "python3", "-m", module, ..] if fetcher(module).is_some() => Err(refused(words)),
        _ => Ok(false),
    }
}

pub(super) fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// Long options of pip that name another source.
fn value_flag(word: &str) -> bool {
    [
        "--index-url",
        "--extra-index-url",
        "--find-links",
        "--requirement",
        "--editable",
        "--constraint",
        "--target",
    ]
    .iter()
    .any(|flag| word.starts_with(flag))
}

/// The words that are no options; `with_value` are the options whose next word belongs to them.
fn non_flags<'a>(words: &[&'a str], with_value: &[&str]) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut skip = false;
    for word in words {
        if std::mem::take(&mut skip) {
            continue;
        }
        match word.starts_with('-') {
            true => skip = with_value.contains(word),
            false => found.push(*word),
        }
    }
    found
}

fn apt(word: &str) -> Option<Package> {
    let (name, version) = match word.split_once('=') {
        Some((name, version)) => (name, format!("={version}")),
        None => (word, String::new()),
    };
    let name = name.split(':').next().unwrap_or(name).to_ascii_lowercase();
    let fits = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c));
    fits.then_some(Package { manager: Manager::Apt, name, version })
}

pub(super) fn pip(word: &str) -> Option<Package> {
    let end = word.find(['=', '<', '>', '!', '~', '[', ';', '@', ' ']).unwrap_or(word.len());
    let (name, rest) = word.split_at(end);
    let extra = if rest.starts_with('[') { rest.find(']').map(|at| at + 1)? } else { 0 };
    let version = rest[extra..].to_owned();
    let name = name.to_ascii_lowercase().replace(['_', '.'], "-");
    let fits = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !version.contains(['@', ';', '/']);
    // A file that is named like a package is none.
    let file = [".whl", ".gz", ".zip"].iter().any(|ending| word.ends_with(ending));
    (fits && !file).then_some(Package { manager: Manager::Pip, name, version })
}

/// `["a", "b"]`; anything else is not of the JSON form.
fn json_words(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') { serde_json::from_str(text).ok() } else { None }
}

#[cfg(test)]
#[path = "dockerfile_tests.rs"]
mod tests;
