//! TE-2: the lines of a file are counted, sorted, replaced or taken out; its name may have to be looked up.
use super::Making;
use crate::draw::Kind;

pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "count",
        train: &[
            "Count the lines of {f} that have the word {w} and write the number to {o}.",
            "Write to {o} how many lines of {f} have the word {w}.",
        ],
        held_out: &["In how many lines of {f} is the word {w}? The number goes into {o}."],
    },
    Kind {
        name: "sort",
        train: &["Sort the lines of {f} and write them to {o}.", "Write the lines of {f} to {o}, sorted."],
        held_out: &["{o} should have the lines of {f} in alphabetical order."],
    },
    Kind {
        name: "replace",
        train: &["Replace {w} with {v} everywhere in {f}.", "Change every {w} in {f} to {v}."],
        held_out: &["Wherever {f} says {w} it should say {v}."],
    },
    Kind {
        name: "extract",
        train: &["Write line {n} of {f} to {o}.", "Take line {n} of {f} and write it to {o}."],
        held_out: &["{o} should have just line {n} of {f}."],
    },
    Kind {
        name: "reverse",
        train: &[],
        held_out: &[
            "Write the lines of {f} to {o} in reverse, the last one first.",
            "Turn {f} upside down: its lines from last to first, into {o}.",
        ],
    },
    Kind {
        name: "without",
        train: &[],
        held_out: &[
            "Write the lines of {f} to {o}, without those that have the word {w}.",
            "Leave out the lines with {w} and write the rest of {f} to {o}.",
        ],
    },
];

pub(super) fn make(making: &mut Making<'_>, kind: &str, wording: &str) {
    let folders = making.folders(2);
    let (words, lines) = lines(making);
    let stem = making.fact(wording);
    let path = format!("{}/{stem}.{}", folders[0], making.ending());
    let text = lines.join("\n") + "\n";
    making.made.start.file(&path, text.clone());
    making.made.goal.file(&path, text.clone());
    let (word, other, output) = (words[0].clone(), making.draw.name(), making.file_name());
    let number = 1 + making.draw.dice.index(lines.len());
    let has = |line: &&String| line.starts_with(&word);
    let ended = |lines: Vec<&String>| lines.into_iter().map(|line| format!("{line}\n")).collect::<String>();
    let (command, result) = match kind {
        "count" => {
            (format!("grep -cw {word} {path} > {output}"), format!("{}\n", lines.iter().filter(has).count()))
        }
        "sort" => {
            let mut sorted: Vec<&String> = lines.iter().collect();
            sorted.sort();
            (format!("sort {path} > {output}"), ended(sorted))
        }
        "replace" => (format!("sed -i s/{word}/{other}/g {path}"), text.replace(&word, &other)),
        "extract" => (format!("sed -n {number}p {path} > {output}"), ended(vec![&lines[number - 1]])),
        "reverse" => (format!("tac {path} > {output}"), ended(lines.iter().rev().collect())),
        _ => (
            format!("grep -vw {word} {path} > {output}"),
            ended(lines.iter().filter(|line| !has(line)).collect()),
        ),
    };
    making.made.goal.file(if kind == "replace" { &path } else { &output }, result);
    // Half of the time its name has to be looked up; then it is the only file there.
    let looked_up = making.draw.dice.chance(0.5);
    let said = match looked_up {
        true => format!("the file in {}", folders[0]),
        false => path.clone(),
    };
    if looked_up {
        making.made.facts.push(stem);
        making.made.plan.push(format!("ls {}", folders[0]));
    }
    making.made.plan.push(command);
    let number = number.to_string();
    making.say(wording, &[("f", &said), ("w", &word), ("v", &other), ("o", &output), ("n", &number)]);
    let wanted = making.between(making.knobs.files);
    making.decoys(&folders[1..], wanted);
}

/// A few words, none of which is a part of another, and lines that each begin with one of them. The first word is in some
/// of the lines and not in all.
fn lines(making: &mut Making<'_>) -> (Vec<String>, Vec<String>) {
    let mut words: Vec<String> = Vec::new();
    while words.len() < 3 {
        let word = making.draw.name();
        if words.iter().all(|other| !other.contains(&word) && !word.contains(other.as_str())) {
            words.push(word);
        }
    }
    let count = making.between(making.knobs.lines).max(3);
    let mut lines: Vec<String> = Vec::new();
    while lines.len() < count {
        let word = match lines.len() {
            at @ 0..3 => &words[at],
            _ => &words[making.draw.dice.index(3)],
        };
        let line = format!("{word} {}", making.draw.number(100, 9999));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    // The first words of the lines would otherwise always be in this order.
    for at in (1..lines.len()).rev() {
        let other = making.draw.dice.index(at + 1);
        lines.swap(at, other);
    }
    (words, lines)
}
