//! DT-2: something is calculated with the calculator and written into a dialog.

use super::{FamilyTask, Making};
use crate::draw::fill;

const TRAIN: &[&str] = &[
    "Calculate {sum} with the calculator, enter the result in the dialog Result and press OK.",
    "What is {sum}? Use the calculator, write it into Result and confirm with OK.",
];
const HELD_OUT: &[&str] = &[
    "Work out {sum} on the calculator and hand the number in with the Result dialog.",
    "Result wants to know what {sum} comes to.",
];

pub(super) fn make(mut making: Making) -> FamilyTask {
    let (one, other) = (making.draw.number(12, 99), making.draw.number(12, 99));
    let (sign, result) = match making.draw.dice.index(3) {
        0 => ("+", one + other),
        1 => ("*", one * other),
        _ => ("-", one - other),
    };
    making.open("exec galculator", "galculator");
    making.open("exec zenity --entry --title=Result --text='The result is' > ~/Desktop/answer.txt", "Result");
    making.click("button", "AC");
    for digit in one.to_string().chars() {
        making.click("button", digit);
    }
    making.click("button", sign);
    for digit in other.to_string().chars() {
        making.click("button", digit);
    }
    making.click("button", "=");
    making.type_into("textbox", "The result is", result.to_string());
    making.click("button", "OK");
    let wording = making.wording(TRAIN, HELD_OUT);
    let instruction = fill(wording, &[("sum", &format!("{one} {sign} {other}"))]);
    making.written(instruction, "/home/user/Desktop/answer.txt", format!("{result}\n"))
}
