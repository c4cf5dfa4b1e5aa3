//! OpenEnv's socket: one question at a time, and an answer to each. Between them it is kept alive.

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use reqwest::{
    StatusCode, Url,
    header::{AUTHORIZATION, CONNECTION, HeaderValue, UPGRADE},
    redirect,
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

use crate::{
    io_thread::IoThread,
    world::{Tool, WorldError},
};

const CONNECT: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// What a server says that has no place for another session.
const FULL: &str = "CAPACITY_REACHED: ";
/// Of one message, or one answer of HTTP.
const MESSAGE_BYTES: usize = 64 << 20;
/// Until the other side has heard that it is over.
const GOODBYE: Duration = Duration::from_secs(1);

/// Where sockets are opened.
pub(super) struct Door {
    pub(super) io: IoThread,
    http: reqwest::Client,
    url: Url,
    token: Option<HeaderValue>,
}

/// A socket. Dropped, it is closed.
pub(super) struct Socket {
    questions: mpsc::Sender<Question>,
    url: String,
}

struct Question {
    message: Value,
    answer: oneshot::Sender<Result<Value, String>>,
}

/// What an environment answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// What was asked for.
    Data(Value),
    /// It was asked for something that it does not do; the session goes on.
    Refused(String),
}

type Stream = WebSocketStream<reqwest::Upgraded>;

impl Door {
    pub(super) fn new(url: Url, token: Option<HeaderValue>) -> Result<Self, WorldError> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .http1_only()
            .build()
            .map_err(|error| WorldError::Broken(format!("{url}: {error}")))?;
        Ok(Self { io: IoThread::start("openenv")?, http, url, token })
    }

    fn broken(&self, why: impl std::fmt::Display) -> WorldError {
        WorldError::Broken(format!("{}: {why}", self.url))
    }

    fn request(&self, route: &str) -> reqwest::RequestBuilder {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{route}", url.path().trim_end_matches('/')));
        let request = self.http.get(url);
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, token.clone()),
            None => request,
        }
    }

    /// What lies behind a route; a server that is not there yet is waited for.
    pub(super) async fn get(&self, route: &str, until: Instant) -> Result<Value, WorldError> {
        let asked = async {
            let mut response = self.request(route).send().await?;
            let status = response.status();
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > MESSAGE_BYTES {
                    break;
                }
            }
            Ok::<_, reqwest::Error>((status, bytes))
        };
        let (status, bytes) = match timeout_at(until.into(), asked).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(error)) => return Err(self.broken(error.without_url())),
            Err(_) => return Err(self.broken("it does not answer")),
        };
        match (status, serde_json::from_slice(&bytes)) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                Err(WorldError::Refused(format!("{}: it wants another token ({status})", self.url)))
            }
            (StatusCode::OK, Ok(value)) => Ok(value),
            _ => Err(WorldError::Refused(format!(
                "{}: no environment of OpenEnv ({route}: {status})",
                self.url
            ))),
        }
    }

    /// Opens a socket and asks for a first thing. Where nobody is there, or there is no place, it is tried again.
    pub(super) async fn begin(
        &self,
        message: &Value,
        kind: &str,
        until: Instant,
        within: Duration,
    ) -> Result<(Socket, Answer), WorldError> {
        loop {
            let error = match timeout_at(until.into(), self.knock()).await {
                Ok(Ok(socket)) => {
                    let asked = socket.ask(message.clone(), kind, Instant::now() + within).await;
                    match asked {
                        Ok(answer) => return Ok((socket, answer)),
                        Err(error) if !error.to_string().contains(FULL) => return Err(error),
                        Err(full) => full,
                    }
                }
                Ok(Err(error)) => error,
                Err(_) => return Err(self.broken("it does not answer")),
            };
            if !error.may_pass() || Instant::now() + PAUSE >= until {
                return Err(error);
            }
            sleep(PAUSE).await;
        }
    }

    /// The tools that an environment offers by the Model Context Protocol.
    pub(super) async fn tools(&self, until: Instant) -> Result<Vec<Tool>, WorldError> {
        let rpc = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
        let within = until.saturating_duration_since(Instant::now());
        let data = match self.begin(&json!({"type": "mcp", "data": rpc}), "mcp", until, within).await? {
            (_, Answer::Data(data)) => data,
            (_, Answer::Refused(why)) => return Err(self.broken(why)),
        };
        let tools = data["result"]["tools"].as_array().filter(|tools| !tools.is_empty());
        let tools = tools.ok_or_else(|| {
            WorldError::Refused(format!("{}: its action has no fields, and it offers no tools", self.url))
        })?;
        let tool = |tool: &Value| {
            let schema = tool.get("inputSchema").or_else(|| tool.get("input_schema"));
            Tool {
                name: tool["name"].as_str().unwrap_or_default().to_owned(),
                description: tool["description"].as_str().unwrap_or_default().to_owned(),
                parameters: schema.cloned().unwrap_or_else(|| json!({"type": "object", "properties": {}})),
            }
        };
        Ok(tools.iter().map(tool).collect())
    }

    /// The handshake goes by HTTP, so that it is encrypted where HTTP is.
    async fn knock(&self) -> Result<Socket, WorldError> {
        let key = generate_key();
        let request = self
            .request("/ws")
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", &key);
        let response = request.send().await.map_err(|error| self.broken(error.without_url()))?;
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                let why = format!("{}: it wants another token ({status})", self.url);
                return Err(WorldError::Refused(why));
            }
            status => return Err(self.broken(format!("/ws: {status}"))),
        }
        let accepted = response.headers().get("Sec-WebSocket-Accept").map(HeaderValue::as_bytes);
        if accepted != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(self.broken("/ws: it is no socket"));
        }
        let upgraded = response.upgrade().await.map_err(|error| self.broken(error.without_url()))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES))
            .max_frame_size(Some(MESSAGE_BYTES));
        let stream = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await;
        let (questions, asked) = mpsc::channel(1);
        // The same thread, as this runs there.
        tokio::spawn(talk(stream, asked));
        Ok(Socket { questions, url: self.url.to_string() })
    }
}

/// Answers questions as long as there may be some, and lives in between.
async fn talk(mut stream: Stream, mut questions: mpsc::Receiver<Question>) {
    loop {
        tokio::select! {
            question = questions.recv() => {
                let Some(Question { message, answer }) = question else { break };
                let result = one(&mut stream, &message).await;
                let is_over = result.is_err();
                // Whoever asked may have been interrupted.
                let unread = answer.send(result).is_err();
                if is_over {
                    return;
                }
                if unread {
                    break;
                }
            }
            // Nothing comes that was not asked for but signs of life, which are answered by reading, and the end.
            heard = stream.next() => match heard {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => {
                    let why = match &message {
                        Message::Text(text) => said(text.as_str()),
                        _ => "the connection was closed".to_owned(),
                    };
                    // The next question is told.
                    if let Some(question) = questions.recv().await {
                        // Whoever asked may have been interrupted.
                        let _ = question.answer.send(Err(why));
                    }
                    return;
                }
                Some(Err(_)) | None => return,
            },
        }
    }
    let goodbye = async {
        stream.send(Message::text(json!({"type": "close"}).to_string())).await?;
        stream.close(None).await
    };
    // Where it is not heard, the connection's end is.
    let _ = timeout(GOODBYE, goodbye).await;
}

/// What an error says that nobody asked for, such as that there is no place.
fn said(text: &str) -> String {
    let told: Value = serde_json::from_str(text).unwrap_or_default();
    let field = |name: &str| told["data"][name].as_str();
    match field("code").zip(field("message")) {
        Some((code, message)) => format!("{code}: {message}"),
        None => "it says something that nobody asked for".to_owned(),
    }
}

async fn one(stream: &mut Stream, message: &Value) -> Result<Value, String> {
    stream.send(Message::text(message.to_string())).await.map_err(|error| error.to_string())?;
    loop {
        match stream.next().await {
            Some(Ok(Message::Text(text))) => {
                return serde_json::from_str(text.as_str())
                    .map_err(|error| format!("it answers no JSON: {error}"));
            }
            Some(Ok(Message::Binary(bytes))) => {
                return serde_json::from_slice(&bytes)
                    .map_err(|error| format!("it answers no JSON: {error}"));
            }
            Some(Ok(Message::Close(_))) | None => return Err("the connection was closed".to_owned()),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.to_string()),
        }
    }
}

impl Socket {
    fn broken(&self, why: impl std::fmt::Display) -> WorldError {
        WorldError::Broken(format!("{}: {why}", self.url))
    }

    /// Asks, and waits for the answer of that kind.
    pub(super) async fn ask(&self, message: Value, kind: &str, until: Instant) -> Result<Answer, WorldError> {
        let (answer, asked) = oneshot::channel();
        let question = Question { message, answer };
        if self.questions.send(question).await.is_err() {
            return Err(self.broken("the connection was closed"));
        }
        let mut told = match timeout_at(until.into(), asked).await {
            Ok(Ok(Ok(told))) => told,
            Ok(Ok(Err(why))) => return Err(self.broken(why)),
            Ok(Err(_)) => return Err(self.broken("the connection was closed")),
            Err(_) => return Err(self.broken("it does not answer")),
        };
        let data = told["data"].take();
        match told["type"].as_str() {
            Some(found) if found == kind => Ok(Answer::Data(data)),
            Some("error") => {
                let message = data["message"].as_str().unwrap_or("it does not say why");
                let errors = data.get("errors").map(|errors| format!(": {errors}")).unwrap_or_default();
                match data["code"].as_str() {
                    Some("VALIDATION_ERROR" | "EXECUTION_ERROR") => {
                        Ok(Answer::Refused(format!("{message}{errors}")))
                    }
                    code => Err(self.broken(format!("{}: {message}", code.unwrap_or("error")))),
                }
            }
            found => Err(self.broken(format!("it answers {} for {kind}", found.unwrap_or("nothing")))),
        }
    }
}
