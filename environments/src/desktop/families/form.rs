//! DT-1: a form with two or three fields.

use super::{FamilyTask, Making};
use crate::draw::fill;

const FIELDS: [&str; 8] = ["Name", "City", "Street", "Colour", "Team", "Code", "Project", "Country"];
const TITLES: [&str; 5] = ["Contact", "Registration", "Order", "Visitor", "Membership"];
const TRAIN: &[&str] = &[
    "Fill in the form {title} with {values} and confirm it with OK.",
    "In the dialog {title}, enter {values}, then press OK.",
    "Please complete the {title} form: {values}. Send it with OK.",
];
const HELD_OUT: &[&str] = &[
    "The {title} window wants some details: {values}. Submit them.",
    "Put {values} into {title} and accept.",
];

pub(super) fn make(mut making: Making) -> FamilyTask {
    let title = making.draw.dice.pick(&TITLES).to_owned();
    let mut fields = FIELDS;
    making.draw.dice.shuffle(&mut fields);
    let fields = &fields[..2 + making.draw.dice.index(2)];
    let values: Vec<String> = fields.iter().map(|_| making.proper()).collect();
    let entries: String = fields.iter().map(|field| format!(" --add-entry={field}")).collect();
    making.open(
        format!(
            "exec zenity --forms --title={title} --text='Please fill in' --separator='|'{entries} \
             > ~/Desktop/answer.txt"
        ),
        &title,
    );
    for (field, value) in fields.iter().zip(&values) {
        making.type_into("textbox", *field, value);
    }
    making.click("button", "OK");
    let said: Vec<String> =
        fields.iter().zip(&values).map(|(field, value)| format!("{field}: {value}")).collect();
    let wording = making.wording(TRAIN, HELD_OUT);
    let instruction = fill(wording, &[("title", &title), ("values", &said.join(", "))]);
    let expected = format!("{}\n", values.join("|"));
    making.written(instruction, "/home/user/Desktop/answer.txt", expected)
}
