//! What is left of `experiment agents`: every run as JSON, a table, and a plot.

use std::{fmt::Write, fs, path::Path};

use anyhow::Context;

use super::{METHODS, Place, Run};

/// Writes `runs.json`, `table.md` and `success.svg` into `dir`.
pub(super) fn write(dir: &Path, runs: &[Run]) -> anyhow::Result<()> {
    let put = |name: &str, text: String| {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    put("runs.json", serde_json::to_string_pretty(runs)? + "\n")?;
    put("table.md", table(runs))?;
    put("success.svg", plot(runs))
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
    const ROW: f64 = 48.0;
    let (left, top, width) = (150.0, 40.0, 530.0);
    let rows = compared(runs);
    let bottom = top + ROW * rows.len() as f64;
    let height = bottom + 50.0;
    let x = |share: f64| left + width * share;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 {height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"720\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let mut line = |text: String| {
        svg.push_str(&text);
        svg.push('\n');
    };
    for tenth in 0..=10 {
        let at = x(f64::from(tenth) / 10.0);
        line(format!("<line x1=\"{at}\" y1=\"{top}\" x2=\"{at}\" y2=\"{bottom}\" stroke=\"#ddd\"/>"));
        line(format!(
            "<text x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{:.1}</text>",
            bottom + 16.0,
            f64::from(tenth) / 10.0
        ));
    }
    line(format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">share of held-out tasks done: hollow before, full after, a bar at the mean</text>",
        left + width / 2.0,
        bottom + 36.0
    ));
    for (row, (place, method, of)) in rows.iter().enumerate() {
        let middle = top + ROW * (row as f64 + 0.5);
        line(format!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{place}, {method}</text>",
            left - 12.0,
            middle + 4.0
        ));
        for (at, colour) in [(mean(of, |run| run.before), "#999"), (mean(of, |run| run.after), "black")] {
            let at = x(at);
            line(format!(
                "<line x1=\"{at:.1}\" y1=\"{}\" x2=\"{at:.1}\" y2=\"{}\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                middle - 18.0,
                middle + 18.0
            ));
        }
        for (seed, run) in of.iter().enumerate() {
            let y = middle + 10.0 * (seed as f64 - (of.len() - 1) as f64 / 2.0);
            let (before, after) = (x(run.before), x(run.after));
            line(format!(
                "<line x1=\"{before:.1}\" y1=\"{y:.1}\" x2=\"{after:.1}\" y2=\"{y:.1}\" stroke=\"#2166ac\"/>"
            ));
            for (at, fill) in [(before, "white"), (after, "#2166ac")] {
                line(format!(
                    "<circle cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{fill}\" stroke=\"#2166ac\"/>"
                ));
            }
        }
    }
    svg.push_str("</svg>\n");
    svg
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
