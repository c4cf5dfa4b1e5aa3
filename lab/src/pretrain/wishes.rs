//! Wishes about how to answer, in the words of people, and how to tell whether a hint says the same.
use super::rules as style;
use openclaw_environments::{dice::Dice, persona::Split};
use std::sync::LazyLock;

/// One of these words is in every hint that says what a wish of the rule did. Where the rule has none, the hint has to have
/// what the wish names.
const MARKS: [(&str, &[&str]); 29] = [
    ("answer_first", &["first", "front", "start", "before", "begin", "top", "lead"]),
    ("at_most_words", &["word"]),
    ("bullets", &["bullet", "list", "point", "item"]),
    ("call_me", &[]),
    ("capitals", &["capital", "caps", "upper", "block", "large", "big"]),
    ("emoji_end", &["emoji", "smil", "face", "heart", "star"]),
    ("end_with", &[]),
    ("exclaim", &["exclam", "!"]),
    (
        "greeting",
        &[
            "hello",
            "hi ",
            "hi.",
            "hey",
            "greet",
            "good morning",
            "good day",
            "welcome",
            "good evening",
            "hiya",
        ],
    ),
    ("hedge", &["think", "sure", "certain", "perhaps", "maybe", "probably", "doubt", "hedge"]),
    ("label", &["answer:", "label"]),
    ("lower_case", &["lower", "small", "no caps", "shift"]),
    ("no_commas", &["comma"]),
    ("no_digits", &["digit", "numeral", "figure", "in words", "spell"]),
    ("number_words", &["words", "spell", "letters"]),
    ("offer", &["help", "anything else", "offer", "more", "let me know"]),
    ("one_sentence", &["one sentence", "single sentence", "1 sentence", "one-sentence"]),
    ("one_word", &["one word", "single word", "1 word", "a word", "the word"]),
    ("own_line", &["line"]),
    ("plain", &["plain", "bold", "list", "bullet", "markdown", "format", "star", "heading", "box", "symbol"]),
    ("polite", &["please", "polite"]),
    ("question_form", &["question", "?", "asking"]),
    ("quotes", &["quot"]),
    ("reason", &["reason", "why", "because", "explain"]),
    ("repeat_question", &["question"]),
    ("start_with", &[]),
    ("steps", &["step", "order", "procedure", "number"]),
    ("thanks_end", &["thank"]),
    ("two_sentences", &["two sentences", "2 sentences", "two-sentence"]),
];

/// How a wish is voiced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// By what was bad.
    Complaint,
    /// By what is to be done now.
    Request,
    /// By what is to be done from now on.
    Standing,
}

impl Mood {
    pub(crate) const ALL: [Self; 3] = [Self::Complaint, Self::Request, Self::Standing];

    fn of(name: &str) -> Self {
        match name {
            "complaint" => Self::Complaint,
            "standing" => Self::Standing,
            _ => Self::Request,
        }
    }
}

/// A wish as it is said.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) rule: &'static str,
    pub(crate) text: String,
    /// What the hint writer is to say; none of the wishes that measure has one.
    pub(crate) hint: Option<String>,
    /// What it names.
    pub(crate) named: String,
}

/// A line of a file.
struct Row {
    rule: &'static str,
    mood: Mood,
    text: &'static str,
    hint: &'static str,
}

static TRAIN: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let row = |line: &'static str| {
        let mut columns = line.split('\t');
        let mut column = || columns.next().expect("the file has its columns");
        Row { rule: column(), mood: Mood::of(column()), text: column(), hint: column() }
    };
    include_str!("texts/wishes.tsv").lines().filter(|line| !line.is_empty()).map(row).collect()
});

static HELD_OUT: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let row = |line: &'static str| {
        let (rule, text) = line.split_once('\t').expect("the file has its columns");
        Row { rule, mood: Mood::Request, text, hint: "" }
    };
    include_str!("held_out/wishes.tsv").lines().filter(|line| !line.is_empty()).map(row).collect()
});

/// Rules that wishes of a split are about.
pub(crate) fn rules(split: Split) -> Vec<&'static str> {
    let mut rules: Vec<&str> = rows(split).iter().map(|row| row.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

fn rows(split: Split) -> &'static [Row] {
    match split {
        Split::Train => &TRAIN,
        Split::HeldOut => &HELD_OUT,
    }
}

/// A wish of a rule, or of any that may be trained on.
pub(crate) fn any(split: Split, rule: Option<&str>, dice: &mut Dice) -> Wish {
    draw(split, dice, |row| rule.map_or_else(|| style::is_trained(row.rule), |rule| rule == row.rule))
}

/// A wish of a rule that is trained on, in one of these moods.
pub(crate) fn in_mood(rule: &str, moods: &[Mood], dice: &mut Dice) -> Wish {
    draw(Split::Train, dice, |row| row.rule == rule && moods.contains(&row.mood))
}

/// The rules of the wishes of the author who measures.
pub(crate) fn measured() -> impl Iterator<Item = &'static str> {
    let rules: std::collections::BTreeSet<_> = rows(Split::HeldOut).iter().map(|row| row.rule).collect();
    rules.into_iter().filter(|rule| super::rules::named(rule).is_some())
}

/// Whether wishes of a rule name something: a word, a number, a name.
pub(crate) fn names_something(rule: &str) -> bool {
    rows(Split::HeldOut).iter().any(|row| row.rule == rule && row.text.contains('{'))
}

/// A wish of a rule that names this, in the words of the author who measures.
pub(crate) fn naming(rule: &str, named: &str, dice: &mut Dice) -> String {
    let of: Vec<&Row> = rows(Split::HeldOut).iter().filter(|row| row.rule == rule).collect();
    of[dice.index(of.len())].naming(named).text
}

fn draw(split: Split, dice: &mut Dice, fits: impl Fn(&Row) -> bool) -> Wish {
    let of: Vec<&Row> = rows(split).iter().filter(|row| fits(row)).collect();
    let row = of[dice.index(of.len())];
    let named = match (row.text.contains("{n}"), row.text.contains("{name}")) {
        (true, _) => dice.between(2, 15).to_string(),
        (_, true) => word(dice, true),
        _ => word(dice, false),
    };
    row.naming(&named)
}

impl Row {
    fn naming(&self, named: &str) -> Wish {
        let Self { rule, text, hint, .. } = self;
        let filled =
            |text: &str| text.replace("{n}", named).replace("{name}", named).replace("{word}", named);
        Wish {
            rule,
            text: filled(text),
            hint: (!hint.is_empty()).then(|| filled(hint)),
            named: named.to_owned(),
        }
    }
}

/// Of letters, so that it is copied and not known.
pub(crate) fn word(dice: &mut Dice, capital: bool) -> String {
    const BEGIN: [&str; 14] = ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z"];
    const MIDDLE: [&str; 8] = ["a", "e", "i", "o", "u", "ai", "ea", "oo"];
    let syllables = dice.between(2, 3);
    let mut word = String::new();
    for _ in 0..syllables {
        word.push_str(dice.pick(&BEGIN));
        word.push_str(dice.pick(&MIDDLE));
    }
    if dice.chance(0.5) {
        word.push_str(dice.pick(&BEGIN));
    }
    if capital { word[..1].to_uppercase() + &word[1..] } else { word }
}

/// Whether a hint says what a wish of this rule does, which names `named`.
pub(crate) fn is_said(rule: &str, named: &str, hint: &str) -> bool {
    let hint = hint.to_lowercase();
    let marks = MARKS.iter().find(|(of, _)| *of == rule).map_or(&[][..], |(_, marks)| marks);
    match rule {
        "at_most_words" => {
            hint.contains("word") && hint.split(|c: char| !c.is_alphanumeric()).any(|word| word == named)
        }
        _ if marks.is_empty() => hint.contains(&named.to_lowercase()),
        _ => marks.iter().any(|mark| hint.contains(mark)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_written_hints_are_read_as_what_they_say() {
        let mut dice = Dice::new(1);
        let rules = rules(Split::HeldOut);
        assert_eq!(rules.len(), MARKS.len());
        let mut wrong = Vec::new();
        for rule in rules {
            let (mut said, mut others) = (0, 0);
            for _ in 0..200 {
                let wish = any(Split::Train, Some(rule), &mut dice);
                said += usize::from(is_said(rule, &wish.named, wish.hint.as_deref().expect("a hint")));
                let other = any(Split::Train, None, &mut dice);
                let hint = other.hint.as_deref().expect("a hint");
                others += usize::from(other.rule != rule && is_said(rule, &wish.named, hint));
                assert!(!any(Split::HeldOut, Some(rule), &mut dice).text.contains('{'));
            }
            if said < 100 || others > 60 {
                wrong.push(format!("{rule}: {said} of its own, {others} of others"));
            }
        }
        assert_eq!(wrong, Vec::<String>::new());
    }
}
