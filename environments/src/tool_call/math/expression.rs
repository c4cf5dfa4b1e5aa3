//! Evaluates a small expression, in LaTeX or plain text, without variables. Depth and work are bounded; whatever
//! is not understood is no value, and the caller compares text instead.
use super::value::Value;

/// Deepest nesting.
const DEPTH_MAX: usize = 40;

/// Most work, in operations on 64-bit words.
const WORK_MAX: usize = 16_000;

/// The value of all of `text`.
pub(super) fn evaluate(text: &str) -> Option<Value> {
    let mut parser = Parser { rest: text, depth: 0, work: 0 };
    let value = parser.sum()?;
    parser.skip_spaces();
    parser.rest.is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
    work: usize,
}

/// What a factor looked like: two bare numbers in a row are no product.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Integer,
    Number,
    Other,
}

impl<'a> Parser<'a> {
    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, prefix: &str) -> bool {
        self.skip_spaces();
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A `\name` that is not the beginning of a longer one.
    fn take_command(&mut self, name: &str) -> bool {
        self.skip_spaces();
        match self.rest.strip_prefix('\\').and_then(|rest| rest.strip_prefix(name)) {
            Some(rest) if !rest.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn spend(&mut self, value: Value) -> Option<Value> {
        self.work += value.words();
        (self.work <= WORK_MAX).then_some(value)
    }

    fn sum(&mut self) -> Option<Value> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return None;
        }
        let mut total = self.product()?;
        loop {
            let minus = if self.take("+") {
                false
            } else if self.take("-") {
                true
            } else {
                break;
            };
            let term = self.product()?;
            total = total.add(if minus { term.neg() } else { term })?;
            total = self.spend(total)?;
        }
        self.depth -= 1;
        Some(total)
    }

    fn product(&mut self) -> Option<Value> {
        let (mut total, mut form) = self.factor()?;
        loop {
            let next = if self.take("*") || self.take_command("times") || self.take_command("cdot") {
                self.factor()?.0
            } else if self.take("/") || self.take_command("div") {
                let (divisor, _) = self.factor()?;
                total = total.div(divisor)?;
                total = self.spend(total)?;
                form = Form::Other;
                continue;
            } else if form == Form::Integer && self.proper_fraction() {
                let (fraction, _) = self.factor()?;
                total = total.add(fraction)?;
                form = Form::Other;
                continue;
            } else if self.starts_factor(form) {
                self.factor()?.0
            } else {
                return Some(total);
            };
            total = total.mul(next)?;
            total = self.spend(total)?;
            form = Form::Other;
        }
    }

    /// Whether `\frac{a}{b}` with whole numbers 0 < a < b comes next: after a whole number it makes a mixed one.
    fn proper_fraction(&mut self) -> bool {
        self.skip_spaces();
        let Some(rest) = self.rest.strip_prefix("\\frac") else { return false };
        let mut ahead = Parser { rest, depth: 0, work: 0 };
        let mut part = || -> Option<u64> {
            let text = ahead.raw_argument()?;
            text.trim().bytes().all(|b| b.is_ascii_digit()).then(|| text.trim().parse().ok())?
        };
        matches!((part(), part()), (Some(a), Some(b)) if 0 < a && a < b)
    }

    fn starts_factor(&mut self, before: Form) -> bool {
        self.skip_spaces();
        match self.rest.chars().next() {
            Some('(' | '{') => true,
            Some(c) if c.is_ascii_digit() || c == '.' => before == Form::Other,
            Some('\\') => ["frac", "sqrt", "pi", "binom"].iter().any(|name| self.rest[1..].starts_with(name)),
            Some('p') => self.rest.starts_with("pi"),
            Some('s') => self.rest.starts_with("sqrt"),
            Some('e') => !self.rest[1..].starts_with(|c: char| c.is_ascii_alphabetic()),
            _ => false,
        }
    }

    /// A signed base with its powers and factorials; `-2^2` is -4.
    fn factor(&mut self) -> Option<(Value, Form)> {
        if self.take("-") {
            self.deeper()?;
            let (value, form) = self.factor()?;
            self.depth -= 1;
            return Some((value.neg(), form));
        }
        if self.take("+") {
            self.deeper()?;
            let inner = self.factor()?;
            self.depth -= 1;
            return Some(inner);
        }
        let (mut value, mut form) = self.base()?;
        loop {
            if self.take("!") {
                value = value.factorial()?;
            } else if self.take("**") || self.take("^") {
                self.deeper()?;
                let exponent =
                    if self.rest.trim_start().starts_with('{') { self.argument()? } else { self.factor()?.0 };
                self.depth -= 1;
                value = value.pow(exponent)?;
            } else {
                return Some((value, form));
            }
            value = self.spend(value)?;
            form = Form::Other;
        }
    }

    fn deeper(&mut self) -> Option<()> {
        self.depth += 1;
        (self.depth <= DEPTH_MAX).then_some(())
    }

    fn base(&mut self) -> Option<(Value, Form)> {
        self.skip_spaces();
        if self.rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return self.number();
        }
        let value = if self.take("(") {
            self.closed(")")?
        } else if self.take("{") {
            self.closed("}")?
        } else if self.take_command("frac") || self.rest.strip_prefix("\\frac").is_some_and(starts_digit) {
            self.take("\\frac");
            let numerator = self.argument()?;
            let denominator = self.argument()?;
            numerator.div(denominator)?
        } else if self.take_command("binom") {
            let n = self.argument()?;
            let k = self.argument()?;
            n.choose(k)?
        } else if self.take_command("sqrt") || self.rest.strip_prefix("\\sqrt").is_some_and(starts_digit) {
            self.take("\\sqrt");
            let degree = if self.take("[") { self.closed("]")?.to_i32()? } else { 2 };
            self.argument()?.root(u32::try_from(degree).ok()?)?
        } else if self.take("sqrt") {
            if !self.take("(") {
                return None;
            }
            self.closed(")")?.root(2)?
        } else if self.take_command("pi") || self.take("pi") {
            Value::Approx(std::f64::consts::PI)
        } else if self.take_command("infty") {
            Value::Approx(f64::INFINITY)
        } else if self.starts_factor(Form::Other) && self.take("e") {
            Value::Approx(std::f64::consts::E)
        } else {
            return None;
        };
        Some((self.spend(value)?, Form::Other))
    }

    fn closed(&mut self, close: &str) -> Option<Value> {
        let value = self.sum()?;
        self.take(close).then_some(value)
    }

    /// `{..}`, or the one digit or command that TeX takes without braces.
    fn argument(&mut self) -> Option<Value> {
        if self.take("{") {
            return self.closed("}");
        }
        self.skip_spaces();
        match self.rest.as_bytes().first() {
            Some(digit) if digit.is_ascii_digit() => {
                self.rest = &self.rest[1..];
                Some(Value::integer(i64::from(digit - b'0')))
            }
            Some(b'\\') => {
                self.deeper()?;
                let value = self.base()?.0;
                self.depth -= 1;
                Some(value)
            }
            _ => None,
        }
    }

    fn raw_argument(&mut self) -> Option<&'a str> {
        self.skip_spaces();
        if let Some(rest) = self.rest.strip_prefix('{') {
            let end = rest.find('}')?;
            self.rest = &rest[end + 1..];
            return Some(&rest[..end]);
        }
        let digit = self.rest.get(..1)?;
        self.rest = &self.rest[1..];
        Some(digit)
    }

    fn number(&mut self) -> Option<(Value, Form)> {
        let whole = self.digits();
        let point = self.rest.strip_prefix('.');
        let fraction = match point {
            Some(rest) => {
                self.rest = rest;
                self.digits()
            }
            None => "",
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let exponent = self.exponent();
        let form = if point.is_none() && exponent.is_none() { Form::Integer } else { Form::Number };
        let value = Value::decimal(whole, fraction, exponent.unwrap_or(0))?;
        Some((self.spend(value)?, form))
    }

    fn digits(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        digits
    }

    /// `e-7`; without digits the `e` stays, for Euler's number.
    fn exponent(&mut self) -> Option<i32> {
        let rest = self.rest.strip_prefix(['e', 'E'])?;
        let (negative, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest.strip_prefix('+').unwrap_or(rest)),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let size: i32 = rest[..end].parse().ok()?;
        self.rest = &rest[end..];
        Some(if negative { -size } else { size })
    }
}

fn starts_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}
