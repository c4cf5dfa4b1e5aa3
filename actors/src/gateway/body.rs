//! Request bodies: how they are received, and read as JSON. Clients in JavaScript cut strings between the two halves of a character and write the half as
//! an escape; such a half is read as U+FFFD, as their own runtimes show it, and not refused for ever.

use std::{borrow::Cow, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, header, request::Parts},
};
use futures::StreamExt;
use openclaw_model::exact_json;
use serde_json::{Map, Value};

use super::{Shared, admission::BodyRoom, errors::ApiError};

/// A client that sends its body slower than this is not waited for.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The largest body of what is no conversation.
const SMALL_BYTES: usize = 256 << 10;

/// The length that a client says its body has.
fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a body up to `limit_bytes`. One that is too large is read to its end, within reason, and thrown away: a
/// client that is still sending would otherwise see a broken connection and not the error.
pub(super) async fn receive(headers: &HeaderMap, body: Body, limit_bytes: usize) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::too_large(limit_bytes);
    let announced = announced(headers).unwrap_or(0);
    if announced > limit_bytes && headers.contains_key(header::EXPECT) {
        return Err(too_large());
    }
    let most = limit_bytes.saturating_mul(16);
    let read = async {
        let mut chunks = body.into_data_stream();
        let mut bytes = Vec::with_capacity(announced.min(limit_bytes));
        let mut total = 0_usize;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| ApiError::not_json(format!("The body broke off: {error}.")))?;
            total = total.saturating_add(chunk.len());
            if total > most {
                break;
            }
            if total <= limit_bytes {
                bytes.extend_from_slice(&chunk);
            }
        }
        if total > limit_bytes { Err(too_large()) } else { Ok(Bytes::from(bytes)) }
    };
    match tokio::time::timeout(TIMEOUT, read).await {
        Ok(read) => read,
        Err(_) if announced > limit_bytes => Err(too_large()),
        Err(_) => Err(ApiError::slow_body()),
    }
}

/// Takes a place for a request to the model, by the length that it announces, and reads its body.
pub(super) async fn receive_admitted(
    shared: &Shared,
    request: Request,
) -> Result<(Parts, Bytes, BodyRoom), ApiError> {
    let (parts, body) = request.into_parts();
    let limit_bytes = shared.config.max_body_bytes;
    // One that announces no length may take the most.
    let bytes = announced(&parts.headers).map_or(limit_bytes, |bytes| bytes.min(limit_bytes));
    let room = shared.admission.admit_body(bytes).await?;
    let body = receive(&parts.headers, body, limit_bytes).await?;
    Ok((parts, body, room))
}

/// Reads the body of what is no conversation.
pub(super) async fn receive_small(
    headers: &HeaderMap,
    body: Body,
    limit_bytes: usize,
) -> Result<Bytes, ApiError> {
    receive(headers, body, limit_bytes.min(SMALL_BYTES)).await
}

/// Reads a body as JSON.
pub(super) fn read(body: &[u8]) -> Result<Value, serde_json::Error> {
    read_as(body, |json| serde_json::from_slice(json))
}

/// Reads a body as a JSON object.
pub(super) fn read_object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let refused = |problem: &str| ApiError::not_json(format!("The body is not a JSON object: {problem}."));
    match read(body).map_err(|error| refused(&error.to_string()))? {
        Value::Object(fields) => Ok(fields),
        _ => Err(refused("it is another value")),
    }
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
