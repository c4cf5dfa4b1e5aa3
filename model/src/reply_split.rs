//! How a reply divides: what was thought, what was said, and what was called.

use std::ops::Range;

use crate::output_parser::{OutputParser, ParserConfig, THINK, THINK_END, TOOL_CALL, TOOL_CALL_END};

/// Where the parts of a reply lie. Places are bytes of its text; the parts hold their marks.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReplySplit {
    /// The prompt left a thought open, so that the reply begins within it.
    pub starts_in_thinking: bool,
    /// Where the answer begins: behind the thinking, at 0 without any, and at the end of one that never ends.
    pub answer_at: usize,
    /// The tool calls, in their order.
    pub calls: Vec<Range<usize>>,
}

impl ReplySplit {
    /// Of a complete text.
    pub fn of(text: &str, config: ParserConfig) -> Self {
        let mut parser = OutputParser::new(config);
        parser.push(text);
        parser.finish();
        parser.split().clone()
    }

    /// What stands behind the thinking, tool calls included; nothing where that never ends.
    pub fn answer<'a>(&self, text: &'a str) -> &'a str {
        text.get(self.answer_at..).unwrap_or_default()
    }

    /// What was thought, without the marks.
    pub fn thinking<'a>(&self, text: &'a str) -> &'a str {
        let thought = text.get(..self.answer_at).unwrap_or_default().trim_start();
        let thought = thought.strip_prefix(THINK).unwrap_or(thought);
        thought.strip_suffix(THINK_END).unwrap_or(thought).trim_matches('\n')
    }

    /// What stands behind the thinking, without tool calls.
    pub fn words(&self, text: &str) -> String {
        let mut words = String::new();
        let mut from = self.answer_at;
        for call in &self.calls {
            words.push_str(text.get(from..call.start).unwrap_or_default());
            from = call.end;
        }
        words.push_str(text.get(from..).unwrap_or_default());
        words
    }

    /// What each call is, without its marks.
    pub fn called<'a>(&self, text: &'a str) -> impl Iterator<Item = &'a str> {
        self.calls.iter().map(|call| {
            let call = text.get(call.clone()).unwrap_or_default();
            let call = call.strip_prefix(TOOL_CALL).unwrap_or(call);
            call.strip_suffix(TOOL_CALL_END).unwrap_or(call).trim_matches('\n')
        })
    }

    /// Whether every place lies within `text`, one behind the other.
    pub fn fits(&self, text: &str) -> bool {
        let mut last = 0;
        let places = self.calls.iter().flat_map(|call| [call.start, call.end]);
        [self.answer_at].into_iter().chain(places).all(|place| {
            let in_order = place >= last && text.is_char_boundary(place);
            last = place;
            in_order
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn split(text: &str, starts_in_thinking: bool) -> ReplySplit {
        let tools = [json!({"type": "function", "function": {"name": "ls"}})];
        ReplySplit::of(text, ParserConfig::new(&tools, starts_in_thinking))
    }

    #[test]
    fn every_part_of_a_reply_is_found_again_in_its_text() {
        let call = "<tool_call>\n{\"name\": \"ls\", \"arguments\": {\"path\": \"</think>\"}}\n</tool_call>";
        let open = "<tool_call>{\"name\": \"ls\"}";
        let cases: [(&str, bool, &str, &str, &[&str]); 9] = [
            ("hi", false, "", "hi", &[]),
            ("<think>\nhm\n</think>\n\nhi </think>", false, "hm", "\n\nhi </think>", &[]),
            ("hm</think>hi", true, "hm", "hi", &[]),
            ("hm", true, "hm", "", &[]),
            ("  <think>hm", false, "hm", "", &[]),
            ("the tag <think> is text", false, "", "the tag <think> is text", &[]),
            (call, false, "", "", &[call]),
            (open, false, "", "", &[open]),
            (
                "<tool_call>{\"name\": \"rm\"}</tool_call>",
                false,
                "",
                "<tool_call>{\"name\": \"rm\"}</tool_call>",
                &[],
            ),
        ];
        for (text, starts_in_thinking, thinking, words, calls) in cases {
            let split = split(text, starts_in_thinking);
            let found: Vec<&str> = split.calls.iter().map(|call| &text[call.clone()]).collect();
            assert_eq!((split.thinking(text), &*split.words(text)), (thinking, words), "{text}");
            assert_eq!(found, calls, "{text}");
            assert!(split.fits(text), "{text}");
        }
        let two = format!("<think>a</think>First {call} then {call}.");
        let split = split(&two, false);
        assert_eq!(split.words(&two), "First  then .");
        assert!(split.calls.iter().all(|place| &two[place.clone()] == call) && split.calls.len() == 2);
        let called = r#"{"name": "ls", "arguments": {"path": "</think>"}}"#;
        assert_eq!(split.called(&two).collect::<Vec<_>>(), [called; 2]);
    }

    #[test]
    fn the_split_does_not_depend_on_how_a_reply_arrives() {
        let text =
            "<think>é\n</think>\n\nLook: <tool_call>{\"name\": \"ls\", \"arguments\": {}}</tool_call> é";
        let tools = [json!({"type": "function", "function": {"name": "ls"}})];
        let mut parser = OutputParser::new(ParserConfig::new(&tools, false));
        for letter in text.chars() {
            parser.push(letter.encode_utf8(&mut [0; 4]));
        }
        parser.finish();
        assert_eq!(*parser.split(), split(text, false));
        assert_eq!(split(text, false).calls.len(), 1);
    }

    #[test]
    fn a_split_of_another_text_does_not_fit() {
        let split = split("<think>ab</think>hi", false);
        assert!(!split.fits("<think>ab") && !split.fits("<think>ab</thinké"));
    }
}
