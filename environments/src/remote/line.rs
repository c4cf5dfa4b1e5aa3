//! What is said to a server and how often: a request is repeated, by the same name, until an answer comes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{
    Method, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    redirect,
};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::{io_thread::IoThread, wire, world::WorldError};

/// For one try. The server goes on, and the next try waits for what it is doing.
const TRY: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(5);
/// Between two tries, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Of one answer.
const ANSWER_BYTES: usize = 64 << 20;

/// A connection to a server, or several, as they are needed.
pub(super) struct Line {
    /// Where all of it runs.
    pub(super) io: IoThread,
    http: reqwest::Client,
    url: Url,
    token: HeaderValue,
    /// How long a server may be away, or full.
    pub(super) wait: Duration,
}

/// What a server answered.
struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    bytes: Vec<u8>,
}

/// Why a try gave no answer.
enum Lost {
    /// Nobody is there, or the connection broke.
    Broke(String),
    /// It takes longer than a try.
    Slow,
}

impl Line {
    /// Starts its thread. Nothing is asked yet.
    pub(super) fn start(url: Url, token: HeaderValue, wait: Duration) -> Result<Arc<Self>, WorldError> {
        let broken = |error: String| WorldError::Broken(format!("{url}: {error}"));
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .build()
            .map_err(|error| broken(error.to_string()))?;
        Ok(Arc::new(Self { io: IoThread::start("remote")?, http, url, token, wait }))
    }

    /// Asks until there is an answer: of one that came, and was lost, the server knows by its `request_id`.
    pub(super) async fn post(&self, route: &str, body: Value, until: Instant) -> Result<Value, WorldError> {
        let bytes = body.to_string().into_bytes();
        let answer = self.ask(Method::POST, route, &[], Some(bytes), until).await?;
        self.json(&answer)
    }

    /// The same of what only reads.
    pub(super) async fn get(
        &self,
        route: &str,
        query: &[(&str, String)],
        until: Instant,
    ) -> Result<Value, WorldError> {
        let answer = self.ask(Method::GET, route, query, None, until).await?;
        self.json(&answer)
    }

    /// The bytes behind a route.
    pub(super) async fn bytes(&self, route: &str, until: Instant) -> Result<Vec<u8>, WorldError> {
        self.ask(Method::GET, route, &[], None, until).await
    }

    /// One try alone, for what comes again anyway.
    pub(super) async fn once(&self, route: &str, body: &Value, within: Duration) -> Result<(), WorldError> {
        let bytes = body.to_string().into_bytes();
        let answer = self.attempt(Method::POST, route, &[], Some(bytes), within).await;
        match answer {
            Ok(answer) => self.read(answer, &mut None).map(|_| ()),
            Err(Lost::Broke(why)) => Err(self.broken(&why)),
            Err(Lost::Slow) => Err(self.broken("it does not answer")),
        }
    }

    fn broken(&self, why: &str) -> WorldError {
        WorldError::Broken(format!("{}: {why}", self.url))
    }

    fn json(&self, bytes: &[u8]) -> Result<Value, WorldError> {
        serde_json::from_slice(bytes).map_err(|error| self.broken(&format!("it answers no JSON: {error}")))
    }

    async fn ask(
        &self,
        method: Method,
        route: &str,
        query: &[(&str, String)],
        body: Option<Vec<u8>>,
        until: Instant,
    ) -> Result<Vec<u8>, WorldError> {
        let mut pause = PAUSES.0;
        // Since when nobody is there, or nothing is free.
        let mut away: Option<Instant> = None;
        loop {
            let within = TRY.min(until.saturating_duration_since(Instant::now()));
            let mut again = None;
            let why = match self.attempt(method.clone(), route, query, body.clone(), within).await {
                Ok(answer) => match self.read(answer, &mut again)? {
                    Ok(bytes) => return Ok(bytes),
                    Err(why) => {
                        away.get_or_insert_with(Instant::now);
                        why
                    }
                },
                Err(Lost::Broke(why)) => {
                    away.get_or_insert_with(Instant::now);
                    why
                }
                Err(Lost::Slow) => {
                    away = None;
                    "it does not answer".to_owned()
                }
            };
            let again = again.unwrap_or(pause);
            let next = Instant::now() + again;
            if next >= until || away.is_some_and(|since| next >= since + self.wait) {
                return Err(self.broken(&why));
            }
            sleep(again).await;
            pause = (2 * pause).min(PAUSES.1);
        }
    }

    /// What an answer is: bytes, a fault of the world, or, inside, why another try may do and when.
    fn read(
        &self,
        answer: Answer,
        again: &mut Option<Duration>,
    ) -> Result<Result<Vec<u8>, String>, WorldError> {
        let Answer { status, retry_after, bytes } = answer;
        if status.is_success() {
            return Ok(Ok(bytes));
        }
        let told: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let said = told["error"].as_str().map(|said| format!("{status}: {said}"));
        let said = said.unwrap_or_else(|| status.to_string());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(WorldError::Refused(format!("{}: its token is another one ({said})", self.url)))
            }
            StatusCode::GONE => Err(self.broken(&said)),
            StatusCode::TOO_MANY_REQUESTS => {
                *again = retry_after;
                Ok(Err(said))
            }
            _ if told["ok"] == false => Err(wire::read_fault(&told)),
            // Of something between here and there.
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                *again = retry_after;
                Ok(Err(said))
            }
            _ => Err(WorldError::Refused(format!("{}: no environment server ({said})", self.url))),
        }
    }

    async fn attempt(
        &self,
        method: Method,
        route: &str,
        query: &[(&str, String)],
        body: Option<Vec<u8>>,
        within: Duration,
    ) -> Result<Answer, Lost> {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{route}", url.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url).header(AUTHORIZATION, self.token.clone());
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let answered = async {
            let mut response = request.send().await?;
            let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after = seconds.and_then(|value| value.parse().ok()).map(Duration::from_secs);
            let status = response.status();
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                if bytes.len() + chunk.len() > ANSWER_BYTES {
                    return Ok(Err(format!("an answer of more than {ANSWER_BYTES} bytes")));
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(Ok(Answer { status, retry_after, bytes }))
        };
        match timeout(within, answered).await {
            Err(_) => Err(Lost::Slow),
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(why))) => Err(Lost::Broke(why)),
            Ok(Err(error)) => Err(Lost::Broke(chain(&error))),
        }
    }
}

/// An error of a connection with its causes; the address is told elsewhere.
fn chain(error: &reqwest::Error) -> String {
    let mut told = Vec::new();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = cause {
        told.push(error.to_string());
        cause = error.source();
    }
    if told.is_empty() { "the connection broke".to_owned() } else { told.join(": ") }
}
