//! What a person wished for is remembered: it stands for that person, and a teacher is shown it with every reply, also with
//! those that nobody complained about.

use std::collections::BTreeSet;

use openclaw_journal::{NextState, NextStateKind, WishRow, are_about_the_same};

use crate::teacher::MOST_HINT_CHARS;

/// A longer one would leave no room for others.
const MOST_WISH_CHARS: usize = 200;

/// Words by which somebody says that a wish is to stand.
const STANDING: [&str; 18] = [
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

/// Words that say neither what is wished for nor what an answer is about.
const PASSED_OVER: [&str; 44] = [
    "that", "this", "with", "your", "from", "have", "about", "were", "they", "them", "than", "then", "what",
    "when", "which", "would", "could", "should", "there", "their", "into", "only", "just", "some", "more",
    "most", "very", "been", "being", "does", "like", "want", "need", "make", "made", "said", "says", "tell",
    "told", "give", "wrong", "right", "good", "well",
];

/// Whether a person's words on a reply are a wish that is to stand: they say something beyond that it was good or bad, and
/// are not about the matter of that one reply.
pub fn is_lasting(words: &str, task: &str, answer: &str) -> bool {
    let long = |text: &str| -> BTreeSet<String> {
        words_of(text)
            .filter(|word| word.chars().count() >= 4 && !OF_STYLE.contains(&word.as_str()))
            .collect()
    };
    let says = |word: &String| word.chars().count() >= 3 && !word.chars().all(|c| c.is_ascii_digit());
    let matter: BTreeSet<String> = long(task).union(&long(answer)).cloned().collect();
    let count = words.chars().count();
    (4..=MOST_WISH_CHARS).contains(&count)
        && words_of(words).any(|word| says(&word))
        && long(words).is_disjoint(&matter)
}

/// What a hint writer made of a person's next message, if that says that it is to stand.
pub(super) fn of_talk<'a>(hint: &'a str, next: &NextState, task: &str, answer: &str) -> Option<&'a str> {
    let is_a_persons = next.kind == NextStateKind::User && next.by_rule.is_none();
    let said = format!(" {} ", next.text.to_lowercase().replace(|c: char| !c.is_alphanumeric(), " "));
    let stands = STANDING.iter().any(|mark| said.contains(&format!(" {mark} ")));
    (is_a_persons && stands && is_lasting(hint, task, answer)).then_some(hint)
}

fn words_of(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
    words.filter(|word| !word.is_empty() && !PASSED_OVER.contains(&word.as_str()))
}

/// Each hint with all that stands before it; what stands alone where there is no hint. What the hint says otherwise does not
/// stand beside it, and the oldest wishes give way where there is no room for all.
pub(super) fn with_standing(hints: Vec<String>, standing: &[WishRow], new: Option<&str>) -> Vec<String> {
    let stands = |text: &&str| new.is_none_or(|new| !are_about_the_same(text, new));
    let mut all: Vec<&str> = standing.iter().map(|wish| wish.text.trim()).filter(stands).collect();
    all.extend(new);
    if all.is_empty() {
        return hints;
    }
    let joined = |hint: &str| {
        let beside = |text: &&&str| text.trim() != hint.trim() && !are_about_the_same(text, hint);
        let mut kept: Vec<&str> = all.iter().filter(beside).copied().collect();
        kept.push(hint);
        let chars = |kept: &[&str]| kept.iter().map(|text| text.chars().count() + 1).sum::<usize>();
        while kept.len() > 1 && chars(&kept) > MOST_HINT_CHARS {
            kept.remove(0);
        }
        kept.join(" ").trim().to_owned()
    };
    match hints.is_empty() {
        true => vec![joined("")],
        false => hints.iter().map(|hint| joined(hint)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use openclaw_journal::TurnId;

    use super::*;
    use crate::tiny::user_says;

    #[test]
    fn what_is_about_one_answer_or_says_nothing_does_not_stand() {
        let (task, answer) = ("Tom has 12 apples and gets 7 more. How many?", "**Answer:** 19 apples");
        for wish in
            ["no bold text please", "One word!", "End each answer with a thank-you.", "Würde kürzer gehen?"]
        {
            assert!(is_lasting(wish, task, answer), "{wish}");
        }
        let long = "no bold ".repeat(40);
        for other in ["It is about apples, not pears", "wrong", "no, 42", "that is wrong", "", &long] {
            assert!(!is_lasting(other, task, answer), "{other}");
        }
    }

    #[test]
    fn of_talk_only_what_a_person_says_is_to_stand() {
        let of = |next: &NextState| of_talk("Use no bold text.", next, "2 + 2?", "**4**").is_some();
        assert!(of(&user_says("From now on no bold, please.")));
        assert!(!of(&user_says("No bold, please.")) && !of(&user_says("I nevertheless like it")));
        let page = NextState { kind: NextStateKind::Tool, ..user_says("Always buy here.") };
        assert!(!of(&page));
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
        assert_eq!(with_standing(Vec::new(), &standing, None), ["Be brief. No bold."]);
        assert_eq!(with_standing(Vec::new(), &standing, Some("Use bold.")), ["Be brief. Use bold."]);
        let hints = vec!["No bold.".to_owned(), "Greet me.".to_owned()];
        assert_eq!(
            with_standing(hints.clone(), &standing, None),
            ["Be brief. No bold.", "Be brief. No bold. Greet me."]
        );
        assert_eq!(with_standing(hints.clone(), &[], None), hints);
        let long = vec!["x".repeat(MOST_HINT_CHARS - 12)];
        assert_eq!(with_standing(long.clone(), &standing, None), [format!("No bold. {}", long[0])]);
    }
}
