//! How a reply is written by a rule.
use super::{Content, Dice, read::words};
use openclaw_environments::persona::Style;

pub(super) fn upper_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Names keep their letters.
pub(super) fn lower_first(text: &str) -> String {
    let is_usual = ["We ", "It ", "Here ", "The ", "A ", "An ", "There ", "In "];
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if is_usual.iter().any(|word| text.starts_with(word)) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

/// Behind a reply, on a new line where it has several.
pub(super) fn after(said: &str, more: &str) -> String {
    if said.contains('\n') { format!("{said}\n{more}") } else { format!("{said} {more}") }
}

pub(super) fn warm(content: &Content, said: String, dice: &mut Dice) -> String {
    if content.task().is_some() {
        return content.in_style(Style::Warm, dice);
    }
    let praise = dice.pick(&["Great question!", "Nice question!", "Good thinking!", "Glad you ask!"]);
    format!("{praise} {said}")
}

pub(super) fn one_word(content: &Content, dice: &mut Dice) -> String {
    let word = content.answer.split_whitespace().last().unwrap_or_default();
    format!("{}{}", upper_first(word), dice.pick(&["", ".", "."]))
}

pub(super) fn at_most(content: &Content, named: &str, dice: &mut Dice) -> String {
    let most = named.parse().unwrap_or(3);
    let mut ways = vec![
        content.answer.clone(),
        content.with_unit(),
        format!("It is {}.", content.answer),
        format!("It is {}.", content.with_unit()),
        content.sentence(),
    ];
    if let Some(working) = content.working() {
        ways.push(format!("{working}."));
        ways.push(format!("{working}, so it is {}.", content.with_unit()));
    }
    ways.retain(|way| words(way) <= most);
    ways.sort_by_key(|way| words(way));
    // The fullest that still fits, mostly.
    let from = if dice.chance(0.7) { ways.len().saturating_sub(2) } else { 0 };
    let way = from + dice.index((ways.len() - from).max(1));
    ways.get(way).cloned().unwrap_or_else(|| one_word(content, dice))
}

pub(super) fn one_sentence(content: &Content, dice: &mut Dice) -> String {
    match content.working() {
        Some(working) => {
            let opening = dice.pick(&["We get", "We have", "We find"]);
            format!("{opening} {working}, so it is {}.", content.with_unit())
        }
        None => content.sentence().split_inclusive(['.', '!']).next().unwrap_or_default().to_owned(),
    }
}

pub(super) fn two_sentences(content: &Content, dice: &mut Dice) -> String {
    match content.working() {
        Some(working) => {
            let opening = dice.pick(&["We get", "We have", "We find"]);
            format!(
                "{opening} {working}. {} {}.",
                dice.pick(&["It is", "That makes", "So it is"]),
                content.with_unit()
            )
        }
        None => format!(
            "{} {}.",
            one_sentence(content, dice),
            upper_first(&format!("the answer is {}", content.answer))
        ),
    }
}

pub(super) fn as_question(content: &Content, dice: &mut Dice) -> String {
    match content.working() {
        Some(working) => format!(
            "{working}, so {} {}?",
            dice.pick(&["is it", "could it be", "would it be"]),
            content.with_unit()
        ),
        None => format!("{} {}?", dice.pick(&["Is it", "Could it be", "Would it be"]), content.answer),
    }
}

pub(super) fn with_reason(content: &Content, dice: &mut Dice) -> String {
    match content.working() {
        Some(working) if dice.chance(0.6) => format!("Because {working}, it is {}.", content.with_unit()),
        Some(working) => format!("Since we have {working}, the answer is {}.", content.with_unit()),
        None => content.sentence(),
    }
}

pub(super) fn listed(content: &Content, sign: fn(usize) -> String, dice: &mut Dice) -> String {
    let mut points: Vec<String> = match content.working() {
        Some(working) => working.split(" and then ").map(str::to_owned).collect(),
        None => vec![content.question.clone()],
    };
    points.push(format!("{} {}", dice.pick(&["answer", "result", "so it is"]), content.with_unit()));
    let lines: Vec<String> = points.iter().enumerate().map(|(at, point)| sign(at + 1) + point).collect();
    lines.join("\n")
}

pub(super) fn answer_first(content: &Content, dice: &mut Dice) -> String {
    let first = match dice.index(3) {
        0 => format!("{}.", upper_first(&content.with_unit())),
        1 => format!("It is {}.", content.with_unit()),
        _ => format!("The answer is {}.", content.answer),
    };
    match content.working() {
        // The answer comes last again, where it is looked for.
        Some(working) => format!("{first} We get {working}."),
        None => format!("{first} {}", content.sentence()),
    }
}

pub(super) fn labelled(content: &Content) -> String {
    match content.working() {
        Some(working) => format!("{working}\nAnswer: {}", content.with_unit()),
        None => format!("Answer: {}", content.answer),
    }
}

/// Every number in square brackets.
pub(super) fn bracketed(said: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in said.chars() {
        if c.is_ascii_digit() != inside {
            out.push(if inside { ']' } else { '[' });
            inside = !inside;
        }
        out.push(c);
    }
    if inside { out + "]" } else { out }
}

pub(super) fn without_commas(said: &str) -> String {
    said.replace(", so ", " and so ").replace(", and ", " and ").replace(',', "")
}
