//! TE-1: files are moved, copied and renamed until the folders are as they should be.
use super::Making;
use crate::draw::Kind;

pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "move",
        train: &[
            "Move {p} to the folder {d}.",
            "Please move the file {p} into {d}.",
            "Put {p} into the folder {d}.",
        ],
        held_out: &["The file {p} belongs in {d}: bring it there."],
    },
    Kind {
        name: "rename",
        train: &["Rename {p} to {n}.", "Give the file {p} the name {n}.", "Change the name of {p} to {n}."],
        held_out: &["The file {p} should be called {n} from now on."],
    },
    Kind {
        name: "copy",
        train: &["Copy {p} to {q}.", "Make a copy of {p} and name it {q}."],
        held_out: &["There should be a second {p}, at {q}."],
    },
    Kind {
        name: "only_file",
        train: &[
            "Rename the only file in {s} to {n}.",
            "There is one file in the folder {s}. Rename it to {n}.",
        ],
        held_out: &["Whatever file is in {s}, its name should be {n}."],
    },
    Kind {
        name: "swap",
        train: &[],
        held_out: &["Swap the names of {p} and {q}.", "Let {p} and {q} trade their names."],
    },
    Kind {
        name: "ending",
        train: &[],
        held_out: &[
            "Move each file of {s} that ends in .{e} to {d}.",
            "All .{e} files that are in {s} belong in {d}; the others stay.",
        ],
    },
];

pub(super) fn make(making: &mut Making<'_>, kind: &str, wording: &str) {
    let operations = making.between(making.knobs.operations);
    let count = 2 + making.draw.dice.index(2);
    let folders = making.folders(count);
    for _ in 0..operations {
        operation(making, kind, wording, &folders);
    }
    let wanted = making.between(making.knobs.files);
    making.decoys(&folders, wanted);
}

fn operation(making: &mut Making<'_>, kind: &str, wording: &str, folders: &[String]) {
    let at = making.draw.dice.index(folders.len());
    let source = &folders[at];
    let target = &folders[(at + 1 + making.draw.dice.index(folders.len() - 1)) % folders.len()];
    let (name, new) = (making.file_name(), making.file_name());
    let path = format!("{source}/{name}");
    match kind {
        "move" => {
            let content = making.starts_with(&path);
            making.made.goal.file(&format!("{target}/{name}"), content);
            making.made.plan.push(format!("mv {path} {target}/"));
            making.say(wording, &[("p", &path), ("d", target)]);
        }
        "rename" => {
            let content = making.starts_with(&path);
            making.made.goal.file(&format!("{source}/{new}"), content);
            making.made.plan.push(format!("mv {path} {source}/{new}"));
            making.say(wording, &[("p", &path), ("n", &new)]);
        }
        "copy" => {
            let (content, copy) = (making.starts_with(&path), format!("{target}/{new}"));
            making.made.goal.file(&path, content.clone());
            making.made.goal.file(&copy, content);
            making.made.plan.push(format!("cp {path} {copy}"));
            making.say(wording, &[("p", &path), ("q", &copy)]);
        }
        "only_file" => {
            let (alone, stem) = (making.draw.name(), making.fact(wording));
            let path = format!("{alone}/{stem}.{}", making.ending());
            let content = making.starts_with(&path);
            making.made.goal.file(&format!("{alone}/{new}"), content);
            making.made.facts.push(stem);
            making.made.plan.extend([format!("ls {alone}"), format!("mv {path} {alone}/{new}")]);
            making.say(wording, &[("s", &alone), ("n", &new)]);
        }
        "swap" => {
            let other = format!("{target}/{new}");
            let (first, second) = (making.starts_with(&path), making.starts_with(&other));
            making.made.goal.file(&path, second);
            making.made.goal.file(&other, first);
            making
                .made
                .plan
                .push(format!("mv {path} /tmp/swap && mv {other} {path} && mv /tmp/swap {other}"));
            making.say(wording, &[("p", &path), ("q", &other)]);
        }
        _ => {
            let (alone, ending) = (making.draw.name(), making.ending());
            making.made.goal.folder(&alone);
            for _ in 0..2 + making.draw.dice.index(2) {
                let name = format!("{}.{ending}", making.draw.name());
                let content = making.starts_with(&format!("{alone}/{name}"));
                making.made.goal.file(&format!("{target}/{name}"), content);
            }
            let stays = format!("{alone}/{}.bak", making.draw.name());
            making.decoy(&stays);
            making.made.plan.push(format!("mv {alone}/*.{ending} {target}/"));
            making.say(wording, &[("s", &alone), ("e", ending), ("d", target)]);
        }
    }
}
