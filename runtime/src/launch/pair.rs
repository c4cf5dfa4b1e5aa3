//! A question that a simulated user was answered badly, asked again now: what learning changed, in the model's own
//! words.

use std::time::Duration;

use openclaw_actors::{
    chat_client::{ChatClient, ChatReply, ChatRequest},
    rollout::SessionReport,
};
use openclaw_environments::world::{Said, Task, User, after_first_reply, text_of};
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Map, json};
use tracing::debug;

use super::screen::Pair;
use crate::{topology::Topology, wiring};

/// An answer that takes longer is not waited for.
const DEADLINE: Duration = Duration::from_secs(20);

/// Asks the first questions of these sessions again, and returns the first whose answer is now to the user's taste;
/// the last that was asked, when none is. Nothing is learnt from it.
pub async fn find(topology: &Topology, url: &str, disliked: &[(&User, &SessionReport)]) -> Option<Pair> {
    let key = wiring::api_key(topology).ok()?;
    let client = ChatClient::new(url, topology.actors.gateway.served_model.clone(), key).ok()?;
    let mut found = None;
    for (user, report) in disliked {
        let Some(task) = &report.task else { continue };
        let asked = tokio::time::timeout(DEADLINE, client.ask(&again(task))).await;
        let reply = match asked {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                debug!(%error, "a question is not answered again");
                continue;
            }
            Err(_) => continue,
        };
        let (user, task, content) = ((*user).clone(), task.clone(), reply.content.clone());
        found = pair(report, &task, reply).or(found);
        let liked = tokio::task::spawn_blocking(move || {
            after_first_reply(&*user.environment, &task, &content).is_ok_and(|verdict| verdict.success)
        });
        if liked.await.unwrap_or(false) {
            break;
        }
    }
    found
}

/// Greedy: what it says now, and not what it may say.
fn again(task: &Task) -> ChatRequest {
    let mut headers = HeaderMap::new();
    headers.insert("x-no-train", HeaderValue::from_static("1"));
    ChatRequest {
        messages: task.opening.iter().map(Said::message).collect(),
        options: Map::from_iter([("temperature".to_owned(), json!(0))]),
        headers,
        stream: false,
    }
}

/// None where both are of one version: nothing was learnt in between.
fn pair(report: &SessionReport, task: &Task, now: ChatReply) -> Option<Pair> {
    let (before, version) = (report.policy_version?, now.policy_version?);
    (before != version).then(|| Pair {
        user: report.user.to_string(),
        asked: task.opening.last().map(|said| text_of(&said.parts)).unwrap_or_default(),
        before: (before, report.replied.clone()),
        now: (version, now.content),
    })
}
