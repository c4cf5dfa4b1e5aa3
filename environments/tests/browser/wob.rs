//! An oracle for some tasks of MiniWoB++: it reads what is asked for, and the list, as an agent does.

use openclaw_environments::world::Action;

use super::{call, click, done, find, numbered, type_in};

pub const TASKS: [&str; 10] = [
    "click-test",
    "click-test-2",
    "click-button",
    "click-link",
    "click-checkboxes",
    "click-option",
    "click-dialog",
    "enter-text",
    "enter-password",
    "choose-list",
];

/// What stands between quotation marks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('"').skip(1).step_by(2).collect()
}

pub fn action(task: &str, wanted: &str, list: &str, turn: usize) -> Action {
    let quoted = quoted(wanted);
    let submit = || click(numbered(list, "button \"Submit\""));
    match task {
        "click-test" => click(numbered(list, "button \"")),
        "click-test-2" => click(numbered(list, "button \"ONE\"")),
        "click-button" => click(numbered(list, &format!("button \"{}\"", quoted[0]))),
        "click-link" => match find(list, &format!("text \"{}", quoted[0])) {
            Some(number) => click(number),
            None => click(numbered(list, &format!("\"{}", quoted[0]))),
        },
        "click-checkboxes" => {
            let names = wanted.strip_prefix("Select ").and_then(|rest| rest.split(" and click").next());
            let names = names.unwrap_or_default().split(", ").filter(|name| *name != "nothing");
            match names.clone().nth(turn) {
                Some(name) => click(numbered(list, &format!("checkbox \"{name}\""))),
                None => submit(),
            }
        }
        "click-option" => {
            let name = wanted.strip_prefix("Select ").and_then(|rest| rest.split(" and click").next());
            match turn {
                0 => click(numbered(list, &format!("radio \"{}\"", name.unwrap_or_default()))),
                _ => submit(),
            }
        }
        "click-dialog" => click(numbered(list, "button \"Close\"")),
        "enter-text" => match turn {
            0 => type_in(numbered(list, "textbox"), quoted[0]),
            _ => submit(),
        },
        "enter-password" => match turn {
            0 | 1 => {
                let fields: Vec<&str> = list.lines().filter(|line| line.contains("textbox")).collect();
                let number =
                    fields[fields.len() - 2 + turn].split(' ').next().and_then(|word| word.parse().ok());
                type_in(number.expect("a number"), quoted[0])
            }
            _ => submit(),
        },
        "choose-list" => {
            let name = wanted.strip_prefix("Select ").and_then(|rest| rest.split(" from the list").next());
            match turn {
                0 => type_in(numbered(list, "combobox"), name.unwrap_or_default()),
                _ => submit(),
            }
        }
        _ if turn > 0 => done(),
        _ => call("wait", serde_json::json!({})),
    }
}
