//! Ids of tool calls. Those that a reply was given on its way to the client are not kept: it gets others, which make way for
//! the client's own where a later request tells them.

use serde_json::Value;

/// The id of a call of `message`, by its place there. The calls of a reply get ids of its turn, which is empty for what
/// a client sent.
pub fn id(call: &Value, place: usize, turn: &str) -> String {
    let given = given(call).filter(|_| turn.is_empty());
    given.map_or_else(|| format!("call-{}-{turn}", place + 1), str::to_owned)
}

/// The ids that a message gives its calls, in their order; none where it gives none.
pub fn given_by(message: &Value) -> impl Iterator<Item = Option<&str>> {
    message["tool_calls"].as_array().into_iter().flatten().map(given)
}

fn given(call: &Value) -> Option<&str> {
    call["id"].as_str().filter(|id| !id.is_empty())
}
