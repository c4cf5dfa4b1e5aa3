//! A question that a simulated user was answered badly, asked again now: what learning changed, in the model's own
//! words.

use std::time::Duration;

use openclaw_actors::{
    chat_client::{ChatClient, ChatReply, ChatRequest},
    rollout::SessionReport,
};
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Map, json};
use tracing::debug;

use super::screen::Pair;
use crate::{topology::Topology, wiring};

/// An answer that takes longer is not waited for.
const DEADLINE: Duration = Duration::from_secs(20);

/// Asks the first questions of these sessions again, and returns the first whose answer is now to the user's taste;
/// the last that was asked, when none is. Nothing is learnt from it.
pub async fn find(topology: &Topology, url: &str, disliked: &[&SessionReport]) -> Option<Pair> {
    let key = wiring::api_key(topology).ok()?;
    let client = ChatClient::new(url, topology.actors.gateway.served_model.clone(), key).ok()?;
    let mut found = None;
    for report in disliked {
        let asked = tokio::time::timeout(DEADLINE, client.ask(&again(&report.asked))).await;
        let reply = match asked {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                debug!(%error, "a question is not answered again");
                continue;
            }
            Err(_) => continue,
        };
        let liked = report.persona.satisfied(&reply.content, reply.completion_tokens);
        found = pair(report, reply).or(found);
        if liked {
            break;
        }
    }
    found
}

/// Greedy: what it says now, and not what it may say.
fn again(question: &str) -> ChatRequest {
    let mut headers = HeaderMap::new();
    headers.insert("x-no-train", HeaderValue::from_static("1"));
    ChatRequest {
        messages: vec![json!({"role": "user", "content": question})],
        options: Map::from_iter([("temperature".to_owned(), json!(0))]),
        headers,
        stream: false,
    }
}

/// None where both are of one version: nothing was learnt in between.
fn pair(report: &SessionReport, now: ChatReply) -> Option<Pair> {
    let (before, version) = (report.policy_version?, now.policy_version?);
    (before != version).then(|| Pair {
        user: report.persona.name().to_owned(),
        asked: report.asked.clone(),
        before: (before, report.replied.clone()),
        now: (version, now.content),
    })
}
