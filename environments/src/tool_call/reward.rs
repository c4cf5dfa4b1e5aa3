//! The outcome reward of a tool-call episode, as published with OpenClaw-RL: ±1, and a wrong answer costs less
//! the more the tool was tried.

/// +1 for a correct answer, -1 for any other.
pub fn outcome(correct: bool) -> f64 {
    if correct { 1.0 } else { -1.0 }
}

/// The outcome, shaped by the number of tool calls: a negative one is `min(-0.6, -1 + (calls - 2) / 2 * 0.1)`.
///
/// A failure without a call is therefore below -1; keep it apart from ±1 step scores when both are standardised.
pub fn shaped(outcome: f64, tool_calls: usize) -> f64 {
    if outcome >= 0.0 {
        return outcome;
    }
    (-1.0 + (tool_calls as f64 - 2.0) / 2.0 * 0.1).min(-0.6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_cost_what_was_published() {
        for (calls, reward) in
            [(0, -1.10), (1, -1.05), (2, -1.00), (4, -0.90), (7, -0.75), (10, -0.60), (16, -0.60)]
        {
            assert!((shaped(outcome(false), calls) - reward).abs() < 1e-12, "{calls}");
        }
    }

    #[test]
    fn success_is_not_shaped() {
        assert_eq!(shaped(outcome(true), 0), 1.0);
        assert_eq!(shaped(outcome(true), 16), 1.0);
    }
}
