//! A client of OpenAI-compatible chat endpoints: what an outside judge is asked through, and what rollout workers
//! talk to the gateway with.

use std::time::Duration;

use futures::StreamExt;
use reqwest::{StatusCode, header::HeaderMap};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::event_stream::EventStream;

/// First and longest pause before a retry.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));
/// A reply that streams may not grow beyond this.
const MOST_REPLY_BYTES: usize = 16 << 20;

/// Why a chat request failed.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The request did not get through.
    #[error("{url} cannot be reached")]
    Unreachable {
        /// Where it went.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The endpoint refused.
    #[error("{url} answered {status}: {body}")]
    Status {
        /// Where it went.
        url: String,
        /// The status.
        status: StatusCode,
        /// The beginning of what it said.
        body: String,
    },
    /// The endpoint answered something else than a chat completion.
    #[error("{url} sent no chat completion: {problem}")]
    Unreadable {
        /// Where it went.
        url: String,
        /// What is wrong with the answer.
        problem: String,
    },
}

impl ChatError {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Unreadable { .. } => false,
        }
    }

    /// Whether the endpoint will never take this very request, and may well take others.
    pub fn is_about_the_request(&self) -> bool {
        let about =
            [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY];
        matches!(self, Self::Status { status, .. } if about.contains(status))
    }
}

/// What a request is about.
#[derive(Clone, Debug, Default)]
pub struct ChatRequest {
    /// The conversation, in OpenAI's shape.
    pub messages: Vec<Value>,
    /// Further fields of the body: `temperature`, `max_tokens`, `seed`, ..
    pub options: Map<String, Value>,
    /// Further headers.
    pub headers: HeaderMap,
    /// Reads the reply as it is drawn.
    pub stream: bool,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatReply {
    /// The completion's id.
    pub id: String,
    /// The text.
    pub content: String,
    /// Tokens of the reply, as the endpoint counted them.
    pub completion_tokens: usize,
    /// `stop`, `length`, ..
    pub finish_reason: String,
    /// The version that answered, if the endpoint tells.
    pub policy_version: Option<u64>,
}

/// A chat endpoint.
#[derive(Clone, Debug)]
pub struct ChatClient {
    http: reqwest::Client,
    url: String,
    model: String,
    key: Option<String>,
}

impl ChatClient {
    /// `base_url` ends with `/v1`; `key` goes into the `Authorization` header.
    pub fn new(base_url: &str, model: impl Into<String>, key: Option<String>) -> Result<Self, ChatError> {
        let url = format!("{}/chat/completions", base_url.trim_end_matches('/'));
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .build()
            .map_err(|source| ChatError::Unreachable { url: url.clone(), source })?;
        Ok(Self { http, url, model: model.into(), key })
    }

    /// Where it asks.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks until an answer or a lasting refusal; the caller puts a deadline on it.
    pub async fn ask_until_answered(&self, request: &ChatRequest) -> Result<ChatReply, ChatError> {
        self.ask_again(request, drop).await
    }

    /// The same, until `deadline`: none where the endpoint took the question and the answer is late, and the last
    /// failure where it was away or did not take it.
    pub async fn ask_until(
        &self,
        request: &ChatRequest,
        deadline: Instant,
    ) -> Option<Result<ChatReply, ChatError>> {
        let mut failure = None;
        let outcome = timeout_at(deadline, self.ask_again(request, |error| failure = Some(error))).await;
        outcome.ok().or_else(|| failure.map(Err))
    }

    async fn ask_again(
        &self,
        request: &ChatRequest,
        mut failed: impl FnMut(ChatError),
    ) -> Result<ChatReply, ChatError> {
        let mut pause = BACKOFF.0;
        loop {
            match self.ask(request).await {
                Err(error) if error.is_transient() => {
                    debug!(%error, ?pause, "chat endpoint is asked again");
                    failed(error);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                }
                outcome => return outcome,
            }
        }
    }

    /// Asks once.
    pub async fn ask(&self, request: &ChatRequest) -> Result<ChatReply, ChatError> {
        let mut body = request.options.clone();
        body.insert("model".into(), self.model.as_str().into());
        body.insert("messages".into(), request.messages.clone().into());
        if request.stream {
            body.insert("stream".into(), true.into());
            body.insert("stream_options".into(), json!({"include_usage": true}));
        }
        let mut post = self.http.post(&self.url).headers(request.headers.clone()).json(&body);
        if let Some(key) = &self.key {
            post = post.bearer_auth(key);
        }
        let response = post.send().await.map_err(|source| self.unreachable(source))?;
        let status = response.status();
        if !status.is_success() {
            let body = response.text().await.unwrap_or_default().chars().take(300).collect();
            return Err(ChatError::Status { url: self.url.clone(), status, body });
        }
        if request.stream { self.read_stream(response).await } else { self.read_whole(response).await }
    }

    async fn read_whole(&self, response: reqwest::Response) -> Result<ChatReply, ChatError> {
        let body = response.bytes().await.map_err(|source| self.unreachable(source))?;
        let chunk: Chunk =
            serde_json::from_slice(&body).map_err(|error| self.unreadable(error.to_string()))?;
        let mut reply = ChatReply::default();
        if chunk.choices.is_empty() {
            return Err(self.unreadable("it has no choices".to_owned()));
        }
        chunk.add_to(&mut reply);
        Ok(reply)
    }

    async fn read_stream(&self, response: reqwest::Response) -> Result<ChatReply, ChatError> {
        let mut reply = ChatReply::default();
        let mut pieces = response.bytes_stream();
        let mut events = EventStream::default();
        while let Some(piece) = pieces.next().await {
            for data in events.push(&piece.map_err(|source| self.unreachable(source))?) {
                if data == "[DONE]" {
                    return Ok(reply);
                }
                let chunk: Chunk =
                    serde_json::from_str(&data).map_err(|error| self.unreadable(error.to_string()))?;
                if let Some(error) = &chunk.error {
                    return Err(self.unreadable(error.to_string()));
                }
                chunk.add_to(&mut reply);
            }
            if events.pending_bytes() + reply.content.len() > MOST_REPLY_BYTES {
                return Err(self.unreadable(format!("it is longer than {MOST_REPLY_BYTES} bytes")));
            }
        }
        Err(self.unreadable("it ended without [DONE]".to_owned()))
    }

    fn unreachable(&self, source: reqwest::Error) -> ChatError {
        ChatError::Unreachable { url: self.url.clone(), source: source.without_url() }
    }

    fn unreadable(&self, problem: String) -> ChatError {
        ChatError::Unreadable { url: self.url.clone(), problem }
    }
}

/// A whole completion or a piece of one: they differ in the name of one field.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    id: String,
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    policy_version: Option<u64>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(alias = "delta")]
    message: Option<Message>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    completion_tokens: usize,
}

impl Chunk {
    fn add_to(self, reply: &mut ChatReply) {
        if !self.id.is_empty() {
            reply.id = self.id;
        }
        reply.policy_version = self.policy_version.or(reply.policy_version);
        if let Some(usage) = self.usage {
            reply.completion_tokens = usage.completion_tokens;
        }
        if let Some(choice) = self.choices.into_iter().next() {
            if let Some(content) = choice.message.and_then(|message| message.content) {
                reply.content.push_str(&content);
            }
            if let Some(reason) = choice.finish_reason {
                reply.finish_reason = reason;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{future::Future, sync::Arc};

    use axum::{Json, Router, response::IntoResponse, routing::post};

    use super::*;

    /// A chat endpoint on a free port that answers with `answer`.
    pub(crate) async fn endpoint<F, A>(answer: impl Fn(Value) -> F + Clone + Send + Sync + 'static) -> String
    where
        F: Future<Output = A> + Send,
        A: IntoResponse + 'static,
    {
        let app = Router::new().route(
            "/v1/chat/completions",
            post(move |Json(body): Json<Value>| async move { answer(body).await }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}/v1")
    }

    /// A completion with this text.
    pub(crate) fn completion(text: &str) -> Json<Value> {
        ended_completion(text, "stop")
    }

    /// A completion with this text that ended for this reason.
    pub(crate) fn ended_completion(text: &str, finish_reason: &str) -> Json<Value> {
        let message = json!({"role": "assistant", "content": text});
        Json(json!({
            "id": "chatcmpl-1",
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
        }))
    }

    fn client(url: &str) -> ChatClient {
        ChatClient::new(url, "m", Some("secret".to_owned())).expect("a client")
    }

    fn hello() -> ChatRequest {
        ChatRequest { messages: vec![json!({"role": "user", "content": "hello"})], ..ChatRequest::default() }
    }

    #[tokio::test]
    async fn a_reply_reads_the_same_whole_and_streamed() {
        let whole = endpoint(|_| async { completion("a naïve answer") }).await;
        let streamed = endpoint(|body| async move {
            assert_eq!(body["stream_options"]["include_usage"], true);
            let piece = |delta: Value, reason: Value| {
                let choice = json!({"index": 0, "delta": delta, "finish_reason": reason});
                format!("data: {}\n\n", json!({"id": "chatcmpl-1", "choices": [choice]}))
            };
            let mut text = ": a comment\n\n".to_owned();
            text += &piece(json!({"role": "assistant", "content": ""}), Value::Null);
            text += &piece(json!({"content": "a naïve "}), Value::Null);
            text += &piece(json!({"content": "answer"}), json!("stop"));
            text +=
                "data: {\"id\": \"chatcmpl-1\", \"choices\": [], \"usage\": {\"completion_tokens\": 5}}\n\n";
            text + "data: [DONE]\n\n"
        })
        .await;
        let whole = client(&whole).ask(&hello()).await.expect("an answer");
        let streamed = client(&streamed).ask(&ChatRequest { stream: true, ..hello() }).await;
        assert_eq!(streamed.expect("an answer"), whole);
        assert_eq!((whole.content.as_str(), whole.completion_tokens), ("a naïve answer", 5));
    }

    #[tokio::test]
    async fn a_busy_endpoint_is_asked_again_and_a_refusal_is_not() {
        let busy_once = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let busy = endpoint(move |_| {
            let first = busy_once.swap(false, std::sync::atomic::Ordering::SeqCst);
            async move {
                if first {
                    StatusCode::TOO_MANY_REQUESTS.into_response()
                } else {
                    completion("ok").into_response()
                }
            }
        })
        .await;
        assert_eq!(client(&busy).ask_until_answered(&hello()).await.expect("an answer").content, "ok");
        let refusing = endpoint(|_| async { (StatusCode::BAD_REQUEST, "no such model") }).await;
        let error = client(&refusing).ask_until_answered(&hello()).await.expect_err("a refusal");
        assert!(error.to_string().ends_with("answered 400 Bad Request: no such model"), "{error}");
    }

    #[tokio::test]
    async fn a_stream_that_breaks_off_is_not_an_answer() {
        let broken =
            endpoint(|_| async { "data: {\"choices\": [{\"delta\": {\"content\": \"half\"}}]}\n\n" }).await;
        let error = client(&broken).ask(&ChatRequest { stream: true, ..hello() }).await.expect_err("no end");
        assert!(error.to_string().contains("ended without [DONE]"), "{error}");
    }
}
