//! Pages as a list of elements with numbers, for an agent that clicks, types and chooses.
use super::acting::{Episode, Step};
use super::values;
use openclaw_environments::{dice::Dice, world::Tool};
use serde_json::{Value, json};

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Button,
    Link,
    Field,
    Box,
}

#[derive(Clone, Debug)]
struct Element {
    id: i64,
    role: Role,
    label: String,
    text: String,
    is_ticked: bool,
}

fn listed(elements: &[Element]) -> String {
    let line = |element: &Element| {
        let Element { id, label, text, is_ticked, .. } = element;
        match element.role {
            Role::Button => format!("[{id}] button \"{label}\""),
            Role::Link => format!("[{id}] link \"{label}\""),
            Role::Field => format!("[{id}] textbox \"{label}\" value=\"{text}\""),
            Role::Box => format!("[{id}] checkbox \"{label}\"{}", if *is_ticked { " checked" } else { "" }),
        }
    };
    elements.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn label(role: Role, dice: &mut Dice) -> String {
    const BUTTONS: [&str; 14] = [
        "Submit", "Cancel", "OK", "Save", "Next", "Back", "Delete", "Search", "Send", "Log in", "Add",
        "Close", "Apply", "Open",
    ];
    const FIELDS: [&str; 10] =
        ["Name", "Email", "City", "Phone", "Username", "Password", "Subject", "Message", "Street", "Company"];
    if dice.chance(0.4) {
        return values::of("name", dice);
    }
    match role {
        Role::Button | Role::Link => dice.pick(&BUTTONS).to_owned(),
        Role::Field => dice.pick(&FIELDS).to_owned(),
        Role::Box => values::of("word", dice),
    }
}

fn tools() -> Vec<Value> {
    let id = || json!({"type": "integer"});
    let tool = |name: &str, about: &str, properties: Value, required: &[&str]| {
        let parameters = json!({"type": "object", "properties": properties, "required": required});
        Tool { name: name.into(), description: about.into(), parameters }.function()
    };
    vec![
        tool("click", "Clicks an element", json!({"id": id()}), &["id"]),
        tool(
            "type",
            "Types a text into an element",
            json!({"id": id(), "text": {"type": "string"}}),
            &["id", "text"],
        ),
    ]
}

pub(super) fn episode(slips: bool, dice: &mut Dice) -> Episode {
    let mut elements: Vec<Element> = Vec::new();
    let count = dice.between(3, 8) as usize;
    let (least, apart) = (dice.between(1, 40), dice.between(1, 4));
    let roles = [Role::Button, Role::Link, Role::Field, Role::Box];
    while elements.len() < count {
        let role = if elements.is_empty() { Role::Button } else { roles[dice.index(4)] };
        let label = label(role, dice);
        if elements.iter().all(|other| !other.label.eq_ignore_ascii_case(&label)) {
            let is_ticked = role == Role::Box && dice.chance(0.3);
            elements.push(Element { id: 0, role, label, text: String::new(), is_ticked });
        }
    }
    for at in (1..elements.len()).rev() {
        elements.swap(at, dice.index(at + 1));
    }
    for (at, element) in elements.iter_mut().enumerate() {
        element.id = least + at as i64 * apart;
    }
    let mut wishes: Vec<String> = Vec::new();
    let mut done: Vec<(usize, Option<String>)> = Vec::new();
    let fields: Vec<usize> = (0..count).filter(|at| elements[*at].role == Role::Field).collect();
    let boxes: Vec<usize> =
        (0..count).filter(|at| elements[*at].role == Role::Box && !elements[*at].is_ticked).collect();
    let presses: Vec<usize> =
        (0..count).filter(|at| matches!(elements[*at].role, Role::Button | Role::Link)).collect();
    for at in fields.into_iter().take(2) {
        if dice.chance(0.6) {
            let text = values::of(dice.pick(&["word", "name", "number", "email", "text"]), dice);
            let said = [
                "type {t} into {l}",
                "enter \"{t}\" in the {l} field",
                "fill {l} with {t}",
                "put {t} into the textbox {l}",
            ];
            wishes.push(dice.pick(&said).replace("{t}", &text).replace("{l}", &elements[at].label));
            done.push((at, Some(text)));
        }
    }
    for at in boxes.into_iter().take(2) {
        if dice.chance(0.6) {
            let said = ["check {l}", "tick {l}", "select the checkbox {l}", "check the box {l}"];
            wishes.push(dice.pick(&said).replace("{l}", &elements[at].label));
            done.push((at, None));
        }
    }
    if done.is_empty() || dice.chance(0.7) {
        let at = presses[dice.index(presses.len())];
        let said = ["click {l}", "press {l}", "click on {l}", "click the \"{l}\" button", "choose {l}"];
        wishes.push(dice.pick(&said).replace("{l}", &elements[at].label));
        done.push((at, None));
    }
    let first = listed(&elements);
    let goal = upper(&wishes.join(dice.pick(&[", then ", " and then ", ", and "]))) + ".";
    let mut steps = Vec::new();
    let slip = slips.then(|| dice.index(done.len()));
    for (nth, (at, text)) in done.iter().enumerate() {
        if slip == Some(nth) {
            let free = least + count as i64 * apart + dice.between(1, 9);
            steps.push(
                Step::new("click", &[("id", json!(free))], format!("There is no element {free}."))
                    .wrong("Use the number that stands before the element."),
            );
        }
        let id = elements[*at].id;
        match text {
            Some(text) => {
                elements[*at].text.clone_from(text);
                steps.push(Step::new("type", &[("id", json!(id)), ("text", json!(text))], listed(&elements)));
            }
            None => {
                elements[*at].is_ticked = elements[*at].role == Role::Box;
                steps.push(Step::new("click", &[("id", json!(id))], listed(&elements)));
            }
        }
    }
    let asked =
        if dice.chance(0.5) { format!("{goal}\n\n{first}") } else { format!("{first}\n\nTask: {goal}") };
    Episode {
        opening: vec![json!({"role": "user", "content": asked})],
        tools: tools(),
        steps,
        ending: dice.pick(&["Done.", "It is done."]).to_owned(),
    }
}

fn upper(text: &str) -> String {
    text[..1].to_uppercase() + &text[1..]
}
