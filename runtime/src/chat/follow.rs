//! Looks at what the node makes of the sessions of this process.

use std::time::Duration;

use super::learnt::{Look, TurnLook};
use crate::admin::{AdminClient, ClientError, RefusalKind};

/// Between two looks. One at which nothing has changed costs the node no reading.
const PERIOD: Duration = Duration::from_millis(250);

/// Follows sessions.
pub struct Follower {
    node: AdminClient,
    sessions: Vec<Followed>,
    moment: Option<String>,
}

struct Followed {
    session: String,
    /// Every turn up to this place is settled.
    settled: u64,
    has_ended: bool,
}

impl Follower {
    /// None yet, on this node.
    pub fn new(node: AdminClient) -> Self {
        Self { node, sessions: Vec::new(), moment: None }
    }

    /// Follows a session, too. Those before have ended, and are followed for as long as something comes of them.
    pub fn begin(&mut self, session: &str) {
        self.sessions.iter_mut().for_each(|followed| followed.has_ended = true);
        self.sessions.push(Followed { session: session.to_owned(), settled: 0, has_ended: false });
        self.moment = None;
    }

    /// The next look, after a while. Can be dropped: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Look>, ClientError> {
        tokio::time::sleep(PERIOD).await;
        self.look().await
    }

    /// A look now; nothing where nothing has changed since the last one.
    pub async fn look(&mut self) -> Result<Option<Look>, ClientError> {
        let (mut looks, mut moments) = (Vec::new(), Vec::new());
        for followed in &self.sessions {
            let mut moment = self.moment.clone();
            looks.push(self.look_at(followed, &mut moment).await?);
            moments.push(moment);
        }
        // From here on nothing waits. The earliest moment counts: what came later is seen again.
        self.moment = moments.into_iter().next().flatten();
        for (followed, look) in self.sessions.iter_mut().zip(&looks) {
            let Some(look) = look else { continue };
            let leading = look.turns.iter().take_while(|turn| turn.is_settled()).last();
            followed.settled = leading.map_or(followed.settled, |turn| turn.place);
        }
        let mut looked = looks.iter();
        self.sessions.retain(|followed| {
            let look = looked.next().and_then(Option::as_ref);
            !followed.has_ended || look.is_none_or(|look| look.turns.iter().any(TurnLook::is_under_way))
        });
        Ok(looks.into_iter().flatten().reduce(|mut all, look| {
            all.turns.extend(look.turns);
            Look { batch: look.batch, ..all }
        }))
    }

    async fn look_at(
        &self,
        followed: &Followed,
        moment: &mut Option<String>,
    ) -> Result<Option<Look>, ClientError> {
        let (mut all, mut after): (Option<Look>, u64) = (None, followed.settled);
        loop {
            let path = format!("session?id={}&after={after}&limit=50&tokens=0", followed.session);
            let asked = if all.is_none() { &mut *moment } else { &mut None };
            let look: Look = match self.node.page(&path, asked).await {
                Ok(Some(look)) => look,
                Ok(None) => return Ok(None),
                // Nothing of it is recorded, or nothing is kept.
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
                None => return Ok(all),
            }
        }
    }
}
