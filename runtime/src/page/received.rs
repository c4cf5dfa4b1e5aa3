//! How the latest replies were received. What was judged changes only where a person rates it, so that a reply is read
//! from the journal once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use openclaw_journal::{Journal, JournalError, ReplyRow};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout},
};
use tracing::warn;

use crate::versions::Reception;

/// Judged replies that are kept, the latest.
pub(super) const MOST_REPLIES: usize = 2000;
/// Whoever looks every second has the journal read no more often than this.
const READ_PERIOD: Duration = Duration::from_secs(3);
/// A reader in a hurry waits no longer than this for news.
const HURRY: Duration = Duration::from_millis(300);

/// What was judged lately. Clones share it.
#[derive(Clone)]
pub struct Received {
    journal: Journal,
    known: Arc<Mutex<Known>>,
    versions: Arc<watch::Sender<Vec<Reception>>>,
}

#[derive(Default)]
struct Known {
    replies: BTreeMap<u64, ReplyRow>,
    /// Verdicts and ratings that there were when it was last read, and when that was.
    read: Option<(u64, Instant)>,
}

impl Received {
    /// In this journal.
    pub fn new(journal: Journal) -> Self {
        Self { journal, known: Arc::default(), versions: Arc::default() }
    }

    /// All of them by their place, as of now.
    pub(super) async fn replies(&self) -> Result<BTreeMap<u64, ReplyRow>, JournalError> {
        let mut known = self.known.lock().await;
        self.read(&mut known).await?;
        Ok(known.replies.clone())
    }

    /// The same by version, oldest first, for one who asks often: a few seconds old, or as old as it is where the
    /// journal cannot be read.
    pub async fn versions(&self) -> Vec<Reception> {
        // In a task of its own: a read that takes long is not begun anew by the next who asks.
        let reading = tokio::spawn({
            let received = self.clone();
            async move { received.read_if_due().await }
        });
        match timeout(HURRY, reading).await {
            Ok(Ok(Err(error))) => warn!(%error, "what was judged cannot be read"),
            Ok(Err(panicked)) => warn!(%panicked, "what was judged cannot be read"),
            Ok(Ok(Ok(()))) | Err(_) => {}
        }
        self.versions.borrow().clone()
    }

    async fn read_if_due(&self) -> Result<(), JournalError> {
        // Who holds it is reading.
        let Ok(mut known) = self.known.try_lock() else { return Ok(()) };
        let is_due = known
            .read
            .is_none_or(|(verdicts, when)| verdicts != self.verdicts() && when.elapsed() >= READ_PERIOD);
        if is_due { self.read(&mut known).await } else { Ok(()) }
    }

    async fn read(&self, known: &mut Known) -> Result<(), JournalError> {
        let verdicts = self.verdicts();
        known.replies = self.journal.replies(MOST_REPLIES, known.replies.clone()).await?;
        known.read = Some((verdicts, Instant::now()));
        self.versions.send_replace(by_version(&known.replies).into_values().collect());
        Ok(())
    }

    fn verdicts(&self) -> u64 {
        let totals = *self.journal.totals().borrow();
        totals.approved + totals.rejected + totals.neutral + totals.rated
    }
}

/// How each version's replies were received.
pub(super) fn by_version(replies: &BTreeMap<u64, ReplyRow>) -> BTreeMap<u64, Reception> {
    let mut versions: BTreeMap<u64, Reception> = BTreeMap::new();
    for reply in replies.values() {
        let heard = versions.entry(reply.version).or_default();
        heard.version = reply.version;
        heard.replies += 1;
        heard.approved += u64::from(reply.reward == Some(1));
        heard.rejected += u64::from(reply.reward == Some(-1));
        if reply.index == 1 {
            heard.first += 1;
            heard.first_approved += u64::from(reply.reward == Some(1));
        }
    }
    versions
}
