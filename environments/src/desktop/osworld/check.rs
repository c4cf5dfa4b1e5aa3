//! How a task is judged: steps before the verdict, and rules on what is found.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Getter, Got, Machine, Metric, Step, TaskError, task::list, wrong};

/// How a task is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// It cannot be done: who says so has done it, and nobody else.
    pub infeasible: bool,
    /// Done before anything is looked at.
    pub postconfig: Vec<Step>,
    /// What has to hold.
    pub rules: Vec<Rule>,
    /// How they are one.
    pub conj: Conj,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What is compared.
    pub metric: Metric,
    /// What is looked at.
    pub result: Getter,
    /// With what; none where the metric needs nothing.
    pub expected: Option<Getter>,
    /// Of the metric.
    pub options: Map<String, Value>,
}

/// How rules are one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conj {
    /// All have to hold in part; then their mean.
    #[default]
    And,
    /// The best of them.
    Or,
}

impl Check {
    /// Reads `evaluator`. What cannot be had here is among `missing`, and its rule is left out.
    pub(super) fn read(
        table: &Map<String, Value>,
        machine: &Machine,
        missing: &mut BTreeSet<String>,
    ) -> Result<Self, TaskError> {
        let functions = each(table.get("func"));
        let names: Option<Vec<&str>> = functions.iter().map(|name| name.as_str()).collect();
        let names =
            names.filter(|names| !names.is_empty()).ok_or_else(|| wrong("func", "a name or names"))?;
        let conj = match table.get("conj").and_then(Value::as_str) {
            None | Some("and") => Conj::And,
            Some("or") => Conj::Or,
            Some(_) => return Err(wrong("conj", "\"and\" or \"or\"")),
        };
        if names == ["infeasible"] {
            // Nothing is looked at, and what is done before changes nothing.
            return Ok(Self { infeasible: true, postconfig: Vec::new(), rules: Vec::new(), conj });
        }
        let mut postconfig = Vec::new();
        for step in list(table, "postconfig")? {
            postconfig.extend(Step::read(step, machine, missing)?);
        }
        let count = names.len();
        let fitting = |key: &str| {
            let values = each(table.get(key));
            let fits = values.is_empty() || values.len() == count;
            fits.then_some(values).ok_or_else(|| wrong(key, "as many as func"))
        };
        let (results, expected, options) = (fitting("result")?, fitting("expected")?, fitting("options")?);
        let mut rules = Vec::new();
        for (at, name) in names.into_iter().enumerate() {
            let result = results.get(at).ok_or_else(|| wrong("result", "there"))?;
            let result = Getter::read(result, machine, missing)?;
            let other =
                expected.get(at).filter(|value| value.as_object().is_some_and(|table| !table.is_empty()));
            let has_other = other.is_some();
            let other = other.map(|value| Getter::read(value, machine, missing)).transpose()?.flatten();
            let Some(metric) = Metric::named(name) else {
                missing.insert(format!("metric:{name}"));
                continue;
            };
            if let Some(Getter::Rule(rules)) = &other
                && metric.check(rules).is_err()
            {
                missing.insert(format!("metric:{name} with these rules"));
                continue;
            }
            let options =
                options.get(at).and_then(|options| options.as_object()).cloned().unwrap_or_default();
            // Of a getter that is not there it has been said what is missing.
            if let (Some(result), true) = (result, !has_other || other.is_some()) {
                rules.push(Rule { metric, result, expected: other, options });
            }
        }
        Ok(Self { infeasible: false, postconfig, rules, conj })
    }

    /// Whether the programs of the desktop have to run for it.
    pub fn is_live(&self) -> bool {
        let live = |rule: &Rule| rule.result.is_live() || rule.expected.as_ref().is_some_and(Getter::is_live);
        !self.postconfig.is_empty() || self.rules.iter().any(live)
    }

    /// From 0 to 1, by what `get` finds.
    pub fn score<E>(&self, mut get: impl FnMut(&Getter) -> Result<Got, E>) -> Result<f64, E> {
        let mut scores = Vec::new();
        for rule in &self.rules {
            let result = get(&rule.result)?;
            let expected = rule.expected.as_ref().map_or(Ok(Got::Nothing), &mut get)?;
            let score = rule.metric.score(&result, &expected, &rule.options).clamp(0.0, 1.0);
            match self.conj {
                Conj::And if score == 0.0 => return Ok(0.0),
                Conj::Or if score == 1.0 => return Ok(1.0),
                _ => scores.push(score),
            }
        }
        Ok(match self.conj {
            Conj::And => scores.iter().sum::<f64>() / scores.len().max(1) as f64,
            Conj::Or => scores.into_iter().fold(0.0, f64::max),
        })
    }
}

/// The entries of a list, or the one value; none of nothing.
fn each(value: Option<&Value>) -> Vec<&Value> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(values)) => values.iter().collect(),
        Some(value) => vec![value],
    }
}
