//! The unit behind a number. Two different units differ; a unit on one side alone is taken as understood.

/// Words that are units, and the one name that they share.
const WORDS: &[(&str, &str)] = &[
    ("meter", "m"),
    ("metre", "m"),
    ("m", "m"),
    ("centimeter", "cm"),
    ("centimetre", "cm"),
    ("cm", "cm"),
    ("millimeter", "mm"),
    ("mm", "mm"),
    ("kilometer", "km"),
    ("kilometre", "km"),
    ("km", "km"),
    ("inch", "in"),
    ("inche", "in"),
    ("in", "in"),
    ("foot", "ft"),
    ("feet", "ft"),
    ("ft", "ft"),
    ("yard", "yd"),
    ("mile", "mi"),
    ("mph", "mi/h"),
    ("second", "s"),
    ("sec", "s"),
    ("minute", "min"),
    ("min", "min"),
    ("hour", "h"),
    ("hr", "h"),
    ("day", "day"),
    ("week", "week"),
    ("month", "month"),
    ("year", "year"),
    ("gram", "g"),
    ("g", "g"),
    ("kilogram", "kg"),
    ("kg", "kg"),
    ("pound", "lb"),
    ("lb", "lb"),
    ("ounce", "oz"),
    ("liter", "l"),
    ("litre", "l"),
    ("ml", "ml"),
    ("gallon", "gal"),
    ("dollar", "$"),
    ("cent", "cent"),
    ("euro", "euro"),
    ("degree", "deg"),
    ("deg", "deg"),
    ("radian", "rad"),
    ("rad", "rad"),
    ("percent", "%"),
    ("unit", "unit"),
    ("square", "square"),
    ("cubic", "cubic"),
    ("per", "/"),
    ("way", "way"),
    ("people", "people"),
    ("student", "student"),
    ("point", "point"),
    ("time", "time"),
    ("page", "page"),
];

/// `text` as a core and its unit. The core may be empty or no number: the caller checks.
pub(super) fn split(text: &str) -> Option<(&str, String)> {
    if let Some(core) = text.strip_suffix('%') {
        return Some((core.trim_end(), "%".into()));
    }
    if let Some(core) = text.strip_suffix("^\\circ") {
        return Some((core.trim_end(), "deg".into()));
    }
    if let Some(core) = text.strip_prefix("\\$").or_else(|| text.strip_prefix('$')) {
        return Some((core.trim_start(), "$".into()));
    }
    if let Some(at) = text.find("\\text{") {
        let (core, unit) = text.split_at(at);
        return Some((core.trim_end(), named(unit).unwrap_or_else(|| squeeze(unit))));
    }
    let at = first_word(text)?;
    let (core, unit) = text.split_at(at);
    Some((core.trim_end(), named(unit)?))
}

/// Where the first bare word begins that is a unit; `\pi` is no bare word.
fn first_word(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'\\' && !bytes[at].is_ascii_alphabetic() {
            at += 1;
            continue;
        }
        let start = at;
        at += 1;
        while at < bytes.len() && bytes[at].is_ascii_alphabetic() {
            at += 1;
        }
        if bytes[start] != b'\\' && known(&text[start..at]).is_some() {
            return Some(start);
        }
    }
    None
}

/// The shared name of a unit of known words, powers and slashes.
fn named(unit: &str) -> Option<String> {
    let unit = unit.replace("\\text", " ");
    let mut name = String::new();
    let mut square = 0;
    for part in unit.split(|c: char| c.is_whitespace() || matches!(c, '{' | '}' | '.' | '^')) {
        for (at, word) in part.split('/').enumerate() {
            if at > 0 {
                name.push('/');
            }
            match known(word) {
                Some("square") => square = 2,
                Some("cubic") => square = 3,
                Some(known) => name.push_str(known),
                None if word.is_empty() => {}
                None if matches!(word, "2" | "3") => name.push_str(word),
                None => return None,
            }
        }
    }
    if square > 0 {
        name.push_str(&square.to_string());
    }
    (!name.is_empty()).then_some(name)
}

fn known(word: &str) -> Option<&'static str> {
    let lower = word.to_ascii_lowercase();
    let find = |word: &str| WORDS.iter().find(|(alias, _)| *alias == word).map(|(_, name)| *name);
    find(&lower).or_else(|| find(lower.strip_suffix('s').filter(|word| word.len() > 1)?))
}

fn squeeze(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric() || "/^%".contains(*c)).collect()
}
