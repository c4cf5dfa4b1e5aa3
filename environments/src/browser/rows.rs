//! Tasks of pages by their URLs, each with an evaluator of the page as it is at the end.
use std::{
    fs,
    path::{Component, Path},
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{devtools::CallError, page::Page};
use crate::world::{Verdict, WorldError};

/// The longest file.
const FILE_BYTES: u64 = 64 << 20;

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RowTask {
    /// Names it.
    pub(super) id: String,
    /// Where it begins: a path below `pages`, or a whole URL.
    url: String,
    /// What the agent is told.
    pub(super) instruction: String,
    evaluate: Evaluate,
}

/// How a page is evaluated.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Value")]
enum Evaluate {
    /// JavaScript with a value: true or false, or a share from 0 to 1.
    Expression(String),
    /// Regular expressions of JavaScript, for the URL and for the text that can be read.
    Match {
        url: Option<String>,
        text: Option<String>,
    },
    Wrong(String),
}

impl From<Value> for Evaluate {
    fn from(value: Value) -> Self {
        if let Value::String(expression) = value {
            return Self::Expression(expression);
        }
        let Some(object) = value.as_object() else {
            return Self::Wrong("is neither a text nor an object".to_owned());
        };
        if let Some(key) = object.keys().find(|key| !["url_match", "text_match"].contains(&key.as_str())) {
            return Self::Wrong(format!("has {key}, which is not one of url_match, text_match"));
        }
        let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
        match (text("url_match"), text("text_match")) {
            (None, None) => Self::Wrong("has neither url_match nor text_match as a text".to_owned()),
            (url, text) => Self::Match { url, text },
        }
    }
}

/// All rows of a file; what is wrong in one is named by its line.
pub(super) fn read(key: &str, file: &Path, pages: Option<&Path>) -> Result<Vec<RowTask>, WorldError> {
    let refuse = |why: String| WorldError::Settings(format!("{key}: {}: {why}", file.display()));
    let length = fs::metadata(file).map_err(|error| refuse(error.to_string()))?.len();
    if length > FILE_BYTES {
        return Err(refuse(format!("has {length} bytes, more than {FILE_BYTES}")));
    }
    let text = fs::read_to_string(file).map_err(|error| refuse(error.to_string()))?;
    let mut rows: Vec<RowTask> = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |why: String| refuse(format!("line {}: {why}", number + 1));
        let row: RowTask = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
        row.check(pages).map_err(wrong)?;
        if rows.iter().any(|other| other.id == row.id) {
            return Err(wrong(format!("id: {} is there already", row.id)));
        }
        rows.push(row);
    }
    if rows.is_empty() { Err(refuse("has no rows".to_owned())) } else { Ok(rows) }
}

impl RowTask {
    fn check(&self, pages: Option<&Path>) -> Result<(), String> {
        if let Evaluate::Wrong(why) = &self.evaluate {
            return Err(format!("evaluate: {why}"));
        }
        if self.id.is_empty() {
            return Err("id: is empty".to_owned());
        }
        if self.url.contains("://") || self.url.starts_with("data:") {
            let local = ["data:", "file:///pages/"].iter().any(|start| self.url.starts_with(start));
            return if local {
                Ok(())
            } else {
                Err(format!("url: {} is on a network, which no page has", self.url))
            };
        }
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        let Some(pages) = pages else { return Err("url: is a path, which needs pages".to_owned()) };
        let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        match inside && pages.join(path).is_file() {
            true => Ok(()),
            false => Err(format!("url: there is no file {path} in pages")),
        }
    }

    /// Begins.
    pub(super) fn begin(&self, page: &mut Page) -> Result<(), WorldError> {
        match self.url.contains("://") || self.url.starts_with("data:") {
            true => page.go(&self.url),
            false => page.go(&format!("file:///pages/{}", self.url)),
        }
    }

    /// The share that is done, from 0 to 1. An evaluator that breaks tells nothing.
    pub(super) fn share(&self, page: &mut Page) -> Result<f64, WorldError> {
        let invalid = |why: String| WorldError::Invalid(format!("the evaluator of {}: {why}", self.id));
        let value = match page.value(&self.expression()) {
            Ok(value) => value,
            Err(CallError::Said(why)) => return Err(invalid(why)),
            Err(CallError::World(error)) => return Err(error),
        };
        let share = value.as_f64().or(value.as_bool().map(|right| f64::from(u8::from(right))));
        match share.filter(|share| (0.0..=1.0).contains(share)) {
            Some(share) => Ok(share),
            None => Err(invalid(format!("{value} is neither true nor false nor from 0 to 1"))),
        }
    }

    fn expression(&self) -> String {
        match &self.evaluate {
            Evaluate::Expression(expression) => expression.clone(),
            Evaluate::Match { url, text } => {
                let test = |pattern: &Option<String>, of: &str| match pattern {
                    Some(pattern) => format!("new RegExp({}).test({of})", json!(pattern)),
                    None => "true".to_owned(),
                };
                let text = test(text, "document.body ? document.body.innerText : ''");
                format!("{} && {text}", test(url, "location.href"))
            }
            Evaluate::Wrong(_) => "null".to_owned(),
        }
    }

    /// How it came out.
    pub(super) fn verdict(&self, page: &mut Page) -> Result<Verdict, WorldError> {
        let share = self.share(page)?;
        let numbers = [("rate".to_owned(), share)].into();
        Ok(Verdict { reward: (2.0 * share - 1.0) as f32, success: share >= 1.0, numbers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_in_a_row_is_named_by_its_line() {
        let dir = tempfile::tempdir().expect("a folder");
        let (file, pages) = (dir.path().join("rows.jsonl"), dir.path().join("pages"));
        fs::create_dir(&pages).expect("a folder");
        fs::write(pages.join("a.html"), "").expect("a file");
        let with = |lines: &[Value], pages: Option<&Path>| {
            let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
            fs::write(&file, lines.join("\n\n")).expect("it is written");
            read("rows", &file, pages).map(|rows| rows.len()).map_err(|error| error.to_string())
        };
        let row = |id: &str, url: &str, evaluate: Value| json!({"id": id, "url": url, "instruction": "Do.", "evaluate": evaluate});
        let good = || row("a", "a.html?x=1#y", json!("true"));
        assert_eq!(
            with(&[good(), row("b", "data:text/html,x", json!({"text_match": "x"}))], Some(&pages)),
            Ok(2)
        );
        for (lines, why) in [
            (vec![], "has no rows"),
            (vec![good(), good()], "line 3: id: a is there already"),
            (vec![row("", "a.html", json!("1"))], "line 1: id: is empty"),
            (vec![row("a", "b.html", json!("1"))], "url: there is no file b.html"),
            (vec![row("a", "../rows.jsonl", json!("1"))], "url: there is no file ../rows.jsonl"),
            (vec![row("a", "https://example.com/", json!("1"))], "is on a network, which no page has"),
            (vec![row("a", "file:///etc/passwd", json!("1"))], "is on a network"),
            (vec![row("a", "a.html", json!(1))], "evaluate: is neither a text nor an object"),
            (vec![row("a", "a.html", json!({"url": "x"}))], "evaluate: has url, which is not one of"),
            (vec![row("a", "a.html", json!({}))], "evaluate: has neither"),
            (vec![json!({"id": "a", "url": "a.html"})], "missing field `instruction`"),
        ] {
            let said = with(&lines, Some(&pages)).expect_err("it is refused");
            assert!(said.starts_with("rows: ") && said.contains(why), "{why}: {said}");
        }
        assert!(with(&[good()], None).is_err_and(|said| said.contains("needs pages")));
    }
}
