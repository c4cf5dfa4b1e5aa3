//! Numbers as words and back, up to 999.

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] =
    ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

/// `forty-two`; a larger number stays in digits.
pub(super) fn word(number: u64) -> String {
    match number {
        0..20 => SMALL[number as usize].to_owned(),
        20..100 if number.is_multiple_of(10) => TENS[(number / 10) as usize].to_owned(),
        20..100 => format!("{}-{}", TENS[(number / 10) as usize], SMALL[(number % 10) as usize]),
        100..1000 => {
            let hundreds = format!("{} hundred", SMALL[(number / 100) as usize]);
            if number.is_multiple_of(100) {
                hundreds
            } else {
                format!("{hundreds} and {}", word(number % 100))
            }
        }
        _ => number.to_string(),
    }
}

/// Whether every number of a text stands by itself and is read back from its word.
pub(super) fn are_small(text: &str) -> bool {
    let has_digit = |word: &str| word.contains(|c: char| c.is_ascii_digit());
    let is_small = |word: &str| word.len() <= 2 && word.bytes().all(|b| b.is_ascii_digit());
    text.split(|c: char| !c.is_alphanumeric()).all(|word| !has_digit(word) || is_small(word))
}

/// With every number of `text` as a word, and signs of arithmetic too.
pub(super) fn in_words(text: &str) -> String {
    let mut said = String::new();
    let mut digits = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        if !digits.is_empty() {
            said.push_str(&digits.parse().map_or_else(|_| digits.clone(), word));
            digits.clear();
        }
        match c {
            '\0' => {}
            '+' => said.push_str("plus"),
            '*' => said.push_str("times"),
            '=' => said.push_str("is"),
            c => said.push(c),
        }
    }
    said.replace(" - ", " minus ")
}

/// With every number word below 100 of a text in lower case as digits.
pub(super) fn in_digits(text: &str) -> String {
    // The longer ones first: `six` begins `sixteen`.
    let mut words: Vec<(String, u64)> = (0..100).map(|number| (word(number), number)).collect();
    words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
    let mut said = String::new();
    let mut rest = text;
    let mut inside = false;
    while let Some(first) = rest.chars().next() {
        let fits = |(word, _): &&(String, u64)| {
            rest.starts_with(word.as_str()) && !rest[word.len()..].starts_with(char::is_alphanumeric)
        };
        if !inside && let Some((word, number)) = words.iter().find(fits) {
            said.push_str(&number.to_string());
            rest = &rest[word.len()..];
            continue;
        }
        inside = first.is_alphanumeric();
        said.push(first);
        rest = &rest[first.len_utf8()..];
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for number in 0..100 {
            assert_eq!(in_digits(&word(number)), number.to_string());
        }
        assert_eq!(
            in_words("4 + 18 = 22, 22 - 1 = 21."),
            "four plus eighteen is twenty-two, twenty-two minus one is twenty-one."
        );
        assert_eq!(in_digits("often someone has twenty-two, not two"), "often someone has 22, not 2");
        assert_eq!(word(342), "three hundred and forty-two");
    }
}
