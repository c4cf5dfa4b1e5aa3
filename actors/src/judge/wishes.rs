//! What a person wished for is remembered: it stands for that person, and a teacher is shown it with every reply, also with
//! those that nobody complained about.

use std::collections::BTreeSet;

use openclaw_journal::WishRow;

use crate::{prompts, teacher::MOST_HINT_CHARS};

/// Words by which somebody says that a wish is to stand.
const STANDING: [&str; 22] = [
    "always",
    "never",
    "from now on",
    "in future",
    "in the future",
    "every time",
    "every answer",
    "every reply",
    "every message",
    "each answer",
    "each reply",
    "each time",
    "all answers",
    "all your answers",
    "all replies",
    "any more",
    "anymore",
    "whenever",
    "henceforth",
    "as a rule",
    "for good",
    "by default",
];

/// Words of replies and of wishes about style alike: a wish that has them is not about one answer's matter.
const OF_STYLE: [&str; 26] = [
    "answer",
    "answers",
    "answered",
    "solution",
    "result",
    "results",
    "reply",
    "replies",
    "step",
    "steps",
    "word",
    "words",
    "number",
    "numbers",
    "line",
    "lines",
    "list",
    "question",
    "sentence",
    "sentences",
    "text",
    "please",
    "thank",
    "thanks",
    "hello",
    "grading",
];

/// What is to stand of what was said of a reply. `explicit` are words that a person gave as such; `hint` is what a hint
/// writer made of `said`, which stands only where it was said so. What is about the matter of the one answer never does.
pub fn lasting<'a>(
    explicit: Option<&'a str>,
    hint: Option<&'a str>,
    said: &str,
    task: &str,
    answer: &str,
) -> Option<&'a str> {
    let wish = match explicit {
        Some(words) => words,
        None => hint.filter(|_| is_standing(said))?,
    };
    let matter: BTreeSet<String> = words(task).chain(words(answer)).collect();
    let is_about_it = words(wish).any(|word| matter.contains(&word));
    (!is_about_it && wish.split_whitespace().count() > 1).then_some(wish)
}

fn is_standing(said: &str) -> bool {
    let said = format!(" {} ", said.to_lowercase().replace(|c: char| !c.is_alphanumeric(), " "));
    STANDING.iter().any(|mark| said.contains(&format!(" {mark} ")))
}

/// Words that tell what something is about.
fn words(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
    words.filter(|word| word.chars().count() >= 4 && !OF_STYLE.contains(&word.as_str()))
}

/// Each hint with all that stands before it; what stands alone where there is no hint.
pub(super) fn with_standing(hints: Vec<String>, standing: &[WishRow]) -> Vec<String> {
    if standing.is_empty() {
        return hints;
    }
    let all = standing.iter().map(|wish| wish.text.trim()).collect::<Vec<_>>().join(" ");
    let joined = |hint: String| {
        let is_said = standing.iter().any(|wish| wish.text.trim() == hint.trim());
        prompts::middle_out(&if is_said { all.clone() } else { format!("{all} {hint}") }, MOST_HINT_CHARS)
    };
    match hints.is_empty() {
        true => vec![prompts::middle_out(&all, MOST_HINT_CHARS)],
        false => hints.into_iter().map(joined).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use openclaw_journal::TurnId;

    use super::*;

    #[test]
    fn what_is_about_one_answer_does_not_stand() {
        let (task, answer) = ("Tom has 12 apples and gets 7 more. How many?", "**Answer:** 19 apples");
        let of = |explicit, hint, said| lasting(explicit, hint, said, task, answer);
        assert_eq!(of(Some("no bold text please"), None, ""), Some("no bold text please"));
        assert_eq!(of(Some("It is about apples, not pears"), None, ""), None);
        assert_eq!(of(Some("wrong"), None, ""), None);
        let hint = Some("Use no bold text.");
        assert_eq!(of(None, hint, "From now on no bold, please."), hint);
        assert_eq!(of(None, hint, "No bold, please."), None);
        assert_eq!(of(None, None, "Never do that."), None);
        assert_eq!(of(None, hint, "I nevertheless like it"), None);
    }

    #[test]
    fn what_stands_goes_before_each_hint() {
        let standing: Vec<WishRow> = ["Be brief.", "No bold."]
            .map(|text| WishRow {
                wish: 1,
                person: 0,
                text: text.into(),
                turn: TurnId("t".into()),
                when: SystemTime::UNIX_EPOCH,
            })
            .into();
        assert_eq!(with_standing(Vec::new(), &standing), ["Be brief. No bold."]);
        let hints = vec!["No bold.".to_owned(), "Greet me.".to_owned()];
        assert_eq!(
            with_standing(hints.clone(), &standing),
            ["Be brief. No bold.", "Be brief. No bold. Greet me."]
        );
        assert_eq!(with_standing(hints.clone(), &[]), hints);
    }
}
