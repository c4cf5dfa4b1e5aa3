//! The experiment's results as files: every run as JSON, a table, and a plot.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use super::{
    super::chart::{Chart, put},
    Run, UserResult,
};

/// Writes `runs.json`, `table.md` and `sessions.svg` into `dir`.
pub fn write(dir: &Path, runs: &[Run]) -> anyhow::Result<()> {
    put(dir, "runs.json", serde_json::to_string_pretty(runs)? + "\n")?;
    put(dir, "table.md", table(runs))?;
    put(dir, "sessions.svg", plot(runs))
}

/// Methods in the order they were run, each with its runs.
fn by_method(runs: &[Run]) -> Vec<(&str, Vec<&Run>)> {
    let mut groups: Vec<(&str, Vec<&Run>)> = Vec::new();
    for run in runs {
        match groups.iter_mut().find(|(method, _)| *method == run.method) {
            Some((_, group)) => group.push(run),
            None => groups.push((&run.method, vec![run])),
        }
    }
    groups
}

/// Sessions a user needed; one that gave up counts as all it had.
fn needed(run: &Run, result: &UserResult) -> f64 {
    result.sessions.unwrap_or(run.max_sessions) as f64
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Mean sessions over the users of one run.
fn run_mean(run: &Run) -> f64 {
    mean(&run.users.iter().map(|result| needed(run, result)).collect::<Vec<_>>())
}

/// One line per method.
pub fn table(runs: &[Run]) -> String {
    let users: Vec<&str> =
        runs.first().map_or(Vec::new(), |run| run.users.iter().map(|r| r.user.as_str()).collect());
    let mut text = String::from("| method |");
    for user in &users {
        write!(text, " {user} |").expect("a string takes everything");
    }
    text.push_str(" mean (range) | correct before | correct after | tokens before | tokens after | entropy before | entropy after | steps |\n|---|");
    text.push_str(&"---|".repeat(users.len() + 8));
    text.push('\n');
    for (method, group) in by_method(runs) {
        write!(text, "| {method} |").expect("a string takes everything");
        for i in 0..users.len() {
            let sessions: Vec<f64> = group.iter().map(|run| needed(run, &run.users[i])).collect();
            let gave_up = group.iter().filter(|run| run.users[i].sessions.is_none()).count();
            let mark = if gave_up > 0 { format!(" ({gave_up} gave up)") } else { String::new() };
            write!(text, " {:.1}{mark} |", mean(&sessions)).expect("a string takes everything");
        }
        let means: Vec<f64> = group.iter().map(|run| run_mean(run)).collect();
        let (low, high) = range(&means);
        let of = |value: fn(&UserResult) -> f64| {
            mean(&group.iter().flat_map(|run| run.users.iter().map(value)).collect::<Vec<_>>())
        };
        let steps = mean(&group.iter().map(|run| run.steps as f64).collect::<Vec<_>>());
        writeln!(
            text,
            " {:.1} ({low:.1} to {high:.1}) | {:.2} | {:.2} | {:.0} | {:.0} | {:.3} | {:.3} | {steps:.0} |",
            mean(&means),
            of(|r| r.before.correct),
            of(|r| r.after.correct),
            of(|r| r.before.tokens),
            of(|r| r.after.tokens),
            of(|r| r.before.entropy),
            of(|r| r.after.entropy),
        )
        .expect("a string takes everything");
    }
    text
}

fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)))
}

/// Sessions needed, a dot per seed and user, a bar per method's mean.
fn plot(runs: &[Run]) -> String {
    const LEFT: f64 = 120.0;
    const COLOURS: [&str; 3] = ["#2166ac", "#b2182b", "#4d9221"];
    let groups = by_method(runs);
    let most = runs.iter().map(|run| run.max_sessions).max().unwrap_or(72).max(1) as f64;
    let mut chart = Chart::new(groups.len(), 44.0, LEFT, most);
    chart.axis("sessions until three satisfied first replies in a row", 6, 0);
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, result) in runs.first().map_or(&[][..], |run| &run.users[..]).iter().enumerate() {
        names.insert(&result.user, i);
        let at = LEFT + 130.0 * i as f64;
        let colour = COLOURS[i % COLOURS.len()];
        chart.line(format!("<circle cx=\"{at}\" cy=\"18\" r=\"5\" fill=\"{colour}\"/>"));
        chart.line(format!("<text x=\"{}\" y=\"22\">{}</text>", at + 10.0, result.user));
    }
    for (i, (method, group)) in groups.iter().enumerate() {
        let middle = chart.row(i, method);
        let sessions = mean(&group.iter().map(|run| run_mean(run)).collect::<Vec<_>>());
        chart.bar(sessions, middle, 16.0, "black");
        for run in group {
            for result in &run.users {
                let user = names[result.user.as_str()];
                let y = middle + 9.0 * (user as f64 - 1.0);
                chart.dot(needed(run, result), y, COLOURS[user % COLOURS.len()], result.sessions.is_some());
            }
        }
    }
    chart.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::personalization::Sampled;

    fn run(method: &str, seed: u64, sessions: [Option<usize>; 2]) -> Run {
        let sampled = |correct| Sampled { correct, tokens: 10.0, ..Sampled::default() };
        let users = ["student", "ta"].iter().zip(sessions).map(|(user, sessions)| UserResult {
            user: (*user).to_owned(),
            sessions,
            before: sampled(0.5),
            after: sampled(0.25),
        });
        Run { method: method.to_owned(), seed, max_sessions: 72, users: users.collect(), steps: 4, secs: 1.0 }
    }

    #[test]
    fn a_user_that_gave_up_counts_as_all_its_sessions_and_is_marked() {
        let runs =
            [run("a", 1, [Some(10), None]), run("a", 2, [Some(20), Some(8)]), run("b", 1, [None, None])];
        let table = table(&runs);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert!(
            rows[0].starts_with("| a | 15.0 | 40.0 (1 gave up) | 27.5 (14.0 to 41.0) | 0.50 | 0.25 |"),
            "{table}"
        );
        assert!(
            rows[1].starts_with("| b | 72.0 (1 gave up) | 72.0 (1 gave up) | 72.0 (72.0 to 72.0) |"),
            "{table}"
        );
        let columns = |line: &str| line.matches('|').count();
        assert!(table.lines().all(|line| columns(line) == columns(rows[0])), "{table}");
        let svg = plot(&runs);
        // Two of the legend, six of the runs.
        assert_eq!(svg.matches("<circle").count(), 8);
        assert_eq!(svg.matches("fill=\"white\" stroke").count(), 3);
    }
}
