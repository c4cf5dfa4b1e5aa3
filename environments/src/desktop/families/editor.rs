//! DT-6: a text is changed in the editor and saved.

use super::{FamilyTask, Making};
use crate::draw::fill;

const TRAIN: &[&str] = &[
    "In the editor, {what}, then save the file.",
    "{file} is open in the editor: {what} and save it.",
    "Please {what} in the editor's window and save.",
];
const HELD_OUT: &[&str] = &[
    "The editor has {file}. {what}, and keep the change.",
    "What is in {file} should be changed: {what}. Save it there.",
];

pub(super) fn make(mut making: Making) -> FamilyTask {
    let file = format!("{}.txt", making.draw.name());
    let count = 1 + making.draw.dice.index(3);
    let mut lines: Vec<String> = (0..count).map(|_| making.draw.name()).collect();
    let new = making.draw.name();
    let path = format!("~/Documents/{file}");
    making.run(format!("printf '%s\\n' {} > {path}", lines.join(" ")));
    making.open(format!("exec mousepad {path}"), &file);
    let what = match making.draw.dice.index(3) {
        0 => {
            lines = vec![new.clone()];
            format!("replace the whole text by the word {new}")
        }
        1 => {
            lines.push(new.clone());
            format!("add a last line {new}")
        }
        _ => {
            lines.insert(0, new.clone());
            format!("put a line {new} before the first one")
        }
    };
    making.type_into("textbox", "", lines.join("\n"));
    making.click("menu", "File");
    making.click("menuitem", "Save");
    let wording = making.wording(TRAIN, HELD_OUT);
    let instruction = fill(wording, &[("what", &what), ("file", &file)]);
    let expected = format!("{}\n", lines.join("\n"));
    // With or without an end of the last line.
    making.done(instruction, format!("sed -e '$a\\' {path}"), expected)
}
