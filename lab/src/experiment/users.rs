//! Users who talk for ever: what the node is under while something else is measured.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use openclaw_actors::chat_client::{ChatClient, ChatRequest};
use openclaw_environments::persona::{Persona, PersonaSession, Step};
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::json;
use tokio::task::JoinSet;

/// Who they play, in turn.
const PERSONAS: [Persona; 3] = [Persona::Student, Persona::Ta, Persona::Teacher];
/// Between an answer that was cut and the same question again.
const RETRY_PERIOD: Duration = Duration::from_millis(5);

/// What the users saw.
#[derive(Default)]
pub(super) struct Talk {
    /// Complete answers.
    pub answers: AtomicU64,
    /// Answers that were refused, cut or broken.
    pub cut: AtomicU64,
    /// Names of the complete answers.
    ids: Mutex<Vec<String>>,
}

impl Talk {
    /// Names of the answers that were complete since this was asked last.
    pub fn take_ids(&self) -> Vec<String> {
        std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// `count` users who talk to the gateway at `url` until the set is dropped or shut down.
pub(super) fn start_users(
    count: usize,
    url: &str,
    model: &str,
    talk: &Arc<Talk>,
) -> anyhow::Result<JoinSet<()>> {
    let mut users = JoinSet::new();
    for user in 0..count {
        let client = ChatClient::new(url, model, None)?;
        users.spawn(use_for_ever(client, PERSONAS[user % PERSONAS.len()], user as u64, talk.clone()));
    }
    Ok(users)
}

async fn use_for_ever(client: ChatClient, persona: Persona, user: u64, talk: Arc<Talk>) {
    for number in 0.. {
        let mut session = PersonaSession::new(persona, user * 1_000_003 + number);
        let id = format!("user-{user}-{number}-{}", rand::random::<u64>());
        let mut headers = HeaderMap::new();
        headers.insert("x-session-id", HeaderValue::from_str(&id).expect("letters, digits and dashes"));
        headers.insert("x-turn-type", HeaderValue::from_static("main"));
        let mut messages = vec![json!({"role": "user", "content": session.first_message()})];
        loop {
            let request = ChatRequest {
                messages: messages.clone(),
                headers: headers.clone(),
                stream: true,
                ..ChatRequest::default()
            };
            let reply = match client.ask(&request).await {
                Ok(reply) => reply,
                Err(error) => {
                    tracing::debug!(%error, "an answer was cut");
                    talk.cut.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(RETRY_PERIOD).await;
                    continue;
                }
            };
            talk.ids.lock().unwrap_or_else(PoisonError::into_inner).push(reply.id);
            talk.answers.fetch_add(1, Ordering::SeqCst);
            let Step::Send(next) = session.next(&reply.content, reply.completion_tokens) else { break };
            messages.push(json!({"role": "assistant", "content": reply.content}));
            messages.push(json!({"role": "user", "content": next}));
        }
    }
}
