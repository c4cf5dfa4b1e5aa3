//! The gateway's HTTP, as far as a conversation needs it.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};

use super::stream::Replying;

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Whoever leaves does not wait longer than this for the end of a session.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// A gateway that answers.
#[derive(Debug)]
pub struct Gateway {
    http: Client,
    /// Where it is, such as `http://127.0.0.1:30000/v1`.
    pub url: String,
    key: Option<String>,
    /// The model that is talked to.
    pub model: String,
    temperature: Option<f64>,
}

impl Gateway {
    /// The one at `url`; without `model`, the first one that it names.
    pub async fn connect(
        url: &str,
        key: Option<String>,
        model: Option<String>,
        temperature: Option<f64>,
    ) -> anyhow::Result<Self> {
        let http = Client::builder().connect_timeout(CONNECT_DEADLINE).build()?;
        let url = url.trim_end_matches('/').to_owned();
        let mut gateway = Self { http, url, key, model: String::new(), temperature };
        gateway.model = match model {
            Some(model) => model,
            None => {
                let request = gateway.http.get(format!("{}/models", gateway.url));
                let models: Value = gateway.send(request).await?.json().await?;
                let name = models["data"][0]["id"].as_str();
                name.with_context(|| format!("{} names no model", gateway.url))?.to_owned()
            }
        };
        Ok(gateway)
    }

    /// Begins a reply to `messages`.
    pub async fn reply(&self, session: &str, messages: &[Value]) -> anyhow::Result<Replying> {
        let mut body = json!({"model": self.model, "messages": messages, "stream": true});
        if let Some(temperature) = self.temperature {
            body["temperature"] = json!(temperature);
        }
        // Whoever types here means it: nobody need wait to see whether the next request shows it.
        let request = self.post("chat/completions", session).header("X-Turn-Type", "main");
        let response = self.send(request.json(&body)).await?;
        Ok(Replying::new(response))
    }

    /// Rates a reply, and returns what became of the rating: `applied`, `too_late` or `not_trained`.
    pub async fn rate(&self, reply: &str, rating: i8, text: Option<String>) -> anyhow::Result<String> {
        let body = json!({"id": reply, "rating": rating, "text": text});
        let request = self.http.post(format!("{}/feedback", self.url)).json(&body);
        let answer: Value = self.send(request).await?.json().await?;
        Ok(answer["status"].as_str().unwrap_or("sent").to_owned())
    }

    /// Says that a session is over.
    pub async fn end(&self, session: &str) -> anyhow::Result<()> {
        let request = self.post("sessions/end", session).timeout(END_DEADLINE);
        self.send(request.json(&json!({"session_id": session}))).await.map(drop)
    }

    fn post(&self, path: &str, session: &str) -> RequestBuilder {
        self.http.post(format!("{}/{path}", self.url)).header("X-Session-Id", session)
    }

    /// Turns an answer that is an error into one.
    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
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
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{
        Json, Router,
        extract::State,
        http::HeaderMap,
        routing::{get, post},
    };

    use super::*;
    use crate::chat::stream::Piece;

    type Seen = Arc<Mutex<Vec<(Option<String>, Value)>>>;

    fn note(seen: &Seen, headers: &HeaderMap, body: Value) {
        let session = headers.get("x-session-id").map(|id| id.to_str().unwrap().to_owned());
        seen.lock().unwrap().push((session, body));
    }

    async fn complete(State(seen): State<Seen>, headers: HeaderMap, Json(body): Json<Value>) -> String {
        note(&seen, &headers, body);
        let chunk =
            |delta: Value| format!("data: {}\n\n", json!({"id": "r1", "choices": [{"delta": delta}]}));
        let thought = chunk(json!({"role": "assistant", "content": "", "reasoning_content": "hm"}));
        thought + &chunk(json!({"content": "4"})) + &chunk(json!({"content": "2"})) + "data: [DONE]\n\n"
    }

    async fn feedback(State(seen): State<Seen>, headers: HeaderMap, Json(body): Json<Value>) -> Json<Value> {
        note(&seen, &headers, body);
        Json(json!({"status": "too_late"}))
    }

    #[tokio::test]
    async fn a_reply_is_read_rated_and_its_session_ended() {
        let seen = Seen::default();
        let routes = Router::new()
            .route("/v1/models", get(async || Json(json!({"data": [{"id": "policy"}]}))))
            .route("/v1/chat/completions", post(complete))
            .route("/v1/feedback", post(feedback))
            .route("/v1/sessions/end", post(feedback))
            .with_state(seen.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });

        let gateway = Gateway::connect(&url, None, None, None).await.unwrap();
        let messages = [json!({"role": "user", "content": "6 times 7?"})];
        let mut replying = gateway.reply("s", &messages).await.unwrap();
        let mut pieces = Vec::new();
        while let Some(piece) = replying.next().await.unwrap() {
            pieces.push(piece);
        }
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(pieces, [Piece::Thought("hm".to_owned()), text("4"), text("2")]);
        assert_eq!(replying.id.as_deref(), Some("r1"));
        assert_eq!(gateway.rate("r1", -1, Some("no".to_owned())).await.unwrap(), "too_late");
        gateway.end("s").await.unwrap();
        let refused = gateway.send(gateway.post("nowhere", "s")).await.unwrap_err();
        assert!(refused.to_string().starts_with("the gateway answered 404"), "{refused}");

        let seen = seen.lock().unwrap();
        let session = Some("s".to_owned());
        assert_eq!((&seen[0].0, &seen[0].1["model"]), (&session, &json!("policy")));
        assert_eq!(seen[0].1["messages"], json!(messages));
        assert_eq!(seen[1].1, json!({"id": "r1", "rating": -1, "text": "no"}));
        assert_eq!(seen[2], (session, json!({"session_id": "s"})));
    }
}
