//! A journal being written: one at a time, by a thread that whoever started it watches.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{Journal, JournalError, writer::WriterThread};

/// The thread that writes a journal. Dropping it ends the thread once what waits by then is written.
pub struct Writing {
    journal: Journal,
    ended: Option<oneshot::Receiver<Result<(), JournalError>>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Journal {
    /// Starts to write, as soon as an earlier thread has ended.
    pub async fn start_writing(&self) -> Result<Writing, JournalError> {
        let slot = self.shared.slot.clone().lock_owned().await;
        let parts = self.shared.parts.clone();
        // It reads a little from the disk.
        let started = tokio::task::spawn_blocking(move || WriterThread::start(parts, slot)).await;
        let WriterThread { ended, stop } =
            started.map_err(|error| JournalError::Writer { reason: error.to_string() })??;
        Ok(Writing { journal: self.clone(), ended: Some(ended), stop: Some(stop) })
    }
}

impl Writing {
    /// Returns when the thread has ended, and why it did by itself. The first call alone hears of it.
    pub fn ended(&mut self) -> impl Future<Output = Result<(), JournalError>> + Send + use<> {
        let ended = self.ended.take();
        async move {
            match ended {
                Some(ended) => ended.await.unwrap_or(Err(JournalError::Closed)),
                None => Err(JournalError::Closed),
            }
        }
    }

    /// Ends the thread; returns when it has written what waited.
    pub async fn stop(&mut self) {
        drop(self.stop.take());
        drop(Arc::clone(&self.journal.shared.slot).lock_owned().await);
    }
}
