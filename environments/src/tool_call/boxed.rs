//! The final answer of a reply: its last `\boxed{..}`. Pass the policy's own text alone: what a tool printed may
//! hold a box too.
use super::math;

/// How a boxed answer is compared with the label of its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnswerRule {
    /// The published rule: the last 100 of the last 300 characters, and the same text as the label to the letter.
    Published,
    /// The last box of the whole reply, and the same value ([`math::equal`]).
    #[default]
    SameValue,
}

/// How a reply answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// What was in the box; `None` if there is none.
    pub given: Option<String>,
    /// Whether it is the label.
    pub correct: bool,
}

/// Checks the answer of `reply` by `rule`.
pub fn answered(reply: &str, label: &str, rule: AnswerRule) -> Answered {
    let given = match rule {
        AnswerRule::Published => last_boxed(last_chars(last_chars(reply, 300), 100)),
        AnswerRule::SameValue => last_boxed(reply),
    };
    let correct = given.is_some_and(|given| match rule {
        AnswerRule::Published => given == label,
        AnswerRule::SameValue => math::equal(label, given),
    });
    Answered { given: given.map(str::to_owned), correct }
}

/// The content of the last `\boxed{..}`; nothing if there is none or its braces do not close. `\{` and `\}` are
/// signs, not braces.
pub fn last_boxed(text: &str) -> Option<&str> {
    let open = text.rfind("\\boxed{")? + "\\boxed{".len();
    let (mut depth, mut escaped) = (1usize, false);
    for (at, byte) in text.bytes().enumerate().skip(open) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(&text[open..at]);
                }
            }
            _ => {}
        }
    }
    None
}

fn last_chars(text: &str, count: usize) -> &str {
    match text.char_indices().rev().nth(count.saturating_sub(1)) {
        Some((at, _)) => &text[at..],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_box_counts_with_its_braces() {
        assert_eq!(last_boxed(r"so \boxed{1} or \boxed{\frac{1}{2}}."), Some(r"\frac{1}{2}"));
        assert_eq!(last_boxed(r"\boxed{\{1,2\}}"), Some(r"\{1,2\}"));
        assert_eq!(last_boxed(r"\boxed{\left\{ x }"), Some(r"\left\{ x "));
        assert_eq!(last_boxed(r"\boxed{}"), Some(""));
        assert_eq!(last_boxed(r"\boxed{1"), None);
        assert_eq!(last_boxed(r"\boxed{1} \boxed{2"), None);
        assert_eq!(last_boxed("boxed{1}"), None);
    }

    #[test]
    fn the_published_rule_sees_a_hundred_characters_and_letters_alone() {
        let published = |reply: &str| answered(reply, "12", AnswerRule::Published).correct;
        assert!(published(r"Answer: \boxed{12}"));
        assert!(!published(r"Answer: \boxed{12.0}"));
        assert!(!published(r"Answer: \boxed{ 12}"));
        // `\boxed{12}` is ten characters.
        assert!(published(&format!("\\boxed{{12}}{}", "é".repeat(90))));
        assert!(!published(&format!("\\boxed{{12}}{}", "é".repeat(91))));
    }

    #[test]
    fn the_default_rule_compares_values_of_the_whole_reply() {
        let reply = format!("\\boxed{{12.0}}{}", " ".repeat(1000));
        assert!(answered(&reply, "12", AnswerRule::default()).correct);
        let none = Answered { given: None, correct: false };
        assert_eq!(answered("12", "12", AnswerRule::default()), none);
    }

    proptest! {
        #[test]
        fn any_text_has_a_box_or_none(text in r"(\\boxed\{|\{|\}|\\|é|1|\PC){0,40}") {
            if let Some(inside) = last_boxed(&text) {
                let boxed = format!("\\boxed{{{inside}}}");
                prop_assert!(text.contains(&boxed));
            }
            answered(&text, "1", AnswerRule::Published);
            answered(&text, "1", AnswerRule::SameValue);
        }
    }
}
