//! What the models of a topology are, and whether they can be opened.

use openclaw_model::Inspection;

use super::{Line, Mark};
use crate::topology::{Topology, inspected};

/// A line for each model, or one for each thing that is wrong with it; and its warnings.
pub fn lines(topology: &Topology) -> Vec<Line> {
    let mut lines = Vec::new();
    for (name, model) in &topology.models {
        let what = format!("models.{name}");
        match inspected(model) {
            Ok(found) => {
                lines
                    .push(Line::ok(what.clone(), format!("{}: {}", model.path.display(), described(&found))));
                let warnings = found.warnings.into_iter();
                lines.extend(warnings.map(|warning| Line::new(Mark::Warn, what.clone(), warning)));
            }
            Err(wrong) => lines.extend(wrong.into_iter().map(|wrong| Line::fail(what.clone(), wrong))),
        }
    }
    lines
}

/// What a checkpoint is, on one line.
pub(crate) fn described(found: &Inspection) -> String {
    format!(
        "{}, {} parameters in {}, {} tokens, context {}{}",
        found.config.family.traits().model_type,
        count(found.parameters),
        found.dtypes.join(" and "),
        found.tokens,
        found.config.max_positions,
        if found.tools { ", tools" } else { ", no tools in its template" },
    )
}

/// `840`, `2.9 M`, `596 M`, `1.7 B`.
fn count(number: usize) -> String {
    let number = number as f64;
    match number {
        ..1e3 => format!("{number:.0}"),
        ..1e6 => format!("{:.0} k", number / 1e3),
        ..1e7 => format!("{:.1} M", number / 1e6),
        ..1e9 => format!("{:.0} M", number / 1e6),
        _ => format!("{:.1} B", number / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_short() {
        let counts = [840, 12_000, 2_900_000, 596_000_000, 1_700_000_000].map(count);
        assert_eq!(counts, ["840", "12 k", "2.9 M", "596 M", "1.7 B"]);
    }
}
