//! A reply as server-sent events, token by token. Headers wait for the first token, because they name the policy
//! version; the last events wait for the turn to be recorded.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::response::{IntoResponse, Response, Sse, sse};
use futures::{
    FutureExt, Stream,
    future::{try_join, try_join_all},
};
use openclaw_model::OutputDelta;
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::{
    answer::{Answer, Uncut},
    draft::Draft,
    errors::ApiError,
    generation::{Drawn, Generation},
    protocol::{Event, Head, Piece, Reply, Writer},
};

/// Silence of this length is broken by a comment, for proxies that close quiet connections.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Answers with a stream; an error before the first token is still a plain error.
pub async fn respond<W: Writer>(answer: Answer, mut head: Head, writer: W) -> Result<Response, ApiError> {
    let uncut = Uncut::watch();
    let generation = match answer.begin(0).await {
        Ok(generation) => generation,
        Err(error) => {
            uncut.ended();
            return Err(error);
        }
    };
    head.policy_version = generation.policy_version();
    let headers = answer.headers(&head);
    // Unbounded, yet no longer than the answer: a slow reader must not slow the model down.
    let (sender, receiver) = mpsc::unbounded_channel();
    let frames = Arc::new(Frames { told: Mutex::new(Told { writer, head }), sender });
    tokio::spawn(async move {
        let telling = tell(&answer, generation, &frames);
        let told = std::panic::AssertUnwindSafe(telling).catch_unwind().await;
        let broken = match told {
            Ok(Ok(())) => return uncut.ended(),
            // Dropping the generations cancels them, dropping `uncut` counts it.
            Ok(Err(Stopped::Left)) => return,
            Ok(Err(Stopped::Broken(error))) => error,
            Err(_) => {
                error!("telling a reply panicked");
                ApiError::internal("The server failed while it answered.")
            }
        };
        uncut.ended();
        warn!(error = broken.message, "a stream broke");
        metrics::counter!("openclaw_gateway_turns_dropped_total", "reason" => "failed").increment(1);
        let event = frames.told().writer.broken(&broken);
        frames.send([event]);
    });
    let keep_alive = sse::KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
    let mut response = (headers, Sse::new(Received(receiver)).keep_alive(keep_alive)).into_response();
    // Proxies must pass tokens on one by one.
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    Ok(response)
}

/// Why a stream has no end.
enum Stopped {
    /// Its client has left.
    Left,
    Broken(ApiError),
}

impl From<ApiError> for Stopped {
    fn from(error: ApiError) -> Self {
        Self::Broken(error)
    }
}

async fn tell<W: Writer>(answer: &Answer, first: Generation, frames: &Frames<W>) -> Result<(), Stopped> {
    frames.write(|writer, head| writer.begin(head));
    let others = (1..answer.ask.choices).map(|choice| async move {
        let generation = frames.while_heard(answer.begin(choice)).await?;
        tell_one(answer, choice, generation, frames).await
    });
    let (first, others) = try_join(tell_one(answer, 0, first, frames), try_join_all(others)).await?;
    let replies = Vec::from_iter(std::iter::once(first).chain(others));
    frames.write(|writer, head| writer.close(head, &replies));
    Ok(())
}

async fn tell_one<W: Writer>(
    answer: &Answer,
    choice: usize,
    mut generation: Generation,
    frames: &Frames<W>,
) -> Result<Reply, Stopped> {
    let mut draft = answer.draft(choice);
    let ending = loop {
        match frames.while_heard(generation.next()).await? {
            Drawn::Token(token, text) => {
                let deltas = draft.push(token, &text);
                frames.pieces(choice, deltas, &mut draft);
            }
            Drawn::End(ending, text) => {
                let deltas = draft.close(&text);
                frames.pieces(choice, deltas, &mut draft);
                break ending;
            }
        }
    };
    if frames.sender.is_closed() {
        return Err(Stopped::Left);
    }
    frames.told().head.policy_version = ending.policy_version;
    let (reply, _) = answer.complete(choice, draft, ending).await?;
    frames.write(|writer, head| writer.end(head, &reply));
    Ok(reply)
}

/// Writes events.
struct Frames<W> {
    told: Mutex<Told<W>>,
    sender: mpsc::UnboundedSender<Event>,
}

struct Told<W> {
    writer: W,
    head: Head,
}

impl<W: Writer> Frames<W> {
    /// Ends with the client's patience.
    async fn while_heard<T>(&self, next: impl Future<Output = Result<T, ApiError>>) -> Result<T, Stopped> {
        tokio::select! {
            () = self.sender.closed() => Err(Stopped::Left),
            next = next => Ok(next?),
        }
    }

    fn told(&self) -> MutexGuard<'_, Told<W>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pieces(&self, choice: usize, deltas: Vec<OutputDelta>, draft: &mut Draft) {
        for delta in deltas {
            let piece = Piece { choice, delta, tokens: draft.take_tokens() };
            self.write(|writer, head| writer.piece(head, piece));
        }
    }

    fn write(&self, write: impl FnOnce(&mut W, &Head) -> Vec<Event>) {
        let Told { writer, head } = &mut *self.told();
        self.send(write(writer, head));
    }

    fn send(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            // A client that has left is noticed by `while_heard`.
            let _ = self.sender.send(event);
        }
    }
}

struct Received(mpsc::UnboundedReceiver<Event>);

impl Stream for Received {
    type Item = Result<sse::Event, Infallible>;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|event| event.map(|event| Ok(event.into())))
    }
}
