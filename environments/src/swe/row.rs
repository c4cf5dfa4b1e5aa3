//! One task as data sets of this kind publish it: SWE-bench, SWE-Gym, SWE-smith, SWE-bench-Live and R2E-Gym as one superset of
//! fields, and the rows that [`make`](super::make) writes.
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

use super::{lists, log::Parser, patch::Protected, report::EvalType};

/// A task.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Names it within its set.
    pub id: String,
    /// The project, as the set names it.
    pub repo: String,
    /// The commit that the agent begins with, where the row tells it.
    pub base_commit: Option<String>,
    /// What the agent is told.
    pub problem: String,
    /// What resolves it; empty where the row does not tell.
    pub patch: String,
    /// The patch makes the bug: undone, it resolves the row.
    pub makes_bug: bool,
    /// Brings the tests that judge it; empty where they are there.
    pub test_patch: String,
    /// Tests that fail at first and must pass.
    pub fail_to_pass: Vec<String>,
    /// Tests that pass at first and must still.
    pub pass_to_pass: Vec<String>,
    /// Which outcome of a test counts.
    pub eval_type: EvalType,
    /// Where its repository is.
    pub start: Start,
    /// How its tests are run.
    pub check: Check,
    /// What was done to make the bug, of a row that was made here.
    pub mutation: Option<String>,
}

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// An archive or a folder of this machine, relative to the file of the row until it is read from there.
    Local(PathBuf),
    /// In an image of docker.
    Image(String),
    /// The row does not say.
    Unknown,
}

/// How tests are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// By pytest of this machine, in these files.
    Pytest(Vec<String>),
    /// By a script, whose output is read.
    Script {
        /// The script.
        text: String,
        /// How its output is read.
        parser: Parser,
        /// It brings the tests itself.
        brings_tests: bool,
    },
    /// Not here, for want of this.
    Lacking(String),
}

impl Row {
    /// Which files are not the agent's to change.
    pub fn protected(&self) -> Protected {
        Protected::of(self.fail_to_pass.iter().chain(&self.pass_to_pass), &self.test_patch)
    }

    /// The patch that makes the bug, and how it is applied; none where the repository has it.
    pub(super) fn bug(&self) -> Option<(&str, &'static str)> {
        if self.makes_bug {
            return Some((&self.patch, "--"));
        }
        self.mutation.as_ref().map(|_| (self.patch.as_str(), "--reverse"))
    }

    /// The row of a line; `folder` is where its file is.
    pub fn parse(line: &[u8], folder: &Path) -> Result<Self, String> {
        let root: Map<String, Value> =
            serde_json::from_slice(line).map_err(|error| format!("not a JSON object: {error}"))?;
        Fields::of(&root).row(folder)
    }
}

/// The fields of a row, which may lie within others.
struct Fields<'a> {
    root: &'a Map<String, Value>,
    instance: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn of(root: &'a Map<String, Value>) -> Self {
        let within = |map: &'a Map<String, Value>| map.get("instance").and_then(Value::as_object);
        let metadata = root.get("metadata").and_then(Value::as_object);
        let instance = within(root).or_else(|| metadata.and_then(within)).unwrap_or(root);
        Self { root, instance }
    }

    /// A field that is a text and says something.
    fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        match self.instance.get(key).or_else(|| self.root.get(key)) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok((!text.is_empty()).then_some(text.as_str())),
            Some(_) => Err(format!("key `{key}` is no text")),
        }
    }

    fn first(&self, keys: &[&str]) -> Result<Option<&'a str>, String> {
        for key in keys {
            if let Some(text) = self.text(key)? {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    fn needed(&self, keys: &[&str]) -> Result<&'a str, String> {
        self.first(keys)?.ok_or_else(|| format!("no key `{}`", keys.join("` or `")))
    }

    fn names(&self, key: &str) -> Result<Vec<String>, String> {
        let value = self.instance.get(key).unwrap_or(&Value::Null);
        lists::names(value).map_err(|why| format!("key `{key}`: {why}"))
    }

    /// What a row says of the set that it is of.
    fn set(&self) -> String {
        let metadata = self.root.get("metadata").and_then(|metadata| metadata.get("data_source"));
        let says = ["dataset_name", "data_source", "subset"].iter().filter_map(|key| self.root.get(*key));
        let says: Vec<&str> = says.chain(metadata).filter_map(Value::as_str).collect();
        says.join(" ").to_lowercase()
    }

    fn row(&self, folder: &Path) -> Result<Row, String> {
        if self.instance.contains_key("expected_output_json") {
            return self.r2e();
        }
        let id = self.needed(&["instance_id"])?.to_owned();
        let repo = self.needed(&["repo"])?.to_owned();
        let smith = repo.starts_with("swesmith/")
            || self.text("image_name")?.is_some_and(|name| name.starts_with("swesmith"));
        let fail_to_pass = self.names("FAIL_TO_PASS")?;
        if fail_to_pass.is_empty() {
            return Err("key `FAIL_TO_PASS` has no names".to_owned());
        }
        let pass_to_pass = self.names("PASS_TO_PASS")?;
        let test_patch = self.text("test_patch")?.unwrap_or_default().to_owned();
        let protected = Protected::of(fail_to_pass.iter().chain(&pass_to_pass), &test_patch);
        let start = match self.text("source")? {
            Some(source) => Start::Local(local(folder, source)?),
            None => self.image(&id, smith)?.map_or(Start::Unknown, Start::Image),
        };
        let files: Vec<String> =
            protected.files().filter(|file| file.ends_with(".py")).map(str::to_owned).collect();
        Ok(Row {
            base_commit: self.text("base_commit")?.map(str::to_owned),
            problem: self.needed(&["problem_statement", "text"])?.to_owned(),
            patch: self.text("patch")?.unwrap_or_default().to_owned(),
            makes_bug: smith,
            eval_type: self.eval_type()?,
            check: self.check(&start, files, smith, &fail_to_pass)?,
            mutation: self.text("mutation")?.map(str::to_owned),
            id,
            repo,
            test_patch,
            fail_to_pass,
            pass_to_pass,
            start,
        })
    }

    fn eval_type(&self) -> Result<EvalType, String> {
        match self.text("eval_type")? {
            None | Some("pass_and_fail") => Ok(EvalType::PassAndFail),
            Some("fail_only") => Ok(EvalType::FailOnly),
            Some(other) => Err(format!("key `eval_type` is {other:?}, not pass_and_fail or fail_only")),
        }
    }

    /// The image of a row, as its set names images.
    fn image(&self, id: &str, smith: bool) -> Result<Option<String>, String> {
        if let Some(image) = self.first(&["image", "docker_image", "image_name"])? {
            return Ok(Some(image.to_owned()));
        }
        let (set, id) = (self.set(), id.to_lowercase());
        Ok(match set.as_str() {
            _ if smith => None,
            set if set.contains("gym") => {
                Some(format!("xingyaoww/sweb.eval.x86_64.{}", id.replace("__", "_s_")))
            }
            set if set.contains("live") => {
                Some(format!("starryzhang/sweb.eval.x86_64.{}", id.replace("__", "_1776_")))
            }
            set if set.contains("bench") || self.instance.contains_key("environment_setup_commit") => {
                Some(format!("swebench/sweb.eval.x86_64.{}", id.replace("__", "_1776_")))
            }
            _ => None,
        })
    }

    fn check(
        &self,
        start: &Start,
        files: Vec<String>,
        smith: bool,
        tests: &[String],
    ) -> Result<Check, String> {
        if matches!(start, Start::Local(_)) && !self.instance.contains_key("eval_script") {
            return Ok(match files.is_empty() {
                true => Check::Lacking("names of tests with their files".to_owned()),
                false => Check::Pytest(files),
            });
        }
        let name = self.text("log_parser")?.unwrap_or_default();
        let Some(parser) = Parser::named(name) else {
            return Ok(Check::Lacking(format!("log_parser:{name}")));
        };
        let script = |text: &str, brings_tests| Check::Script { text: text.to_owned(), parser, brings_tests };
        if let Some(text) = self.text("eval_script")? {
            return Ok(script(text, text.contains("git apply")));
        }
        if let Some(text) = self.text("test_script")? {
            return Ok(script(text, false));
        }
        if self.instance.contains_key("test_cmds") {
            let commands = self.names("test_cmds")?;
            return Ok(script(&format!("cd /testbed\n{}\n", commands.join("\n")), false));
        }
        if files.is_empty() || !tests.iter().any(|name| name.contains("::")) {
            return Ok(Check::Lacking("key:eval_script".to_owned()));
        }
        let options =
            if smith { "--disable-warnings --color=no --tb=no --verbose" } else { "-rA --color=no" };
        let files: Vec<String> =
            files.iter().map(|file| format!("'{}'", file.replace('\'', r"'\''"))).collect();
        let conda = "[ ! -r /opt/miniconda3/bin/activate ] || { . /opt/miniconda3/bin/activate && conda activate testbed; }";
        Ok(script(&format!("{conda}\ncd /testbed\npytest {options} {}\n", files.join(" ")), false))
    }

    /// A row of R2E-Gym: every test that it expects to pass must.
    fn r2e(&self) -> Result<Row, String> {
        let image = self.needed(&["docker_image"])?;
        let expected = self.needed(&["expected_output_json"])?;
        let expected: Map<String, Value> = serde_json::from_str(expected)
            .map_err(|error| format!("key `expected_output_json` is no object: {error}"))?;
        let passed = expected.iter().filter(|(_, status)| *status == "PASSED");
        let pass_to_pass: Vec<String> = passed.map(|(name, _)| name.clone()).collect();
        if pass_to_pass.is_empty() {
            return Err("key `expected_output_json` has no test that passed".to_owned());
        }
        let problem = self.needed(&["problem_statement"])?;
        let text = problem.trim().trim_start_matches("[ISSUE]").trim_end_matches("[/ISSUE]").trim();
        Ok(Row {
            id: self.first(&["instance_id"])?.unwrap_or(image).to_owned(),
            repo: self.needed(&["repo_name", "repo"])?.to_owned(),
            base_commit: self.first(&["base_commit", "commit_hash"])?.map(str::to_owned),
            problem: text.to_owned(),
            patch: self.text("patch")?.unwrap_or_default().to_owned(),
            makes_bug: false,
            test_patch: String::new(),
            fail_to_pass: Vec::new(),
            pass_to_pass,
            eval_type: EvalType::PassAndFail,
            start: Start::Image(image.to_owned()),
            check: Check::Script {
                text: "cd /testbed\nbash run_tests.sh\n".to_owned(),
                parser: Parser::Short,
                brings_tests: true,
            },
            mutation: None,
        })
    }
}

/// A path beside the file of the row.
fn local(folder: &Path, source: &str) -> Result<PathBuf, String> {
    let plain = Path::new(source).components().all(|part| matches!(part, Component::Normal(_)));
    if plain {
        Ok(folder.join(source))
    } else {
        Err(format!("key `source`: {source} is not beside the rows"))
    }
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
