//! `chat`: a conversation with a running gateway from the terminal, with thumbs and words as feedback.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use futures::StreamExt;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Shown below `chat --help`.
pub const EXAMPLES: &str = "\
In the conversation:
  /good          the last reply was good
  /bad [WORDS]   it was not, and why
  /new           begins a new session
  /quit          ends

Examples:
  openclaw-rl chat
  openclaw-rl chat --url http://127.0.0.1:30000/v1 --temperature 0.2
  echo 'What is 6 times 7?' | openclaw-rl chat";

/// The arguments of `chat`.
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// The gateway's address.
    #[arg(long, default_value = "http://127.0.0.1:30000/v1")]
    url: String,
    /// The model's name; the first one that the gateway names, unless given.
    #[arg(long)]
    model: Option<String>,
    /// The environment variable that holds the key; nothing is sent when it is not set.
    #[arg(long, value_name = "NAME", default_value = "OPENCLAW_API_KEY")]
    api_key_env: String,
    /// Sampling temperature; the gateway's own, unless given.
    #[arg(long)]
    temperature: Option<f64>,
}

/// Talks until the input ends.
pub async fn run(args: ChatArgs) -> anyhow::Result<ExitCode> {
    let key = std::env::var(&args.api_key_env).ok().filter(|key| !key.trim().is_empty());
    let mut chat = Chat::connect(&args.url, key, args.model, args.temperature).await?;
    let interactive = io::stdin().is_terminal();
    let mut lines = stdin_lines();
    let mut out = io::stdout();
    if interactive {
        writeln!(out, "Talking to {} at {}. /help tells the commands.", chat.model, chat.url)?;
    }
    loop {
        if interactive {
            write!(out, "> ")?;
            out.flush()?;
        }
        let Some(line) = lines.recv().await else { return Ok(ExitCode::SUCCESS) };
        let outcome = match Line::read(&line?) {
            Line::Nothing => Ok(()),
            Line::Quit => return Ok(ExitCode::SUCCESS),
            Line::Help => Ok(writeln!(out, "/good  /bad [WORDS]  /new  /quit")?),
            Line::New => {
                chat.begin();
                Ok(())
            }
            Line::Rate { rating, text } => {
                chat.rate(rating, text).await.and_then(|status| Ok(writeln!(out, "({status})")?))
            }
            Line::Say(text) => chat.say(text, &mut out).await,
            Line::Unknown(command) => Ok(writeln!(out, "{command} is no command; /help tells them")?),
        };
        match outcome {
            // A person can try again; a script cannot see that it should.
            Err(error) if interactive => eprintln!("{error:#}"),
            outcome => outcome?,
        }
    }
}

#[derive(Debug, PartialEq)]
enum Line {
    Nothing,
    Say(String),
    Rate { rating: i8, text: Option<String> },
    New,
    Help,
    Quit,
    Unknown(String),
}

impl Line {
    fn read(line: &str) -> Self {
        let line = line.trim();
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let text = Some(rest.trim().to_owned()).filter(|text| !text.is_empty());
        match command {
            "" => Self::Nothing,
            "/good" => Self::Rate { rating: 1, text },
            "/bad" => Self::Rate { rating: -1, text },
            "/new" => Self::New,
            "/help" => Self::Help,
            "/quit" | "/exit" => Self::Quit,
            _ if command.starts_with('/') => Self::Unknown(command.to_owned()),
            _ => Self::Say(line.to_owned()),
        }
    }
}

struct Chat {
    client: Client,
    url: String,
    key: Option<String>,
    model: String,
    temperature: Option<f64>,
    session: String,
    messages: Vec<Value>,
    last_response: Option<String>,
}

impl Chat {
    async fn connect(
        url: &str,
        key: Option<String>,
        model: Option<String>,
        temperature: Option<f64>,
    ) -> anyhow::Result<Self> {
        let client = Client::builder().connect_timeout(Duration::from_secs(10)).build()?;
        let mut chat = Self {
            client,
            url: url.trim_end_matches('/').to_owned(),
            key,
            model: model.unwrap_or_default(),
            temperature,
            session: String::new(),
            messages: Vec::new(),
            last_response: None,
        };
        chat.begin();
        if chat.model.is_empty() {
            let models: Value = checked(chat.authorized(chat.client.get(format!("{}/models", chat.url))))
                .await?
                .json()
                .await?;
            let name = models["data"][0]["id"].as_str();
            chat.model = name.with_context(|| format!("{} names no model", chat.url))?.to_owned();
        }
        Ok(chat)
    }

    fn begin(&mut self) {
        self.session = format!("chat-{:016x}", rand::random::<u64>());
        self.messages.clear();
        self.last_response = None;
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends a message and writes the reply as it comes. A message without a reply is forgotten.
    async fn say(&mut self, text: String, out: &mut impl Write) -> anyhow::Result<()> {
        self.messages.push(json!({"role": "user", "content": text}));
        let outcome = self.reply(out).await;
        match &outcome {
            Ok(reply) => self.messages.push(json!({"role": "assistant", "content": reply})),
            Err(_) => drop(self.messages.pop()),
        }
        outcome.map(drop)
    }

    async fn reply(&mut self, out: &mut impl Write) -> anyhow::Result<String> {
        let mut body = json!({"model": self.model, "messages": self.messages, "stream": true});
        if let Some(temperature) = self.temperature {
            body["temperature"] = json!(temperature);
        }
        let request = self.client.post(format!("{}/chat/completions", self.url));
        let request = self.authorized(request).header("X-Session-Id", &self.session).json(&body);
        let response = checked(request).await?;
        let version = response.headers().get("x-policy-version").and_then(|version| version.to_str().ok());
        let version = version.map(str::to_owned);
        let mut bytes = response.bytes_stream();
        let mut events = Events::default();
        let mut reply = String::new();
        let mut done = false;
        while let Some(piece) = bytes.next().await {
            for event in events.push(&piece.context("the reply was cut")?) {
                if event == "[DONE]" {
                    done = true;
                    continue;
                }
                let chunk: Value = serde_json::from_str(&event).context("the reply is not JSON")?;
                if let Some(message) = chunk["error"]["message"].as_str() {
                    bail!("{message}");
                }
                if let Some(id) = chunk["id"].as_str() {
                    self.last_response = Some(id.to_owned());
                }
                if let Some(text) = chunk["choices"][0]["delta"]["content"].as_str() {
                    reply.push_str(text);
                    write!(out, "{text}")?;
                    out.flush()?;
                }
            }
        }
        writeln!(out, "{}", version.map_or_else(String::new, |version| format!("  [version {version}]")))?;
        anyhow::ensure!(done, "the reply was cut");
        Ok(reply)
    }

    async fn rate(&self, rating: i8, text: Option<String>) -> anyhow::Result<String> {
        let id = self.last_response.as_ref().context("there is no reply to rate yet")?;
        let body = json!({"id": id, "rating": rating, "text": text});
        let request = self.authorized(self.client.post(format!("{}/feedback", self.url))).json(&body);
        let answer: Value = checked(request).await?.json().await?;
        Ok(answer["status"].as_str().unwrap_or("sent").replace('_', " "))
    }
}

/// Sends, and turns an answer that is an error into one.
async fn checked(request: reqwest::RequestBuilder) -> anyhow::Result<Response> {
    let response = request.send().await.context("cannot reach the gateway")?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    let message = body["error"]["message"].as_str().unwrap_or(text.trim());
    bail!("the gateway answered {status}: {message}")
}

/// Server-sent events out of bytes that come in any pieces.
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

/// Lines of stdin; reading blocks, so a thread of its own does it.
fn stdin_lines() -> mpsc::Receiver<io::Result<String>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{
        Json, Router,
        extract::State,
        routing::{get, post},
    };

    use super::*;

    #[test]
    fn a_line_is_a_message_or_a_command() {
        let cases = [
            (" hello there ", Line::Say("hello there".to_owned())),
            ("/good", Line::Rate { rating: 1, text: None }),
            ("/bad too long", Line::Rate { rating: -1, text: Some("too long".to_owned()) }),
            ("/bda", Line::Unknown("/bda".to_owned())),
            ("  ", Line::Nothing),
            ("/quit", Line::Quit),
        ];
        for (line, expected) in cases {
            assert_eq!(Line::read(line), expected, "{line}");
        }
    }

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

    type Seen = Arc<Mutex<Vec<Value>>>;

    async fn complete(State(seen): State<Seen>, Json(body): Json<Value>) -> String {
        seen.lock().unwrap().push(body);
        let chunk = |text: &str| {
            format!("data: {}\n\n", json!({"id": "r1", "choices": [{"delta": {"content": text}}]}))
        };
        chunk("4") + &chunk("2") + "data: [DONE]\n\n"
    }

    async fn feedback(State(seen): State<Seen>, Json(body): Json<Value>) -> Json<Value> {
        seen.lock().unwrap().push(body);
        Json(json!({"status": "too_late"}))
    }

    #[tokio::test]
    async fn a_conversation_is_kept_and_its_last_reply_rated() {
        let seen = Seen::default();
        let routes = Router::new()
            .route("/v1/models", get(async || Json(json!({"data": [{"id": "policy"}]}))))
            .route("/v1/chat/completions", post(complete))
            .route("/v1/feedback", post(feedback))
            .with_state(seen.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });

        let mut chat = Chat::connect(&url, None, None, None).await.unwrap();
        assert!(chat.rate(1, None).await.is_err(), "nothing to rate yet");
        let mut out = Vec::new();
        chat.say("6 times 7?".to_owned(), &mut out).await.unwrap();
        chat.say("sure?".to_owned(), &mut out).await.unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "42\n42\n");
        assert_eq!(chat.rate(-1, Some("no".to_owned())).await.unwrap(), "too late");

        let seen = seen.lock().unwrap();
        assert_eq!(seen[1]["model"], "policy");
        assert_eq!(
            seen[1]["messages"],
            json!([
                {"role": "user", "content": "6 times 7?"},
                {"role": "assistant", "content": "42"},
                {"role": "user", "content": "sure?"},
            ])
        );
        assert_eq!(seen[2], json!({"id": "r1", "rating": -1, "text": "no"}));
    }
}
