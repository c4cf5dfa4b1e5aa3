//! The ways a reply can be written. The working always stands before the result or the verdict (except in
//! [`Style::Short`]): a model that answers first has nothing to copy the answer from.
use super::Task;
use crate::dice::Dice;
use serde::{Deserialize, Serialize};

/// How a reply is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// Bold headings, numbered steps and a box: what an untrained policy writes.
    Machine,
    /// A sentence or two in natural words.
    Plain,
    /// A thorough explanation.
    Long,
    /// Plain, with a warm phrase.
    Warm,
    /// The result alone.
    Short,
}

impl Style {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Machine, Self::Plain, Self::Long, Self::Warm, Self::Short];
}

/// A correct reply to `task` in `style`.
pub fn reply(task: &Task, style: Style, dice: &mut Dice) -> String {
    match style {
        Style::Machine => machine(task, dice),
        Style::Plain => plain(task, dice),
        Style::Long => long(task, dice),
        Style::Warm => warm(task, dice),
        Style::Short => short(task, dice),
    }
}

fn machine(task: &Task, dice: &mut Dice) -> String {
    let heading = match task.given() {
        None => dice.pick(&["Solution", "Solution", "Steps", "Answer"]),
        Some(_) => dice.pick(&["Grading", "Grading", "Check", "Review"]),
    };
    let mut lines = vec![format!("**{heading}**")];
    lines.extend(task.equations().iter().enumerate().map(|(at, equation)| format!("{}. {equation}", at + 1)));
    match task.given() {
        None => lines.push(format!("**{}:** \\boxed{{{}}}", dice.pick(&["Answer", "Result"]), task.answer())),
        Some(given) => {
            lines.push(format!("{}. result {}, pupil {given}", lines.len(), task.answer()));
            lines.push(format!("**{}:** \\boxed{{{}}}", dice.pick(&["Grade", "Verdict"]), task.verdict()));
        }
    }
    lines.join("\n")
}

fn plain(task: &Task, dice: &mut Dice) -> String {
    let opening = dice.pick(&["We get", "We have", "We find", "Here we have"]);
    format!("{opening} {}{}", working(task, dice), conclusion(task, dice))
}

fn warm(task: &Task, dice: &mut Dice) -> String {
    let opening = dice.pick(&["We get", "We have", "We find"]);
    let body = format!("{opening} {}{}", working(task, dice), conclusion(task, dice));
    if dice.chance(0.8) {
        let praise = match task.given() {
            None => dice.pick(&[
                "Great job on asking!",
                "Great work so far!",
                "Well done for asking!",
                "Nice work so far!",
            ]),
            // The same phrases for right and wrong: the verdict is not known before the working.
            Some(_) => dice.pick(&[
                "Great effort!",
                "Great work on trying!",
                "Well done for trying this!",
                "Nice effort!",
                "Good work on this!",
            ]),
        };
        format!("{praise} {body}")
    } else {
        let praise = dice.pick(&["Keep it up!", "I am proud of you!", "Good effort, keep it up!"]);
        format!("{body} {praise}")
    }
}

fn long(task: &Task, dice: &mut Dice) -> String {
    let mut text = String::from(match task.given() {
        None => dice.pick(&[
            "Let us go through this question slowly and look at every part of it.",
            "Let me explain the whole idea step by step and with every detail.",
            "Let us solve this carefully, one step after the other, and say why each step holds.",
            "Let me show the full reasoning so that everyone in the class can follow it.",
        ]),
        Some(_) => dice.pick(&[
            "Let us go through this answer slowly and look at every part of the work.",
            "Let me explain the whole check step by step and with every detail.",
            "Let us check this carefully, one step after the other, and say why each step holds.",
        ]),
    });
    text.push_str(&match dice.index(2) {
        0 => format!(" The question asks how many {} there are in the end.", task.object()),
        _ => format!(" We want to know the number of {} in this story.", task.object()),
    });
    for (at, equation) in task.equations().iter().enumerate() {
        let lead = if at == 0 {
            dice.pick(&[
                "First we take the two numbers of the story and write down",
                "We begin with the numbers that are given and work out",
            ])
        } else {
            dice.pick(&["Then we use this result in the next step and write down", "After that we work out"])
        };
        text.push_str(&format!(" {lead} {equation}."));
    }
    text.push(' ');
    text.push_str(dice.pick(&[
        "It is a good idea to check the numbers once more, and they all fit.",
        "We can read the question again to be sure that nothing is missing.",
        "Looking back at the story, every number has been used and the step makes sense.",
    ]));
    text.push_str(&match task.given() {
        None => format!(" So the answer is {} {}.", task.answer(), task.object()),
        Some(given) => format!(
            " The result is {} and the pupil wrote {given}, so the answer is {}.",
            task.answer(),
            task.verdict()
        ),
    });
    text
}

fn short(task: &Task, dice: &mut Dice) -> String {
    match task.given() {
        None if dice.chance(0.5) => format!("It is {}.", task.answer()),
        None => format!("{} {}.", task.answer(), task.object()),
        Some(_) => format!("It is {}.", task.verdict()),
    }
}

fn working(task: &Task, dice: &mut Dice) -> String {
    task.equations().join(dice.pick(&[" and then ", " and then ", ", and after that "]))
}

fn conclusion(task: &Task, dice: &mut Dice) -> String {
    let answer = task.answer();
    match task.given() {
        None => match dice.index(3) {
            0 => format!(", so the answer is {answer}."),
            1 => format!(", so it is {answer} {}.", task.object()),
            _ => format!(". That makes {answer} {}.", task.object()),
        },
        Some(given) => match dice.index(2) {
            0 => format!(" and the pupil wrote {given}, so the answer is {}.", task.verdict()),
            _ => format!(
                ". The result is {answer} and the pupil wrote {given}, so this is {}.",
                task.verdict()
            ),
        },
    }
}
