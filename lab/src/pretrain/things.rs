//! The things that are counted, under other names: the noun of a reply is to be copied from its question, and not known.
use super::text::{Document, DocumentKind};
use openclaw_environments::dice::Dice;

/// As the stories have them.
pub(super) const KNOWN: [&str; 32] = [
    "apples", "books", "coins", "stones", "cards", "pens", "shells", "stamps", "cups", "eggs", "keys",
    "balls", "pears", "plums", "nuts", "beads", "toys", "cakes", "pencils", "flowers", "tickets", "buttons",
    "cookies", "marbles", "oranges", "stickers", "candles", "plates", "letters", "lemons", "bottles",
    "photos",
];

/// None of the words that measure whether a noun is copied.
const OTHERS: &str = "chairs spoons hats boats ducks trees maps kites rings boxes lamps drums pots bags shirts socks \
    shoes coats scarves gloves belts watches clocks radios phones cables wires screws nails bolts hammers saws ropes \
    bricks tiles windows doors walls roofs houses farms cows sheep goats hens horses dogs cats birds fish frogs snails \
    bees ants spiders worms roses tulips daisies leaves branches seeds beans peas carrots onions potatoes tomatoes \
    peppers mushrooms melons grapes cherries peaches bananas mangoes figs dates olives sandwiches pies muffins biscuits \
    pancakes sausages pizzas burgers soups salads teas coffees juices jars cans packets crates barrels bowls forks \
    knives pans ovens fridges sofas beds pillows blankets towels curtains carpets mirrors brushes combs soaps \
    sponges buckets brooms ladders paints crayons markers rulers erasers notebooks folders stories poems songs films \
    games puzzles dice dolls robots trains cars buses trucks bikes planes rockets ships tents lanterns compasses \
    feathers pebbles crystals diamonds pearls medals cups trophies badges flags banners balloons gifts ribbons";

fn another(dice: &mut Dice) -> String {
    const BEGIN: [&str; 16] =
        ["b", "br", "d", "f", "fl", "g", "k", "l", "m", "p", "pl", "r", "s", "st", "t", "v"];
    const MIDDLE: [&str; 9] = ["a", "e", "i", "o", "u", "ai", "ee", "oo", "ou"];
    const END: [&str; 16] = [
        "bs", "cks", "ds", "lls", "ms", "ns", "ps", "ts", "bles", "gles", "ters", "mmers", "las", "mas",
        "rds", "ways",
    ];
    let words: Vec<&str> = OTHERS.split_whitespace().collect();
    let word = words[dice.index(words.len())];
    match dice.weighted(&[(0, 0.4), (1, 0.15), (2, 0.45)]) {
        0 => word.to_owned(),
        // One of two others.
        1 => words[dice.index(words.len())].trim_end_matches('s').to_owned() + word,
        _ => {
            let middle = if dice.chance(0.5) {
                format!("{}{}", dice.pick(&MIDDLE), dice.pick(&BEGIN))
            } else {
                String::new()
            };
            format!("{}{middle}{}{}", dice.pick(&BEGIN), dice.pick(&MIDDLE), dice.pick(&END))
        }
    }
}

/// Puts other things in place of about half of those that a document counts, the same wherever they are named.
pub(super) fn replaced(document: &mut Document, dice: &mut Dice) {
    use DocumentKind::{FirstReply, HintedReply, Redo, Session, Styled, Thinking};
    let sums = [FirstReply, HintedReply, Redo, Session, Thinking];
    // Elsewhere the words mean something: the letters of a wish, the keys of a piano.
    let is_sum = sums.contains(&document.kind)
        || document.kind == Styled
            && document.messages.iter().any(|message| {
                message["content"]
                    .as_str()
                    .is_some_and(|text| text.contains(" = ") && !text.contains("letter"))
            });
    if !is_sum {
        return;
    }
    let of = |document: &Document, word: &str| {
        let named = |text: &str| {
            text.split(|c: char| !c.is_alphanumeric()).any(|other| other.eq_ignore_ascii_case(word))
        };
        document.messages.iter().any(|message| message["content"].as_str().is_some_and(named))
    };
    for known in KNOWN {
        if !of(document, known) || !dice.chance(0.55) {
            continue;
        }
        let other = another(dice);
        for message in &mut document.messages {
            for part in ["content", "reasoning_content"] {
                if let Some(text) = message[part].as_str() {
                    message[part] = in_place(text, known, &other).into();
                }
            }
        }
    }
}

/// `text` with the word `old` as `new`, in the case that it has.
pub(super) fn in_place(text: &str, old: &str, new: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.to_ascii_lowercase().find(old) {
        let (before, found) = rest.split_at(at);
        let (found, after) = found.split_at(old.len());
        out.push_str(before);
        let inside = before.ends_with(char::is_alphanumeric) || after.starts_with(char::is_alphanumeric);
        if inside {
            out.push_str(found);
        } else if found.chars().all(char::is_uppercase) {
            out.push_str(&new.to_uppercase());
        } else if found.starts_with(char::is_uppercase) {
            out.push_str(&new[..1].to_uppercase());
            out.push_str(&new[1..]);
        } else {
            out.push_str(new);
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_replaced_as_a_word() {
        assert_eq!(
            in_place("Cards, CARDS and postcards: cards", "cards", "kites"),
            "Kites, KITES and postcards: kites"
        );
        let mut dice = Dice::new(1);
        assert!((0..1000).all(|_| another(&mut dice).len() >= 3));
    }
}
