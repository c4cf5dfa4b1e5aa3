//! Values that are made up: to be copied from where they stand, and not known.
use super::wishes;
use openclaw_environments::dice::Dice;

const WORDS: [&str; 64] = [
    "red", "paper", "lamp", "winter", "coffee", "garden", "train", "music", "letter", "green", "market",
    "bread", "window", "summer", "school", "river", "mountain", "blue", "morning", "street", "doctor",
    "holiday", "bicycle", "apple", "kitchen", "table", "shoes", "old", "new", "small", "large", "cheap",
    "best", "quiet", "near", "open", "late", "early", "book", "price", "song", "story", "meeting", "report",
    "photo", "invoice", "ticket", "order", "number", "list", "tomorrow", "today", "soon", "please", "bring",
    "call", "buy", "find", "send", "check", "the", "for", "and", "with",
];
const ENDINGS: [&str; 12] =
    ["txt", "md", "csv", "json", "log", "py", "rs", "toml", "pdf", "png", "html", "cfg"];
const CITIES: [&str; 24] = [
    "Oslo", "Paris", "Rome", "Lima", "Cairo", "Delhi", "Bern", "Tokyo", "Quito", "Riga", "Vienna", "Porto",
    "Leeds", "Accra", "Hanoi", "Boston", "Turin", "Ghent", "Malmo", "Perth", "Austin", "Dublin", "Kyoto",
    "Lagos",
];

/// A value of a type that `tools.tsv` names.
pub(super) fn of(kind: &str, dice: &mut Dice) -> String {
    match kind {
        "number" => match dice.index(3) {
            0 => dice.between(1, 12),
            1 => dice.between(10, 99),
            _ => dice.between(100, 4999),
        }
        .to_string(),
        "name" if dice.chance(0.3) => dice.pick(&CITIES).to_owned(),
        "name" => wishes::word(dice, true),
        "path" => path(dice),
        "folder" if dice.chance(0.5) => lower(dice),
        "folder" => format!("{}/{}", lower(dice), lower(dice)),
        "text" => (0..dice.between(2, 5)).map(|_| lower(dice)).collect::<Vec<_>>().join(" "),
        "date" => {
            format!("{}-{:02}-{:02}", dice.between(2024, 2032), dice.between(1, 12), dice.between(1, 28))
        }
        "time" => format!("{:02}:{:02}", dice.between(0, 23), dice.between(0, 11) * 5),
        "code" => {
            let letter = |dice: &mut Dice| char::from(b'A' + dice.index(26) as u8);
            format!("{}{}-{}", letter(dice), letter(dice), dice.between(100, 9999))
        }
        "email" => format!("{}@{}.{}", lower(dice), lower(dice), dice.pick(&["com", "org", "net", "io"])),
        "url" => {
            format!("https://{}.{}/{}", lower(dice), dice.pick(&["com", "org", "net", "dev"]), lower(dice))
        }
        "expression" => {
            let number = |dice: &mut Dice| {
                if dice.chance(0.5) { dice.between(2, 99) } else { dice.between(100, 9999) }
            };
            let sign = dice.pick(&["+", "-", "*", "/"]);
            let first = format!("{} {sign} {}", number(dice), number(dice));
            if dice.chance(0.7) {
                first
            } else {
                format!("{first} {} {}", dice.pick(&["+", "-", "*"]), number(dice))
            }
        }
        _ => lower(dice),
    }
}

fn path(dice: &mut Dice) -> String {
    let mut path = String::new();
    for _ in 0..dice.weighted(&[(0, 0.4), (1, 0.4), (2, 0.2)]) {
        path.push_str(&lower(dice));
        path.push('/');
    }
    format!("{path}{}.{}", lower(dice), dice.pick(&ENDINGS))
}

/// A usual word, or one that there is not.
fn lower(dice: &mut Dice) -> String {
    if dice.chance(0.45) { dice.pick(&WORDS).to_owned() } else { wishes::word(dice, false) }
}

/// What could be the name of a tool or an argument.
pub(super) fn identifier(dice: &mut Dice) -> String {
    match dice.index(3) {
        0 => wishes::word(dice, false),
        1 => format!("{}_{}", lower(dice), lower(dice)),
        _ => format!("{}{}", lower(dice), wishes::word(dice, true)),
    }
}
