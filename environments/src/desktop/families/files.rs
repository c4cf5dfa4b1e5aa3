//! DT-5: something is done to a file or a folder in the file manager.

use super::{FamilyTask, Making};
use crate::draw::fill;

const TRAIN: &[&str] = &[
    "In the file manager, {what}.",
    "The file manager shows the folder {folder}. There, {what}.",
    "Please {what}, in the file manager's window.",
];
const HELD_OUT: &[&str] = &["With the window of {folder}, {what}.", "{folder} is open. {what}, please."];

pub(super) fn make(mut making: Making) -> FamilyTask {
    let (folder, new) = (making.draw.name(), making.draw.name());
    let count = 2 + making.draw.dice.index(3);
    let mut names: Vec<String> = (0..count).map(|_| format!("{}.txt", making.draw.name())).collect();
    names.sort();
    names.dedup();
    let file = names[making.draw.dice.index(names.len())].clone();
    let at = format!("~/Documents/{folder}");
    making.run(format!("mkdir -p {at} && cd {at} && touch -d 2026-01-01 {}", names.join(" ")));
    making.open(format!("exec pcmanfm ~/Documents/{folder}"), &folder);
    let mut after = names.clone();
    let what = match making.draw.dice.index(3) {
        0 => {
            making.click("menu", "Edit");
            making.click("menuitem", "Select All");
            making.click("menu", "Edit");
            making.click("menuitem", "Move to Trash");
            after.clear();
            format!("delete every file in {folder}")
        }
        1 => {
            making.click("cell", &file);
            making.click("menu", "Edit");
            making.click("menuitem", "Rename...");
            making.type_into("textbox", "", format!("{new}.txt"));
            making.click("button", "OK");
            after.retain(|name| *name != file);
            after.push(format!("{new}.txt"));
            format!("rename {file} to {new}.txt")
        }
        _ => {
            making.click("cell", &file);
            making.click("menu", "Edit");
            making.click("menuitem", "Move to Trash");
            after.retain(|name| *name != file);
            format!("delete {file}")
        }
    };
    after.sort();
    let wording = making.wording(TRAIN, HELD_OUT);
    let instruction = fill(wording, &[("what", &what), ("folder", &folder)]);
    let expected = after.iter().map(|name| format!("{name}\n")).collect();
    making.done(instruction, format!("LC_ALL=C ls {at}"), expected)
}
