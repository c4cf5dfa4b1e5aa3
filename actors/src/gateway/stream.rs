//! A reply as server-sent events, token by token. Headers wait for the first token, because they name the policy
//! version; the last chunks wait for the turn to be recorded.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use axum::response::{IntoResponse, Response, Sse, sse};
use futures::{FutureExt, Stream};
use openclaw_model::OutputDelta;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::{
    chat::{Answer, Uncut},
    draft::delta_json,
    errors::ApiError,
    generation::{Drawn, Generation},
};

/// Silence of this length is broken by a comment, for proxies that close quiet connections.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Answers with a stream; an error before the first token is still a plain error.
pub async fn respond(answer: Answer) -> Result<Response, ApiError> {
    let uncut = Uncut::watch();
    let generation = match answer.begin().await {
        Ok(generation) => generation,
        Err(error) => {
            uncut.ended();
            return Err(error);
        }
    };
    let headers = answer.headers(generation.policy_version());
    // Unbounded, yet no longer than the answer: a slow reader must not slow the model down.
    let (sender, receiver) = mpsc::unbounded_channel();
    let frames = Frames {
        envelope: answer.envelope("chat.completion.chunk", generation.policy_version()),
        usage: answer.chat.include_usage,
        sender: sender.clone(),
    };
    tokio::spawn(async move {
        let told = std::panic::AssertUnwindSafe(tell(answer, generation, frames, uncut)).catch_unwind().await;
        if told.is_err() {
            error!("telling a reply panicked");
            let _ = sender.send(event(&ApiError::internal("The server failed while it answered.").body()));
        }
    });
    let keep_alive = sse::KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
    let mut response = (headers, Sse::new(Received(receiver)).keep_alive(keep_alive)).into_response();
    // Proxies must pass tokens on one by one.
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    Ok(response)
}

async fn tell(answer: Answer, mut generation: Generation, mut frames: Frames, uncut: Uncut) {
    let mut draft = answer.draft();
    frames.delta(json!({"role": "assistant", "content": ""}), Value::Null);
    let ending = loop {
        let next = tokio::select! {
            // Dropping the generation cancels it, dropping `uncut` counts it.
            () = frames.left() => return,
            next = generation.next() => next,
        };
        match next {
            Ok(Drawn::Token(token, text)) => {
                let deltas = draft.push(&token, &text, &answer.shared.tokenizer);
                frames.deltas(deltas, || draft.take_logprobs());
            }
            Ok(Drawn::End(ending, text)) => {
                frames.deltas(draft.close(&text), || draft.take_logprobs());
                break ending;
            }
            Err(error) => return frames.broken(error, uncut),
        }
    };
    if frames.sender.is_closed() {
        return;
    }
    frames.envelope.insert("policy_version".into(), ending.policy_version.into());
    let logprobs = draft.take_logprobs();
    let completed = match answer.complete(draft, ending).await {
        Ok(completed) => completed,
        Err(error) => return frames.broken(error, uncut),
    };
    uncut.ended();
    frames.chunk(json!([{"index": 0, "delta": {}, "logprobs": logprobs,
        "finish_reason": completed.finish_reason}]));
    if frames.usage {
        frames.send(json!([]), Some(completed.usage));
    }
    frames.done();
}

/// Writes chunks.
struct Frames {
    envelope: Map<String, Value>,
    usage: bool,
    sender: mpsc::UnboundedSender<sse::Event>,
}

impl Frames {
    /// Resolves when the client has left.
    async fn left(&self) {
        self.sender.closed().await;
    }

    fn deltas(&self, deltas: Vec<OutputDelta>, mut logprobs: impl FnMut() -> Value) {
        for delta in deltas {
            self.delta(delta_json(delta), logprobs());
        }
    }

    fn delta(&self, delta: Value, logprobs: Value) {
        self.chunk(json!([{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": null}]));
    }

    fn chunk(&self, choices: Value) {
        self.send(choices, self.usage.then_some(Value::Null));
    }

    fn send(&self, choices: Value, usage: Option<Value>) {
        let mut chunk = self.envelope.clone();
        chunk.insert("choices".into(), choices);
        if let Some(usage) = usage {
            chunk.insert("usage".into(), usage);
        }
        // A client that has left is noticed by `left`.
        let _ = self.sender.send(event(&Value::Object(chunk)));
    }

    fn broken(&self, error: ApiError, uncut: Uncut) {
        warn!(error = error.message, "a stream broke");
        uncut.ended();
        metrics::counter!("openclaw_gateway_turns_dropped_total", "reason" => "failed").increment(1);
        let _ = self.sender.send(event(&error.body()));
    }

    fn done(&self) {
        let _ = self.sender.send(sse::Event::default().data("[DONE]"));
    }
}

fn event(body: &Value) -> sse::Event {
    // JSON text has no line breaks, so it is one `data:` line.
    sse::Event::default().data(body.to_string())
}

struct Received(mpsc::UnboundedReceiver<sse::Event>);

impl Stream for Received {
    type Item = Result<sse::Event, Infallible>;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|event| event.map(Ok))
    }
}
