//! What is offered beside the tools of servers.

use super::families::TOOL;
use crate::world::Tool;

/// The code tool.
pub(super) fn interpreter() -> Tool {
    let about = "Runs Python code and returns what it prints. Each call starts anew; files stay.";
    Tool::of_texts(TOOL, about, &[("code", "")])
}

/// A tool that is offered and never needed; None if there is no such one.
pub(super) fn decoy(name: &str) -> Option<Tool> {
    let (about, arguments): (&str, &[(&str, &str)]) = match name {
        "search" => ("Searches the web", &[("query", "")]),
        "calendar" => ("Looks up the appointments of a day", &[("date", "")]),
        "translate" => ("Translates a text", &[("text", ""), ("language", "")]),
        "weather" => ("Tells the weather of a place", &[("place", "")]),
        _ => return None,
    };
    Some(Tool::of_texts(name, about, arguments))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool_call::families::{Family, Knobs, task};
    use crate::world::Split;

    #[test]
    fn whatever_a_family_offers_is_known() {
        let knobs = Knobs { decoy_tools: 4, ..Knobs::default() };
        let offered = task(Family::Expression, Split::Train, 1, &knobs).tools;
        assert_eq!(offered.len(), 5);
        for name in offered {
            assert!(name == TOOL || decoy(name).is_some_and(|tool| tool.name == name), "{name}");
        }
    }
}
