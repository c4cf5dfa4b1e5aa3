//! The rules, one by one.
use super::{
    Content, Dice, Place, Rule,
    read::{has, sentences, words},
    write::{
        after, answer_first, as_question, at_most, bracketed, labelled, listed, lower_first, one_sentence,
        one_word, two_sentences, upper_first, warm, with_reason, without_commas,
    },
};
use crate::pretrain::numerals;
use openclaw_environments::persona::Style;

fn rule(
    name: &'static str,
    place: Place,
    write: fn(&Content, String, &str, &mut Dice) -> String,
    keeps: fn(&Content, &str, &str) -> bool,
) -> Rule {
    Rule { name, trained: true, place, write, keeps }
}

/// One that is never trained on.
fn unseen(
    name: &'static str,
    place: Place,
    write: fn(&Content, String, &str, &mut Dice) -> String,
    keeps: fn(&Content, &str, &str) -> bool,
) -> Rule {
    Rule { trained: false, ..rule(name, place, write, keeps) }
}

const GREETINGS: [&str; 8] =
    ["hello", "hi", "good morning", "good day", "good evening", "greetings", "welcome", "hey"];
const SMILES: [&str; 6] = ["🙂", "😊", ":-)", "😀", ":)", ":D"];

/// All of them.
pub(super) static RULES: std::sync::LazyLock<Vec<Rule>> = std::sync::LazyLock::new(|| {
    use Place::{Around, Back, Body, Front, Letters};
    vec![
        rule(
            "plain",
            Body,
            |content, _, _, dice| content.plain(dice),
            |_, said, _| !said.contains("**") && !said.contains(['#', '\\', '`', '\n']),
        ),
        rule(
            "longer",
            Body,
            |content, _, _, dice| content.in_style(Style::Long, dice),
            |content, said, _| content.task().is_some() && said.chars().count() >= 150,
        ),
        rule(
            "warm",
            Body,
            |content, said, _, dice| warm(content, said, dice),
            |_, said, _| {
                has(
                    said,
                    &["great", "nice", "well done", "good", "proud", "keep it up", "glad", "lovely", "happy"],
                )
            },
        ),
        rule("one_word", Body, |content, _, _, dice| one_word(content, dice), |_, said, _| words(said) == 1),
        rule(
            "at_most_words",
            Body,
            |content, _, named, dice| at_most(content, named, dice),
            |_, said, named| named.parse().is_ok_and(|most: usize| (1..=most).contains(&words(said))),
        ),
        rule(
            "one_sentence",
            Body,
            |content, _, _, dice| one_sentence(content, dice),
            |_, said, _| sentences(said) == 1,
        ),
        rule(
            "two_sentences",
            Body,
            |content, _, _, dice| two_sentences(content, dice),
            |_, said, _| sentences(said) == 2,
        ),
        rule(
            "question_form",
            Body,
            |content, _, _, dice| as_question(content, dice),
            |_, said, _| said.ends_with('?'),
        ),
        rule(
            "reason",
            Body,
            |content, _, _, dice| with_reason(content, dice),
            |_, said, _| {
                let said = format!(" {} ", said.to_lowercase());
                [" because ", " since ", " as ", " reason "].iter().any(|mark| said.contains(mark))
            },
        ),
        rule(
            "bullets",
            Body,
            |content, _, _, dice| listed(content, |_| "- ".into(), dice),
            |_, said, _| {
                said.lines()
                    .filter(|line| ["- ", "* ", "• "].iter().any(|sign| line.starts_with(sign)))
                    .count()
                    >= 2
            },
        ),
        rule(
            "steps",
            Body,
            |content, _, _, dice| listed(content, |at| format!("{at}. "), dice),
            |_, said, _| said.contains("1.") && said.contains("2.") || has(said, &["first", "step 1"]),
        ),
        rule(
            "answer_first",
            Body,
            |content, _, _, dice| answer_first(content, dice),
            |content, said, _| {
                let start: String = said.chars().take(content.with_unit().len() + 18).collect();
                start.to_lowercase().contains(&content.answer.to_lowercase())
            },
        ),
        unseen(
            "label",
            Body,
            |content, _, _, _| labelled(content),
            |_, said, _| said.lines().any(|line| line.to_lowercase().starts_with("answer:")),
        ),
        unseen(
            "own_line",
            Body,
            |content, said, _, _| format!("{said}\n{}", content.answer),
            |content, said, _| {
                let last = said.lines().last().unwrap_or_default();
                said.contains('\n')
                    && words(last) <= words(&content.with_unit()) + 1
                    && last.to_lowercase().contains(&content.answer.to_lowercase())
            },
        ),
        rule(
            "greeting",
            Front,
            |_, said, _, dice| {
                let greeting =
                    dice.pick(&["Hello!", "Hi!", "Good day!", "Hi there!", "Hello there!", "Good morning!"]);
                format!("{greeting} {said}")
            },
            |_, said, _| {
                let said = said.to_lowercase();
                GREETINGS.iter().any(|greeting| said.starts_with(greeting))
            },
        ),
        rule(
            "call_me",
            Front,
            |_, said, named, dice| match dice.index(3) {
                0 => format!("{named}, {}", lower_first(&said)),
                1 => format!("Dear {named}, {}", lower_first(&said)),
                _ => format!("Here you are, {named}. {said}"),
            },
            |_, said, named| said.to_lowercase().contains(&named.to_lowercase()),
        ),
        rule(
            "start_with",
            Front,
            |_, said, named, dice| {
                let sign = dice.pick(&[".", "!", ":", ""]);
                format!("{}{sign} {said}", upper_first(named))
            },
            |_, said, named| {
                let said: String = said.to_lowercase().chars().filter(|c| !"\"'*".contains(*c)).collect();
                said.starts_with(&named.to_lowercase())
            },
        ),
        rule(
            "repeat_question",
            Front,
            |content, said, _, _| format!("{} {said}", content.question),
            |content, said, _| {
                said.to_lowercase()
                    .contains(content.question.trim_end_matches(['?', '.']).to_lowercase().as_str())
            },
        ),
        unseen(
            "hedge",
            Front,
            |_, said, _, _| format!("I think {}", lower_first(&said)),
            |_, said, _| {
                has(
                    said,
                    &["i think", "perhaps", "maybe", "probably", "not sure", "i believe", "might", "guess"],
                )
            },
        ),
        unseen(
            "polite",
            Front,
            |_, said, _, _| format!("Please note: {}", lower_first(&said)),
            |_, said, _| has(said, &["please", "kindly"]),
        ),
        rule(
            "title",
            Front,
            |_, said, named, _| format!("{}:\n{said}", upper_first(named)),
            |_, said, named| {
                said.lines().next().is_some_and(|line| {
                    line.to_lowercase().contains(&named.to_lowercase()) && words(line) <= 2
                })
            },
        ),
        rule(
            "thanks_end",
            Back,
            |_, said, _, dice| {
                after(
                    &said,
                    dice.pick(&[
                        "Thank you!",
                        "Thank you.",
                        "Thanks!",
                        "Thank you for asking!",
                        "Thanks for asking.",
                    ]),
                )
            },
            |_, said, _| {
                let tail: String = said
                    .to_lowercase()
                    .chars()
                    .rev()
                    .take(40)
                    .collect::<Vec<_>>()
                    .into_iter()
                    .rev()
                    .collect();
                tail.contains("thank")
            },
        ),
        rule(
            "end_with",
            Back,
            |_, said, named, dice| {
                after(&said, &format!("{}{}", upper_first(named), dice.pick(&[".", "!", "", "."])))
            },
            |_, said, named| {
                let said = said.to_lowercase();
                said.trim_end_matches(|c: char| !c.is_alphanumeric()).ends_with(&named.to_lowercase())
            },
        ),
        unseen(
            "offer",
            Back,
            |_, said, _, _| after(&said, "Do you need anything else?"),
            |_, said, _| {
                has(
                    said,
                    &[
                        "anything else",
                        "need more",
                        "let me know",
                        "can i help",
                        "further",
                        "any other",
                        "more help",
                    ],
                )
            },
        ),
        unseen(
            "emoji_end",
            Back,
            |_, said, _, dice| after(&said, dice.pick(&SMILES)),
            |_, said, _| {
                let last = said.chars().last();
                SMILES.iter().any(|smile| said.ends_with(smile))
                    || last.is_some_and(|c| u32::from(c) > 0x2100)
            },
        ),
        rule(
            "sign",
            Back,
            |_, said, named, dice| {
                format!("{said}\n{}{}", dice.pick(&["", "Yours, ", "- "]), upper_first(named))
            },
            |_, said, named| {
                said.lines().count() > 1
                    && said
                        .lines()
                        .last()
                        .is_some_and(|line| line.to_lowercase().contains(&named.to_lowercase()))
            },
        ),
        rule(
            "mention_word",
            Back,
            |_, said, named, dice| {
                let more = dice.pick(&[
                    "It goes well with {}.",
                    "Think of {} too.",
                    "By the way: {}.",
                    "P.S. {}.",
                    "There is also {}.",
                ]);
                after(&said, &more.replace("{}", named))
            },
            |_, said, named| said.to_lowercase().contains(&named.to_lowercase()),
        ),
        rule(
            "wish_luck",
            Back,
            |_, said, _, dice| {
                after(
                    &said,
                    dice.pick(&["Good luck!", "Good luck with it!", "All the best!", "I wish you luck."]),
                )
            },
            |_, said, _| has(said, &["luck", "all the best", "best wishes", "have a nice"]),
        ),
        rule(
            "no_final_stop",
            Letters,
            |_, said, _, _| said.trim_end_matches('.').to_owned(),
            |_, said, _| !said.is_empty() && !said.ends_with('.'),
        ),
        rule(
            "number_in_brackets",
            Letters,
            |_, said, _, _| bracketed(&said),
            |_, said, _| {
                // Nothing to do where there is no number.
                let open = |c: char| "([".contains(c);
                !said.contains(|c: char| c.is_ascii_digit())
                    || said
                        .match_indices(open)
                        .any(|(at, _)| said[at + 1..].starts_with(|c: char| c.is_ascii_digit()))
            },
        ),
        rule(
            "title_case",
            Letters,
            |_, said, _, _| said.split(' ').map(upper_first).collect::<Vec<_>>().join(" "),
            |_, said, _| {
                !said.is_empty() && said.split_whitespace().all(|word| !word.starts_with(char::is_lowercase))
            },
        ),
        rule(
            "line_per_sentence",
            Around,
            |_, said, _, _| said.replace(". ", ".\n").replace("! ", "!\n"),
            |_, said, _| said.lines().all(|line| sentences(line) <= 1) && !said.is_empty(),
        ),
        rule(
            "three_sentences",
            Body,
            |content, _, _, dice| {
                let two = two_sentences(content, dice);
                format!(
                    "{} {two}",
                    dice.pick(&["Let us see.", "Here is the answer.", "That is easy.", "Let me help."])
                )
            },
            |_, said, _| sentences(said) == 3,
        ),
        rule(
            "capitals",
            Letters,
            |_, said, _, _| said.to_uppercase(),
            |_, said, _| said.chars().any(char::is_alphabetic) && !said.chars().any(char::is_lowercase),
        ),
        unseen(
            "lower_case",
            Letters,
            |_, said, _, _| said.to_lowercase(),
            |_, said, _| !said.is_empty() && !said.chars().any(char::is_uppercase),
        ),
        unseen(
            "number_words",
            Letters,
            |_, said, _, _| numerals::in_words(&said),
            |_, said, _| !said.is_empty() && !said.contains(|c: char| c.is_ascii_digit()),
        ),
        unseen(
            "no_digits",
            Letters,
            |_, said, _, _| numerals::in_words(&said),
            |_, said, _| !said.is_empty() && !said.contains(|c: char| c.is_ascii_digit()),
        ),
        rule(
            "no_commas",
            Letters,
            |_, said, _, _| without_commas(&said),
            |_, said, _| !said.is_empty() && !said.contains(','),
        ),
        unseen(
            "exclaim",
            Letters,
            |_, said, _, _| said.replace(". ", "! ").trim_end_matches('.').to_owned() + "!",
            |_, said, _| said.contains('!'),
        ),
        unseen(
            "quotes",
            Around,
            |_, said, _, _| format!("\"{said}\""),
            |_, said, _| said.matches(['"', '“', '”', '„']).count() >= 2,
        ),
        rule(
            "brackets",
            Around,
            |_, said, _, _| format!("({said})"),
            |_, said, _| said.contains(['(', '[']) && said.contains([')', ']']),
        ),
        rule(
            "stars",
            Around,
            |_, said, _, _| format!("*** {said} ***"),
            |_, said, _| said.starts_with('*') && said.ends_with('*'),
        ),
        rule(
            "twice",
            Around,
            |_, said, _, _| format!("{said} {said}"),
            |content, said, _| {
                numerals::in_digits(&said.to_lowercase())
                    .matches(&numerals::in_digits(&content.answer.to_lowercase()))
                    .count()
                    >= 2
            },
        ),
    ]
});
