//! Looks at what the node makes of the sessions of this process.

use std::time::Duration;

use super::learnt::Look;
use crate::{
    admin::{AdminClient, ClientError},
    refusal::RefusalKind,
};

/// Between two looks. One at which nothing has changed costs the node no reading.
const PERIOD: Duration = Duration::from_millis(250);

/// Follows sessions.
pub struct Follower {
    node: AdminClient,
    sessions: Vec<Followed>,
}

struct Followed {
    session: String,
    /// Every turn up to this place is settled.
    settled: u64,
    /// Of the last look that showed something.
    moment: Option<String>,
}

impl Follower {
    /// None yet, on this node.
    pub fn new(node: AdminClient) -> Self {
        Self { node, sessions: Vec::new() }
    }

    /// The node that is asked.
    pub fn node(&self) -> &AdminClient {
        &self.node
    }

    /// Follows a session, too.
    pub fn begin(&mut self, session: &str) {
        self.sessions.push(Followed { session: session.to_owned(), settled: 0, moment: None });
    }

    /// Follows only those of the sessions before the last one of which something is still to come.
    pub fn leave(&mut self, is_under_way: impl Fn(&str) -> bool) {
        let Some(last) = self.sessions.pop() else { return };
        self.sessions.retain(|followed| is_under_way(&followed.session));
        self.sessions.push(last);
    }

    /// The next look, after a while. Can be dropped: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Look>, ClientError> {
        tokio::time::sleep(PERIOD).await;
        self.look().await
    }

    /// A look now; nothing where nothing has changed since the last one.
    pub async fn look(&mut self) -> Result<Option<Look>, ClientError> {
        let mut looks = Vec::new();
        for followed in &self.sessions {
            looks.push(self.look_at(followed).await?);
        }
        // From here on nothing waits.
        for (followed, look) in self.sessions.iter_mut().zip(&looks) {
            let Some((look, moment)) = look else { continue };
            let leading = look.turns.iter().take_while(|turn| turn.is_settled()).last();
            followed.settled = leading.map_or(followed.settled, |turn| turn.place);
            followed.moment.clone_from(moment);
        }
        let looks = looks.into_iter().flatten().map(|(look, _)| look);
        Ok(looks.reduce(|mut all, look| {
            all.turns.extend(look.turns);
            Look { batch: look.batch, ..all }
        }))
    }

    /// A session's look and its moment; nothing while it is unchanged, or nothing of it is recorded.
    async fn look_at(&self, followed: &Followed) -> Result<Option<(Look, Option<String>)>, ClientError> {
        let (mut all, mut after): (Option<Look>, u64) = (None, followed.settled);
        // The first page's counts: what moved while the others were read is seen again.
        let mut moment = followed.moment.clone();
        loop {
            let path = format!("session?id={}&after={after}&limit=50&tokens=0", followed.session);
            let asked = if all.is_none() { &mut moment } else { &mut None };
            let look: Look = match self.node.page(&path, asked).await {
                Ok(Some(look)) => look,
                Ok(None) => return Ok(None),
                Err(ClientError::Refused(refusal)) if refusal.kind == RefusalKind::Unknown => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            let next = look.next;
            match &mut all {
                Some(all) => all.turns.extend(look.turns),
                None => all = Some(look),
            }
            match next {
                Some(place) => after = place,
                None => return Ok(all.map(|all| (all, moment))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{
        Json, Router,
        extract::{RawQuery, State},
        http::{HeaderMap, StatusCode, header},
        response::{IntoResponse, Response},
        routing::get,
    };
    use serde_json::json;
    use tokio::net::UnixListener;

    use super::*;
    use crate::admin::SOCKET_FILE;

    type Asked = Arc<Mutex<Vec<String>>>;

    /// As a node whose journal does not move answers, and where one session is recorded.
    async fn session(State(asked): State<Asked>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
        let query = query.unwrap_or_default();
        let name = query.trim_start_matches("id=").split('&').next().unwrap_or_default();
        let (status, answer) = if name != "recorded" {
            let error = json!({"error": {"kind": "unknown", "message": "no session"}});
            (StatusCode::NOT_FOUND, Json(error).into_response())
        } else if headers.contains_key(header::IF_NONE_MATCH) {
            (StatusCode::NOT_MODIFIED, ().into_response())
        } else {
            let turn = json!({"turn": "t", "place": 1, "next_state": null, "verdict": null, "fate": null});
            let look = json!({"turns": [turn], "next": null, "batch": {"ready": 0, "of": 8}});
            (StatusCode::OK, ([(header::ETAG, "\"1\"")], Json(look)).into_response())
        };
        asked.lock().unwrap().push(format!("{name} {}", status.as_u16()));
        (status, answer).into_response()
    }

    #[tokio::test]
    async fn a_session_that_was_never_recorded_has_no_other_read_again_and_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let asked = Asked::default();
        let routes = Router::new().route("/page/session", get(session)).with_state(asked.clone());
        let listener = UnixListener::bind(dir.path().join(SOCKET_FILE)).unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let mut follower = Follower::new(AdminClient::connect(dir.path()).unwrap());
        let told = || std::mem::take(&mut *asked.lock().unwrap());

        follower.begin("cut");
        assert!(follower.look().await.unwrap().is_none());
        follower.leave(|_| false);
        follower.begin("recorded");
        assert_eq!(follower.look().await.unwrap().map(|look| look.turns.len()), Some(1));
        assert!(follower.look().await.unwrap().is_none());
        assert_eq!(told(), ["cut 404", "cut 404", "recorded 200", "cut 404", "recorded 304"]);
        follower.leave(|_| false);
        assert!(follower.look().await.unwrap().is_none());
        assert_eq!(told(), ["recorded 304"]);
    }
}
