//! Whether two final answers say the same. What can be computed is compared as a number, exactly where it is a
//! fraction; sets, tuples, intervals and lists element by element; all else as text in one spelling.
//!
//! It prefers to say no: a text that is not understood equals its own spelling alone.
mod clean;
mod expression;
mod shape;
mod unit;
mod value;

/// Longest answer that is understood, in bytes; a longer one equals itself alone.
pub const ANSWER_BYTES_MAX: usize = 2000;

/// Whether `given` says the same as `expected`. An empty answer equals nothing.
///
/// - Numbers: `1,000`, `1\,000`, `1.5 \times 10^3`, `3\frac12`, `\sqrt[3]{8}`, `2^{10}`, `5!`, `\binom{4}{2}`, `\pi`.
/// - `50\%` equals `50` and `0.5`. A unit or a name (`x = 5`) on one side alone is ignored.
/// - `(1, 2)`, `[1, 2)`: in order, with these brackets. `\{1, 2\}`: in any order, each once; `1, 2` says
///   the same, but repetitions count in it.
/// - `\pm 2` is the two answers `2, -2`. `(A)` and `A` are the same choice.
pub fn equal(expected: &str, given: &str) -> bool {
    let (expected, given) = (expected.trim(), given.trim());
    if expected.is_empty() || given.is_empty() {
        return false;
    }
    if expected == given {
        return true;
    }
    if expected.len() > ANSWER_BYTES_MAX || given.len() > ANSWER_BYTES_MAX {
        return false;
    }
    let (expected, given) = (clean::clean(expected), clean::clean(given));
    !expected.is_empty() && (expected == given || shape::read(&expected).same(&shape::read(&given)))
}

#[cfg(test)]
mod tests;
