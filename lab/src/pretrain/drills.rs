//! Drills: numbers that are compared, words that are said again, and questions whose answer nobody told.
use super::conversations::Talk;
use super::text::{Document, DocumentKind};
use super::{values, wishes};
use openclaw_environments::{
    dice::Dice,
    persona::{Persona, Style, Task, reply},
};

pub(super) fn document(dice: &mut Dice) -> Document {
    let mut talk = Talk::new(DocumentKind::Drill, dice);
    for _ in 0..dice.between(1, 6) {
        let (said, answer) = match dice.weighted(&[(0, 0.45), (1, 0.2), (2, 0.25), (3, 0.1)]) {
            0 => compared(dice),
            1 => graded(dice),
            2 => said_again(4, dice),
            _ => unknown(dice),
        };
        talk.user(&said, dice);
        talk.assistant(&answer);
    }
    talk.finish()
}

/// Two numbers, equal half of the time, and else often alike.
pub(super) fn pair(dice: &mut Dice) -> (i64, i64) {
    let one = if dice.chance(0.6) { dice.between(1, 99) } else { dice.between(100, 999) };
    if dice.chance(0.5) {
        return (one, one);
    }
    let other = match dice.index(4) {
        0 => one + dice.between(1, 3),
        1 => (one - dice.between(1, 3)).max(0),
        2 => one.to_string().chars().rev().collect::<String>().parse().unwrap_or(one + 1),
        _ => dice.between(1, 99),
    };
    (one, if other == one { one + 10 } else { other })
}

fn compared(dice: &mut Dice) -> (String, String) {
    let (one, other) = pair(dice);
    let said = dice
        .pick(&[
            "The right result is {a}. The pupil wrote {b}. Is the pupil correct?",
            "Is {a} the same number as {b}?",
            "result {a}, pupil {b}: correct or wrong?",
            "Compare {a} and {b}.",
            "Someone says {b} where {a} is right. Is that correct?",
            "Do {a} and {b} match?",
            "It should be {a}. Here stands {b}. Right or wrong?",
            "Expected {a}, got {b}. Does that pass?",
            "My child answered {b}, and {a} was asked for. Well done?",
            "{a} is what I get, {b} is what she gets. Who is right if I am sure of mine?",
            "Check {b} against {a}.",
            "answer sheet: {a}. student: {b}. mark it",
            "The true value is {a}. Is {b} a correct answer?",
            "he put {b}, the book has {a}, ok?",
        ])
        .replace("{a}", &one.to_string())
        .replace("{b}", &other.to_string());
    let verdict = if one == other { "correct" } else { "wrong" };
    let answer = match dice.index(3) {
        0 => format!("The result is {one} and the pupil wrote {other}, so this is {verdict}."),
        1 => format!(
            "{one} and {other} {}, so it is {verdict}.",
            if one == other { "are the same" } else { "differ" }
        ),
        _ => format!("We have {one} and {other}, so the answer is {verdict}."),
    };
    (said, answer)
}

fn graded(dice: &mut Dice) -> (String, String) {
    let task = Task::new(Persona::Teacher, dice);
    let style = dice.pick(&[&Style::Plain, &Style::Machine, &Style::Warm]);
    (task.first_message(dice), reply(&task, *style, dice))
}

/// Nothing but things that are said again: from these copying is learnt first.
pub(super) fn copied(dice: &mut Dice) -> Document {
    let most = dice.between(2, 24);
    let (said, answer) = said_again(most, dice);
    Document::question(DocumentKind::Drill, said, answer)
}

fn said_again(most: i64, dice: &mut Dice) -> (String, String) {
    const KINDS: [&str; 5] = ["code", "path", "number", "date", "email"];
    let mixed = dice.chance(0.3);
    let word = |dice: &mut Dice| match mixed {
        true => values::of(dice.pick(&KINDS), dice),
        false => wishes::word(dice, false),
    };
    let words: Vec<String> = (0..dice.between(1, most)).map(|_| word(dice)).collect();
    let words = words.join(" ");
    let capital = wishes::word(dice, true);
    match dice.index(4) {
        0 => (format!("Say {words}."), format!("{words}.")),
        1 => (format!("Repeat after me: {words}"), words),
        2 => (format!("My name is {capital}. What is my name?"), format!("Your name is {capital}.")),
        _ => (format!("Remember the word {words}. Which word was it?"), format!("The word was {words}.")),
    }
}

fn unknown(dice: &mut Dice) -> (String, String) {
    let (name, other) = (wishes::word(dice, true), wishes::word(dice, false));
    let said = dice
        .pick(&[
            "Who is N?",
            "What is the capital of N?",
            "Where does N live?",
            "What does the word o mean?",
            "When was N born?",
            "How old is N?",
            "Who wrote the book N?",
            "What is the phone number of N?",
            "What did N say yesterday?",
            "How do I get from N to the o?",
            "Which colour has a o?",
            "Will it rain in N tomorrow?",
            "How much does a o cost?",
            "What time is it in N?",
            "Who won the match in N?",
        ])
        .split(' ')
        .map(|word| match word.trim_end_matches('?') {
            "N" => word.replace('N', &name),
            "o" => word.replace('o', &other),
            _ => word.to_owned(),
        })
        .collect::<Vec<_>>()
        .join(" ");
    let answer = dice.pick(&[
        "I do not know that.",
        "I do not know.",
        "I am sorry, I do not know that.",
        "That I do not know.",
    ]);
    (said, answer.to_owned())
}
