//! Token ids to text as they are drawn: only complete characters leave.

use crate::tokenizer::Tokenizer;

/// Control tokens give no text, but these carry meaning for whoever parses the response, whatever the vocabulary calls
/// them.
const VISIBLE_MARKERS: [&str; 6] =
    ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"];

/// Turns one response's tokens into text.
#[derive(Debug)]
pub struct IncrementalDetokenizer {
    tokenizer: Tokenizer,
    visible: [Option<u32>; VISIBLE_MARKERS.len()],
    /// The start of a character that is not complete yet: at most 3 bytes between calls.
    incomplete: Vec<u8>,
}

impl IncrementalDetokenizer {
    /// For one response.
    pub fn new(tokenizer: Tokenizer) -> Self {
        let visible = VISIBLE_MARKERS.map(|marker| tokenizer.special_id(marker));
        Self { tokenizer, visible, incomplete: Vec::new() }
    }

    /// The text that this token completes. Bytes that can no longer become UTF-8 are U+FFFD.
    pub fn push(&mut self, id: u32) -> String {
        if self.tokenizer.is_special(id) && !self.visible.contains(&Some(id)) {
            return String::new();
        }
        self.incomplete.extend_from_slice(self.tokenizer.bytes_of(id));

        let mut text = String::new();
        let mut rest = self.incomplete.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).expect("from_utf8 said how far it is valid"));
                    rest = after;
                    let Some(invalid) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[invalid..];
                }
            }
        }
        let kept = rest.len();
        self.incomplete.drain(..self.incomplete.len() - kept);
        text
    }

    /// What is left when no more tokens come: U+FFFD if the last character is incomplete.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.incomplete).into_owned();
        self.incomplete.clear();
        text
    }
}
