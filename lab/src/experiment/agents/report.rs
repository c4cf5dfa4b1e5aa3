//! What is left of `experiment agents`: every run as JSON, a table, and a plot.

use std::{fmt::Write, path::Path};

use super::{
    super::chart::{Chart, put},
    METHODS, Place, Run,
};

/// Writes `runs.json`, `table.md` and `success.svg` into `dir`.
pub(super) fn write(dir: &Path, runs: &[Run]) -> anyhow::Result<()> {
    put(dir, "runs.json", serde_json::to_string_pretty(runs)? + "\n")?;
    put(dir, "table.md", table(runs))?;
    put(dir, "success.svg", plot(runs))
}

/// Splits and methods that were run, each with its runs.
fn compared(runs: &[Run]) -> Vec<(&'static str, &'static str, Vec<&Run>)> {
    let all = Place::ALL.iter().flat_map(|place| METHODS.map(|method| (place.name(), method)));
    let of = |(place, method)| {
        let of: Vec<&Run> = runs.iter().filter(|run| run.place == place && run.method == method).collect();
        (place, method, of)
    };
    all.map(of).filter(|(.., of)| !of.is_empty()).collect()
}

fn mean(runs: &[&Run], value: fn(&Run) -> f64) -> f64 {
    runs.iter().map(|run| value(run)).sum::<f64>() / runs.len().max(1) as f64
}

/// A line per split and method, over the seeds.
pub(super) fn table(runs: &[Run]) -> String {
    let mut text = String::from(
        "| split | method | held out before | after, each seed | after | in training, first eighth | last eighth | steps |\n|---|---|---|---|---|---|---|---|\n",
    );
    for (place, method, of) in compared(runs) {
        let each: Vec<String> = of.iter().map(|run| format!("{:.2}", run.after)).collect();
        writeln!(
            text,
            "| {place} | {method} | {:.2} | {} | {:.2} | {:.2} | {:.2} | {:.0} |",
            mean(&of, |run| run.before),
            each.join(" "),
            mean(&of, |run| run.after),
            mean(&of, |run| run.first),
            mean(&of, |run| run.last),
            mean(&of, |run| run.steps as f64),
        )
        .expect("a string takes everything");
    }
    text
}

/// Held-out success: for each seed a line from before (hollow) to after (full), and a bar at the mean of each.
fn plot(runs: &[Run]) -> String {
    const COLOUR: &str = "#2166ac";
    let rows = compared(runs);
    let mut chart = Chart::new(rows.len(), 48.0, 150.0, 1.0);
    chart.axis("share of held-out tasks done: hollow before, full after, a bar at the mean", 10, 1);
    for (row, (place, method, of)) in rows.iter().enumerate() {
        let middle = chart.row(row, &format!("{place}, {method}"));
        chart.bar(mean(of, |run| run.before), middle, 18.0, "#999");
        chart.bar(mean(of, |run| run.after), middle, 18.0, "black");
        for (seed, run) in of.iter().enumerate() {
            let y = middle + 10.0 * (seed as f64 - (of.len() - 1) as f64 / 2.0);
            let (before, after) = (chart.x(run.before), chart.x(run.after));
            chart.line(format!(
                "<line x1=\"{before:.1}\" y1=\"{y:.1}\" x2=\"{after:.1}\" y2=\"{y:.1}\" stroke=\"{COLOUR}\"/>"
            ));
            chart.dot(run.before, y, COLOUR, false);
            chart.dot(run.after, y, COLOUR, true);
        }
    }
    chart.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_split_and_method() {
        let run = |method: &str, after| Run {
            place: "terminal",
            method: method.to_owned(),
            seed: 17,
            before: 0.1,
            after,
            first: 0.2,
            last: 0.4,
            steps: 9,
        };
        let runs = [run("grpo", 0.25), run("grpo", 0.75), run("combine", 0.5)];
        let table = table(&runs);
        assert!(table.contains("| terminal | grpo | 0.10 | 0.25 0.75 | 0.50 | 0.20 | 0.40 | 9 |"), "{table}");
        assert_eq!(table.lines().count(), 4);
        let svg = plot(&runs);
        assert_eq!((svg.matches("<circle").count(), svg.matches("terminal, ").count()), (6, 2));
    }
}
