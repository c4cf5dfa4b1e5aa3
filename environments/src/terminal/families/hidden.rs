//! TE-3: one of several folders has a note, and the note says what the name is.
use super::Making;
use crate::{draw::Kind, world::Split};

pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "rename_to",
        train: &[
            "One of the folders {l} has a .{e} file that says a name. Rename {p} to that name.",
            "Look for the .{e} file in {l}. Rename {p} to the name that it says.",
        ],
        held_out: &["{p} needs a new name. It stands in the .{e} file that is somewhere in {l}."],
    },
    Kind {
        name: "copy_to",
        train: &[
            "One of the folders {l} has a .{e} file that says a name. Copy {p} to that name.",
            "Copy {p}. The name of the copy is in the .{e} file, in one of {l}.",
        ],
        held_out: &["Somewhere in {l} a .{e} file says how a second {p} should be called. Make it."],
    },
    Kind {
        name: "folder_to",
        train: &[],
        held_out: &[
            "Make a folder. What it is called is said by the .{e} file in one of {l}.",
            "The .{e} file in one of {l} names a folder that is missing here. Make it.",
        ],
    },
    Kind {
        name: "word_to",
        train: &[],
        held_out: &[
            "Write into {o} the name that the .{e} file in one of {l} says, and nothing else.",
            "A name stands in a .{e} file, in one of {l}. Put the name alone into {o}.",
        ],
    },
];

pub(super) fn make(making: &mut Making<'_>, kind: &str, wording: &str) {
    let count = making.between(making.knobs.folders);
    let folders: Vec<String> = (0..count).map(|_| making.draw.name()).collect();
    let (ending, says) = match making.draw.split {
        Split::Train => ("hint", "The name is {}."),
        Split::HeldOut => ("clue", "It is called {}."),
    };
    let (stem, name) = (making.fact(wording), making.fact(wording));
    let note = format!("{}/{stem}.{ending}", folders[making.draw.dice.index(count)]);
    let text = says.replace("{}", &name) + "\n";
    for folder in &folders {
        let path = format!("{folder}/{}", making.file_name());
        making.decoy(&path);
    }
    making.made.start.file(&note, text.clone());
    making.made.goal.file(&note, text);
    let (path, output) = (making.file_name(), making.file_name());
    let command = match kind {
        "rename_to" => {
            let content = making.starts_with(&path);
            making.made.goal.file(&name, content);
            format!("mv {path} {name}")
        }
        "copy_to" => {
            let content = making.starts_with(&path);
            making.made.goal.file(&path, content.clone());
            making.made.goal.file(&name, content);
            format!("cp {path} {name}")
        }
        "folder_to" => {
            making.made.goal.folder(&name);
            format!("mkdir {name}")
        }
        _ => {
            making.made.goal.file(&output, format!("{name}\n"));
            format!("echo {name} > {output}")
        }
    };
    let wanted = making.between(making.knobs.files);
    making.decoys(&folders, wanted);
    making.made.facts.extend([stem, name]);
    making.made.in_order = true;
    making.made.plan.extend([format!("ls {}", folders.join(" ")), format!("cat {note}"), command]);
    let list = folders.join(", ");
    making.say(wording, &[("l", &list), ("e", ending), ("p", &path), ("o", &output)]);
}
