//! What satisfies whom: the yardstick of the experiment.
use super::Persona;

/// Fewest response tokens that the TA accepts: more than a plain answer of the embedded model ever has, fewer
/// than a thorough one always has.
pub const TA_MIN_TOKENS: usize = 60;

/// What the teacher counts as a warm phrase, in lower case.
pub const WARM_PHRASES: [&str; 10] = [
    "great job",
    "great work",
    "great effort",
    "well done",
    "nice work",
    "nice effort",
    "good effort",
    "good work",
    "keep it up",
    "proud of you",
];

impl Persona {
    /// Whether `reply`, made of `response_tokens` tokens, keeps this persona's rule.
    ///
    /// The student's rule has no upper length: a thorough answer in natural words satisfies it too, and a
    /// style that spills over from the TA shows in the recorded reply length instead. It does ask for working
    /// (an equation), so that bare numbers cannot pass.
    pub fn satisfied(self, reply: &str, response_tokens: usize) -> bool {
        match self {
            Self::Student => !looks_machine_written(reply) && has_equation(reply),
            Self::Ta => response_tokens >= TA_MIN_TOKENS,
            Self::Teacher => {
                let reply = reply.to_lowercase();
                WARM_PHRASES.iter().any(|phrase| reply.contains(phrase))
            }
        }
    }
}

fn looks_machine_written(reply: &str) -> bool {
    reply.contains("**")
        || reply.contains("\\boxed")
        || reply.lines().map(str::trim_start).any(|line| line.starts_with('#') || starts_list_item(line))
}

/// `1.`, `1)`, `-`, `*` or `•` and a space.
fn starts_list_item(line: &str) -> bool {
    let after_number = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbered = after_number.len() < line.len();
    let marks: &[&str] = if numbered { &[". ", ") "] } else { &["- ", "* ", "• "] };
    marks.iter().any(|mark| after_number.starts_with(mark))
}

/// A digit, `=` and a digit, with nothing but spaces between.
fn has_equation(reply: &str) -> bool {
    reply.match_indices('=').any(|(at, _)| {
        reply[..at].trim_end().ends_with(|c: char| c.is_ascii_digit())
            && reply[at + 1..].trim_start().starts_with(|c: char| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_student_sees_lists_boxes_and_bold() {
        let plain = "We have 3 + 4 = 7, so it is 7.";
        assert!(Persona::Student.satisfied(plain, 20));
        for machine in [
            "**Answer** 3 + 4 = 7",
            "1. 3 + 4 = 7",
            "Steps:\n  2) 3 + 4 = 7",
            "3 + 4 = 7, \\boxed{7}",
            "# Answer\n3 + 4 = 7",
            "- 3 + 4 = 7",
            "It is 7.",
            "",
            "x = 7",
        ] {
            assert!(!Persona::Student.satisfied(machine, 20), "{machine:?}");
        }
    }

    #[test]
    fn the_ta_counts_tokens_and_the_teacher_looks_for_warmth() {
        assert!(!Persona::Ta.satisfied("text", TA_MIN_TOKENS - 1));
        assert!(Persona::Ta.satisfied("text", TA_MIN_TOKENS));
        assert!(Persona::Teacher.satisfied("WELL DONE! It is correct.", 9));
        assert!(!Persona::Teacher.satisfied("It is correct.", 9));
    }
}
