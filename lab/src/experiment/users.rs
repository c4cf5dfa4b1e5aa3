//! Users who talk for ever: what the node is under while something else is measured.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use openclaw_actors::chat_client::{ChatClient, ChatRequest};
use openclaw_environments::{
    registry,
    world::{Action, Split, User, text_of},
};
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::json;
use tokio::task::JoinSet;

/// The kind of environment whose users they play, in turn.
const KIND: &str = "persona";
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
    let played = registry::make(KIND, registry::Table::new())?.users();
    for user in 0..count {
        let client = ChatClient::new(url, model, None)?;
        users.spawn(use_for_ever(client, played[user % played.len()].clone(), user as u64, talk.clone()));
    }
    Ok(users)
}

async fn use_for_ever(client: ChatClient, plays: User, user: u64, talk: Arc<Talk>) {
    // Scripts: their tasks are made from any number, and their worlds do not block and do not fail.
    let mut world = plays.environment.open().expect("a script");
    for number in 0.. {
        let task = plays.environment.task(Split::Train, user * 1_000_003 + number).expect("a script");
        world.reset(&task).expect("a script");
        let id = format!("user-{user}-{number}-{}", rand::random::<u64>());
        let mut headers = HeaderMap::new();
        headers.insert("x-session-id", HeaderValue::from_str(&id).expect("letters, digits and dashes"));
        headers.insert("x-turn-type", HeaderValue::from_static("main"));
        let mut messages = vec![json!({"role": "user", "content": text_of(&task.opening[0].parts)})];
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
            let outcome = world.step(&Action::Text(reply.content.clone())).expect("a script");
            if outcome.done {
                break;
            }
            messages.push(json!({"role": "assistant", "content": reply.content}));
            messages.push(json!({"role": "user", "content": text_of(&outcome.observation.parts)}));
        }
    }
}
