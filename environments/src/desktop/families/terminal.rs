//! DT-3: files are made and changed by commands in a terminal.

use super::{FamilyTask, Making};
use crate::draw::fill;

const TRAIN: &[&str] = &[
    "In the terminal, {what}.",
    "Use the terminal: {what}.",
    "Please {what}, with a command in the terminal.",
];
const HELD_OUT: &[&str] =
    &["There is a terminal on the screen. With it, {what}.", "By the command line, {what}."];

pub(super) fn make(mut making: Making) -> FamilyTask {
    let (one, other) = (making.draw.name(), making.draw.name());
    let (folder, file) = (making.draw.name(), format!("{}.txt", making.draw.name()));
    making.run(format!("mkdir -p ~/Documents/{folder} && echo {other} > ~/Documents/{folder}/{file}"));
    let at = format!("Documents/{folder}");
    let (what, command, check, expected) = match making.draw.dice.index(4) {
        0 => (
            format!("make the folder {one} in ~/{at}"),
            format!("mkdir {at}/{one}"),
            format!("[ -d ~/{at}/{one} ] && echo yes"),
            "yes\n".to_owned(),
        ),
        1 => (
            format!("write the word {one} into a new file {one}.txt in ~/{at}"),
            format!("echo {one} > {at}/{one}.txt"),
            format!("cat ~/{at}/{one}.txt"),
            format!("{one}\n"),
        ),
        2 => (
            format!("add the line {one} to the end of ~/{at}/{file}"),
            format!("echo {one} >> {at}/{file}"),
            format!("cat ~/{at}/{file}"),
            format!("{other}\n{one}\n"),
        ),
        _ => (
            format!("rename ~/{at}/{file} to {one}.txt, in the same folder"),
            format!("mv {at}/{file} {at}/{one}.txt"),
            format!("cd ~/{at} && ls && cat {one}.txt"),
            format!("{one}.txt\n{other}\n"),
        ),
    };
    making.open("exec lxterminal", "lxterminal");
    making.type_into("terminal", "Terminal", format!("{command}\n"));
    let wording = making.wording(TRAIN, HELD_OUT);
    let instruction = fill(wording, &[("what", &what)]);
    making.done(instruction, check, expected)
}
