//! A reply as it arrives: server-sent events out of bytes that come in any pieces, and what each adds to the reply.

use std::collections::VecDeque;

use anyhow::{Context, bail};
use axum::body::Bytes;
use futures::{StreamExt, stream::BoxStream};
use openclaw_actors::event_stream::EventStream;
use reqwest::Response;
use serde_json::Value;

/// What was added to a reply.
#[derive(Debug, PartialEq)]
pub enum Piece {
    /// The model thinks; nothing of that is sent again.
    Thought(String),
    /// It speaks.
    Text(String),
}

/// A reply under way. Dropping it hangs up, and the gateway stops drawing.
pub struct Replying {
    /// The version that answers.
    pub version: Option<String>,
    /// Names the reply, once it has begun.
    pub id: Option<String>,
    bytes: BoxStream<'static, reqwest::Result<Bytes>>,
    events: EventStream,
    pieces: VecDeque<Piece>,
    is_done: bool,
}

impl Replying {
    /// Reads the body of this answer.
    pub fn new(response: Response) -> Self {
        let version = response.headers().get("x-policy-version").and_then(|version| version.to_str().ok());
        Self {
            version: version.map(str::to_owned),
            id: None,
            bytes: response.bytes_stream().boxed(),
            events: EventStream::default(),
            pieces: VecDeque::new(),
            is_done: false,
        }
    }

    /// What comes next; nothing at its end. A reply without an end is an error.
    pub async fn next(&mut self) -> anyhow::Result<Option<Piece>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Ok(Some(piece));
            }
            let Some(bytes) = self.bytes.next().await else {
                anyhow::ensure!(self.is_done, "the reply was cut");
                return Ok(None);
            };
            for event in self.events.push(&bytes.context("the reply was cut")?) {
                self.take(&event)?;
            }
        }
    }

    fn take(&mut self, event: &str) -> anyhow::Result<()> {
        if event == "[DONE]" {
            self.is_done = true;
            return Ok(());
        }
        let chunk: Value = serde_json::from_str(event).context("the reply is not JSON")?;
        if let Some(message) = chunk["error"]["message"].as_str() {
            bail!("{message}");
        }
        if let Some(id) = chunk["id"].as_str() {
            self.id = Some(id.to_owned());
        }
        let delta = &chunk["choices"][0]["delta"];
        let text = |key: &str| delta[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        self.pieces.extend(text("reasoning_content").map(Piece::Thought));
        self.pieces.extend(text("content").map(Piece::Text));
        Ok(())
    }
}
