//! Answers that are no streams.

use axum::{
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use futures::future::{try_join, try_join_all};
use openclaw_model::{FinishReason, exact_json};
use serde_json::Value;

use super::{
    answer::{Answer, FAILING, JOURNAL, Uncut},
    errors::ApiError,
    generation::{Drawn, Generation},
    protocol::{Head, Reply, Writer},
};

/// Answers when all is drawn.
pub async fn respond<W: Writer>(answer: Answer, mut head: Head, mut writer: W) -> Result<Response, ApiError> {
    if answer.ask.max_tokens == Some(0) {
        let body = writer.whole(&head, vec![undrawn(&head)]);
        return Ok(json_of(answer.headers(&head), &body));
    }
    let uncut = Uncut::watch();
    let drawn = draw_all(&answer).await;
    uncut.ended();
    let drawn = drawn?;
    head.policy_version = drawn.iter().map(|drawn| drawn.version).max().unwrap_or(head.policy_version);
    let mut headers = answer.headers(&head);
    if drawn.iter().any(|drawn| !drawn.recorded) {
        headers.insert(JOURNAL, FAILING);
    }
    let body = writer.whole(&head, drawn.into_iter().map(|drawn| drawn.reply).collect());
    Ok(json_of(headers, &body))
}

/// Numbers of a call's arguments stay as they were written.
fn json_of(headers: HeaderMap, body: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (headers, kind, exact_json::to_json(body)).into_response()
}

/// A reply that was asked to have no tokens: the prompt's log-probabilities are what the client wants.
fn undrawn(head: &Head) -> Reply {
    Reply {
        choice: 0,
        turn: head.id.clone(),
        parts: Vec::new(),
        reason: FinishReason::Length,
        stopped_by: None,
        tokens: Vec::new(),
        text: String::new(),
        drawn: 0,
        cached: 0,
    }
}

struct DrawnReply {
    reply: Reply,
    version: u64,
    recorded: bool,
}

async fn draw_all(answer: &Answer) -> Result<Vec<DrawnReply>, ApiError> {
    let first = answer.begin(0).await?;
    let others = (1..answer.ask.choices).map(|choice| async move {
        let generation = answer.begin(choice).await?;
        draw(answer, choice, generation).await
    });
    let (first, others) = try_join(draw(answer, 0, first), try_join_all(others)).await?;
    Ok(std::iter::once(first).chain(others).collect())
}

async fn draw(answer: &Answer, choice: usize, mut generation: Generation) -> Result<DrawnReply, ApiError> {
    let mut draft = answer.draft(choice);
    loop {
        match generation.next().await? {
            Drawn::Token(token, text) => drop(draft.push(token, &text)),
            Drawn::End(ending, text) => {
                draft.close(&text);
                let (reply, recorded) = answer.complete(choice, draft, ending).await?;
                return Ok(DrawnReply { reply, version: ending.policy_version, recorded });
            }
        }
    }
}
