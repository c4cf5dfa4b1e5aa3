//! DT-4: a row of a list is chosen.

use super::{FamilyTask, Making};
use crate::draw::fill;

const TITLES: [&str; 4] = ["Choose", "Selection", "Preferences", "Options"];
const TRAIN: &[&str] = &[
    "In the dialog {title}, select {what}, then press OK.",
    "Choose {what} in {title} and confirm with OK.",
];
const HELD_OUT: &[&str] = &["{title} should be accepted with {what} selected."];

pub(super) fn make(mut making: Making) -> FamilyTask {
    let title = making.draw.dice.pick(&TITLES).to_owned();
    // As many rows as such a dialog shows at once.
    let count = 3 + making.draw.dice.index(3);
    let names: Vec<String> = (0..count).map(|_| making.draw.name()).collect();
    let chosen = names[making.draw.dice.index(count)].clone();
    let rows: String = names.iter().map(|name| format!(" {name}")).collect();
    making.open(
        format!(
            "exec zenity --list --title={title} --text='Please choose' --column=Item{rows} > ~/Desktop/answer.txt"
        ),
        &title,
    );
    making.click("cell", &chosen);
    making.click("button", "OK");
    let wording = making.wording(TRAIN, HELD_OUT);
    let instruction = fill(wording, &[("title", &title), ("what", &chosen)]);
    making.written(instruction, "/home/user/Desktop/answer.txt", format!("{chosen}\n"))
}
