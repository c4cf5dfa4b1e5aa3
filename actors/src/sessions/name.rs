//! Short names of long things. They are kept in the journal, so they must come out the same in every build and on
//! every machine: `std`'s hasher and `Hash` promise neither.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// Names a sequence of texts and numbers. Where one part ends and the next begins matters.
#[derive(Debug, Default)]
pub struct Name(SipHasher13);

impl Name {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on with a text.
    pub fn text(mut self, text: &str) -> Self {
        self = self.number(text.len() as u64);
        self.0.write(text.as_bytes());
        self
    }

    /// Goes on with a number.
    pub fn number(mut self, number: u64) -> Self {
        self.0.write(&number.to_le_bytes());
        self
    }

    /// The name.
    pub fn finish(&self) -> u64 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_for_ever() {
        assert_eq!(Name::new().text("hello").number(7).finish(), 0x2f73_4618_329d_e4fa);
        assert_ne!(Name::new().text("ab").text("c").finish(), Name::new().text("a").text("bc").finish());
    }
}
