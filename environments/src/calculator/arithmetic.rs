//! Sums of whole numbers.

/// The value of a sum with `+`, `-`, `*` and parentheses, or what is wrong with it.
pub(super) fn value(text: &str) -> Result<i128, &'static str> {
    let letters: Vec<char> = text.trim().chars().collect();
    if letters.len() > 200 {
        return Err("the expression is too long");
    }
    let mut reader = Reader { letters: &letters, at: 0, depth: 0 };
    let value = reader.sum()?;
    if reader.at == letters.len() { Ok(value) } else { Err("syntax error") }
}

const TOO_LARGE: &str = "the result is too large";

struct Reader<'a> {
    letters: &'a [char],
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn take(&mut self, wanted: &[char]) -> Option<char> {
        while self.letters.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
        let next = self.letters.get(self.at).filter(|c| wanted.contains(c)).copied();
        self.at += usize::from(next.is_some());
        next
    }

    fn sum(&mut self) -> Result<i128, &'static str> {
        let mut sum = self.product()?;
        while let Some(operator) = self.take(&['+', '-', '−']) {
            let next = self.product()?;
            let next = if operator == '+' { Some(next) } else { next.checked_neg() };
            sum = next.and_then(|next| sum.checked_add(next)).ok_or(TOO_LARGE)?;
        }
        Ok(sum)
    }

    fn product(&mut self) -> Result<i128, &'static str> {
        let mut product = self.factor()?;
        while self.take(&['*', 'x', '×']).is_some() {
            product = product.checked_mul(self.factor()?).ok_or(TOO_LARGE)?;
        }
        Ok(product)
    }

    fn factor(&mut self) -> Result<i128, &'static str> {
        if self.take(&['-']).is_some() {
            self.depth += 1;
            if self.depth > 64 {
                return Err("syntax error");
            }
            return self.factor()?.checked_neg().ok_or(TOO_LARGE);
        }
        if self.take(&['(']).is_some() {
            self.depth += 1;
            if self.depth > 64 {
                return Err("syntax error");
            }
            let inner = self.sum()?;
            return self.take(&[')']).map(|_| inner).ok_or("syntax error");
        }
        let start = self.at;
        while self.letters.get(self.at).is_some_and(char::is_ascii_digit) {
            self.at += 1;
        }
        let digits: String = self.letters[start..self.at].iter().collect();
        match digits.len() {
            0 => Err("syntax error"),
            _ => digits.parse().map_err(|_| TOO_LARGE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_what_is_none() {
        for (text, expected) in [
            ("41 * 86", Ok(3526)),
            ("2+3*4-5", Ok(9)),
            ("(2 + 3) * -4", Ok(-20)),
            ("7 × 8 − 6", Ok(50)),
            ("", Err("syntax error")),
            ("1 +", Err("syntax error")),
            ("1 2", Err("syntax error")),
            ("import os", Err("syntax error")),
            ("99999999999999999999 * 99999999999999999999", Err(TOO_LARGE)),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
        assert!(value(&"(".repeat(150)).is_err());
        assert!(value(&"-".repeat(150)).is_err());
    }
}
