//! Request bodies as JSON. Clients in JavaScript cut strings between the two halves of a character and write the half as
//! an escape; such a half is read as U+FFFD, as their own runtimes show it, and not refused for ever.

use std::borrow::Cow;

use openclaw_model::exact_json;
use serde_json::Value;

/// Reads a body.
pub(super) fn read(body: &[u8]) -> Result<Value, serde_json::Error> {
    read_as(body, |json| serde_json::from_slice(json))
}

/// Reads the body of a request to a model: the numbers in what that is shown stay as they are written.
pub(super) fn read_request(body: &[u8]) -> Result<Value, serde_json::Error> {
    read_as(body, |json| match std::str::from_utf8(json) {
        Ok(json) => exact_json::read_request(json),
        // It tells where.
        Err(_) => serde_json::from_slice(json),
    })
}

fn read_as(
    body: &[u8],
    read: impl Fn(&[u8]) -> Result<Value, serde_json::Error>,
) -> Result<Value, serde_json::Error> {
    read(body).or_else(|error| match whole_characters(body) {
        Cow::Borrowed(_) => Err(error),
        Cow::Owned(mended) => read(&mended),
    })
}

/// `json` with U+FFFD in place of each escaped half of a surrogate pair that lacks its other half.
fn whole_characters(json: &[u8]) -> Cow<'_, [u8]> {
    let mut mended: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(found) = json[at..].iter().position(|byte| *byte == b'\\') {
        let escape = at + found;
        let unit = |place: usize| {
            let digits = json.get(place..place + 6)?.strip_prefix(b"\\u")?;
            u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
        };
        let is_low = |unit: u16| (0xdc00..0xe000).contains(&unit);
        at = match unit(escape) {
            Some(0xd800..0xdc00) if unit(escape + 6).is_some_and(is_low) => escape + 12,
            Some(0xd800..0xe000) => {
                // Of the same length, so that later places stay where they are.
                mended.get_or_insert_with(|| json.to_vec())[escape..escape + 6].copy_from_slice(b"\\ufffd");
                escape + 6
            }
            Some(_) => escape + 6,
            // What is escaped may itself be a backslash.
            None => (escape + 2).min(json.len()),
        };
    }
    mended.map_or(Cow::Borrowed(json), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(json: &str) -> Value {
        read(json.as_bytes()).expect("it can be read")
    }

    #[test]
    fn half_a_character_is_read_as_the_replacement_character() {
        assert_eq!(text(r#"["cut \ud83e... off"]"#), json!(["cut \u{fffd}... off"]));
        assert_eq!(text(r#"{"a\udd70": "\udd70\ud83e"}"#), json!({"a\u{fffd}": "\u{fffd}\u{fffd}"}));
        assert_eq!(text(r#"["\ud83e\ud83e\udd70 \ud83e"]"#), json!(["\u{fffd}\u{1f970} \u{fffd}"]));
        assert_eq!(text(r#"["\ud83e"]"#), json!(["\u{fffd}"]));
    }

    #[test]
    fn whole_characters_and_escaped_backslashes_stay() {
        assert_eq!(
            text(r#"["\ud83e\udd70", "\\ud83e", "\\\\ud83e\n\u00e9"]"#),
            json!(["🥰", "\\ud83e", "\\\\ud83e\né"])
        );
        // Beside a half, too: the mended text is what all the others were.
        assert_eq!(text(r#"["\\ud83e \ud83e \ud83e\udd70"]"#), json!(["\\ud83e \u{fffd} 🥰"]));
    }

    #[test]
    fn what_is_no_json_for_another_reason_is_refused_for_that() {
        for broken in ["", "{", "[\"\\u12\"]", "[\"\\ud83e\"", "[\"\\", "nul"] {
            assert!(read(broken.as_bytes()).is_err(), "{broken}");
        }
    }
}
