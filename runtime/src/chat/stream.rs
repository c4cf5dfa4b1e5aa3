//! A reply as it arrives: server-sent events out of bytes that come in any pieces, and what each adds to the reply.

use std::collections::VecDeque;

use anyhow::{Context, bail};
use axum::body::Bytes;
use futures::{StreamExt, stream::BoxStream};
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
    events: Events,
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
            events: Events::default(),
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

#[derive(Default)]
struct Events {
    pending: Vec<u8>,
}

impl Events {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.pending.extend_from_slice(bytes);
        let Some(end) = self.pending.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let rest = self.pending.split_off(end + 1);
        let lines = std::mem::replace(&mut self.pending, rest);
        let lines = String::from_utf8_lossy(&lines);
        lines
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(|data| data.trim().to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_the_bytes_are_cut() {
        let text = "data: {\"a\":\"é\"}\n\n: keep-alive\ndata: [DONE]\n\n".as_bytes();
        for cut in 0..text.len() {
            let mut events = Events::default();
            let mut found = events.push(&text[..cut]);
            found.extend(events.push(&text[cut..]));
            assert_eq!(found, ["{\"a\":\"é\"}", "[DONE]"], "cut at {cut}");
        }
    }
}
