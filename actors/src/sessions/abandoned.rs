//! Episodes that nobody goes on with are abandoned, and groups that wait for more episodes than ever began are closed: an
//! agent that died would else hold up the rest of its group for good.

use std::time::{Duration, SystemTime};

use openclaw_journal::{Journal, JournalError, Record, Recorded};
use tracing::{info, warn};

/// Those in which nothing has happened for so long.
pub(super) async fn close(journal: &Journal, idle: Duration) -> Result<(), JournalError> {
    let (episodes, groups) = journal.idle_episodes(SystemTime::now() - idle).await?;
    for episode in episodes {
        let abandoned = Record::EpisodeAbandoned { episode: episode.clone(), reason: "idle".to_owned() };
        if journal.record(abandoned).await? == Recorded::Done {
            warn!(%episode, "an episode is abandoned: nobody went on with it");
            metrics::counter!("openclaw_episodes_total", "state" => "abandoned").increment(1);
        }
    }
    for group in groups {
        if journal.record(Record::GroupClosed { group: group.clone() }).await? == Recorded::Done {
            info!(group, "a group is closed with fewer episodes than it was to have");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use openclaw_journal::{Episode, EpisodeId, EpisodeState, Group, Outcome, SessionId};

    use super::*;

    #[tokio::test]
    async fn what_nobody_goes_on_with_is_closed_and_the_rest_is_not() {
        let journal = Journal::in_memory();
        let episode = |name: &str| Episode {
            id: EpisodeId(name.into()),
            session: SessionId(name.into()),
            environment: "toy".into(),
            task: "t".into(),
            seed: None,
            group: Some(Group { name: "g".into(), of: 3 }),
            judged: true,
        };
        for name in ["a", "b"] {
            journal.record(Record::EpisodeBegan { episode: episode(name) }).await.expect("recorded");
        }
        let outcome = Outcome { reward: 1.0, success: None, numbers: Default::default() };
        let ended = Record::EpisodeEnded { episode: EpisodeId("a".into()), outcome };
        journal.record(ended).await.expect("recorded");
        let state = async || journal.episode(&EpisodeId("b".into())).await.unwrap().unwrap().0.state;
        close(&journal, Duration::from_secs(3600)).await.expect("closed");
        assert_eq!(state().await, EpisodeState::Open);
        while state().await == EpisodeState::Open {
            close(&journal, Duration::ZERO).await.expect("closed");
        }
        assert_eq!(state().await, EpisodeState::Abandoned("idle".to_owned()));
        // Its group waits for a third, which does not come.
        let later = SystemTime::now() + Duration::from_secs(3600);
        while !journal.idle_episodes(later).await.expect("read").1.is_empty() {
            close(&journal, Duration::ZERO).await.expect("closed");
        }
        let again = Record::GroupClosed { group: "g".into() };
        assert_eq!(journal.record(again).await.expect("recorded"), Recorded::Stale);
    }
}
