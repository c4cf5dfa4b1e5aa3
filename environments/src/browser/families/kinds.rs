//! The kinds of tasks of each family, their wordings, and how one is drawn.

use super::{Control, Knobs, Move, What};
use crate::draw::{Draw, Kind, fill};

pub(super) const BUTTONS: &[Kind] = &[
    Kind {
        name: "click",
        train: &[
            "Click the button {name}.",
            "Press {name}.",
            "Click on {name}, and on nothing else.",
            "The button {name} is the right one: click it.",
        ],
        held_out: &["Use the button called {name}.", "Please hit {name}."],
    },
    Kind {
        name: "sequence",
        train: &[],
        held_out: &["Click {name}, then {other}.", "First press {name} and after that {other}."],
    },
];

pub(super) const FIELDS: &[Kind] = &[
    Kind {
        name: "fill",
        train: &[
            "Fill in the form and click {button}: {pairs}.",
            "Type {pairs}; then press {button}.",
            "Put in {pairs}, and send it with {button}.",
        ],
        held_out: &["The form needs {pairs}. Finish with {button}.", "Enter {pairs}. Then use {button}."],
    },
    Kind {
        name: "correct",
        train: &[],
        held_out: &[
            "One thing in the form is wrong: it should be {pairs}. Put it right and click {button}.",
            "Change the form so that it has {pairs}, then press {button}.",
        ],
    },
];

pub(super) const CHOICES: &[Kind] = &[
    Kind {
        name: "tick",
        train: &[
            "Tick {names} and click {button}.",
            "Check the boxes {names}, then press {button}.",
            "Select {names} and nothing else. Send it with {button}.",
        ],
        held_out: &[
            "Mark {names}, and finish with {button}.",
            "The boxes {names} should be on. Then use {button}.",
        ],
    },
    Kind {
        name: "choose",
        train: &[
            "Choose {value} as {name} and click {button}.",
            "Set {name} to {value}, then press {button}.",
            "{name} should be {value}. Send it with {button}.",
        ],
        held_out: &["Pick {value} from the list {name}, and finish with {button}."],
    },
    Kind {
        name: "radio",
        train: &[],
        held_out: &[
            "Of the choices, take {value}; then click {button}.",
            "Select {value} and press {button}.",
        ],
    },
];

/// What a page is made of.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) instruction: String,
    pub(super) controls: Vec<Control>,
    pub(super) buttons: Vec<String>,
    pub(super) clicks: Vec<usize>,
    pub(super) plan: Vec<Move>,
}

pub(super) fn make(draw: &mut Draw, kind: &str, wording: &str, knobs: &Knobs) -> Made {
    match kind {
        "click" => click(draw, wording, knobs, 1),
        "sequence" => click(draw, wording, knobs, 2),
        "fill" => fields(draw, wording, knobs, false),
        "correct" => fields(draw, wording, knobs, true),
        "tick" => tick(draw, wording, knobs),
        "choose" => choose(draw, wording, knobs, false),
        _ => choose(draw, wording, knobs, true),
    }
}

fn between(draw: &mut Draw, (low, high): (usize, usize)) -> usize {
    low + draw.dice.index(high.saturating_sub(low) + 1)
}

fn names(draw: &mut Draw, count: usize) -> Vec<String> {
    (0..count).map(|_| draw.name()).collect()
}

/// `a, b and c`
fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn click(draw: &mut Draw, wording: &str, knobs: &Knobs, clicks: usize) -> Made {
    let count = between(draw, knobs.buttons);
    let buttons = names(draw, count);
    let mut order: Vec<usize> = (0..count).collect();
    draw.dice.shuffle(&mut order);
    order.truncate(clicks);
    let name = |at: usize| order.get(at).map_or("", |number| buttons[*number].as_str());
    let instruction = fill(wording, &[("name", name(0)), ("other", name(1))]);
    let plan = order.iter().map(|number| Move::Click(buttons[*number].clone())).collect();
    Made { instruction, buttons, clicks: order, plan, ..Made::default() }
}

/// The button that sends a form, and perhaps one that does not.
fn sends(draw: &mut Draw, made: &mut Made) -> String {
    let sender = draw.name();
    made.buttons = vec![sender.clone()];
    if draw.dice.chance(0.5) {
        made.buttons.push(draw.name());
        draw.dice.shuffle(&mut made.buttons);
    }
    made.clicks = made.buttons.iter().position(|button| *button == sender).into_iter().collect();
    made.plan.push(Move::Click(sender.clone()));
    sender
}

fn fields(draw: &mut Draw, wording: &str, knobs: &Knobs, filled: bool) -> Made {
    let count = between(draw, knobs.fields);
    let mut made = Made::default();
    let wrong = draw.dice.index(count);
    let mut pairs = Vec::new();
    for number in 0..count {
        let (label, goal) = (draw.name(), draw.name());
        let is_wanted = !filled || number == wrong;
        let start = match (filled, number == wrong) {
            (false, _) => String::new(),
            (true, true) => draw.name(),
            (true, false) => goal.clone(),
        };
        if is_wanted {
            pairs.push(format!("{goal} as {label}"));
            made.plan.push(Move::Type(label.clone(), goal.clone()));
        }
        made.controls.push(Control { label, what: What::Field, start, goal });
    }
    let button = sends(draw, &mut made);
    made.instruction = fill(wording, &[("pairs", &listed(&pairs)), ("button", &button)]);
    made
}

fn tick(draw: &mut Draw, wording: &str, knobs: &Knobs) -> Made {
    let count = between(draw, knobs.choices);
    let labels = names(draw, count);
    let mut order: Vec<usize> = (0..count).collect();
    draw.dice.shuffle(&mut order);
    let wanted = 1 + draw.dice.index(2.min(count - 1));
    order.truncate(wanted);
    order.sort_unstable();
    let mut made = Made::default();
    for (number, label) in labels.iter().enumerate() {
        let goal = order.contains(&number).to_string();
        made.controls.push(Control { label: label.clone(), what: What::Box, start: "false".into(), goal });
    }
    let chosen: Vec<String> = order.iter().map(|number| labels[*number].clone()).collect();
    made.plan.extend(chosen.iter().cloned().map(Move::Click));
    let button = sends(draw, &mut made);
    made.instruction = fill(wording, &[("names", &listed(&chosen)), ("button", &button)]);
    made
}

fn choose(draw: &mut Draw, wording: &str, knobs: &Knobs, in_sight: bool) -> Made {
    let count = between(draw, knobs.choices);
    let (label, options) = (draw.name(), names(draw, count));
    // The first is chosen already.
    let goal = options[1 + draw.dice.index(count - 1)].clone();
    let mut made = Made::default();
    let (what, start) = match in_sight {
        true => (What::Radio(options), String::new()),
        false => (What::List(options.clone()), options[0].clone()),
    };
    made.plan.push(match in_sight {
        true => Move::Click(goal.clone()),
        false => Move::Type(label.clone(), goal.clone()),
    });
    made.controls.push(Control { label: label.clone(), what, start, goal: goal.clone() });
    let button = sends(draw, &mut made);
    made.instruction = fill(wording, &[("name", &label), ("value", &goal), ("button", &button)]);
    made
}
