//! The journal under supervision: an actor that owns the thread that writes.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::oneshot;

use super::{Journal, error::JournalError, writer::WriterThread};

/// The actor. It is given its [`Journal`].
pub struct JournalActor;

/// What the actor is told.
pub enum JournalControl {
    /// Answers.
    Ping(RpcReplyPort<()>),
    /// The thread ended by itself.
    #[doc(hidden)]
    Ended(Result<(), JournalError>),
}

/// One incarnation.
pub struct Writing {
    journal: Journal,
    stop: Option<oneshot::Sender<()>>,
}

impl Actor for JournalActor {
    type Msg = JournalControl;
    type State = Writing;
    type Arguments = Journal;

    async fn pre_start(
        &self,
        myself: ActorRef<JournalControl>,
        journal: Journal,
    ) -> Result<Writing, ActorProcessingErr> {
        let slot = journal.shared.slot.clone().lock_owned().await;
        let parts = journal.shared.parts.clone();
        // It reads a little from the disk.
        let WriterThread { ended, stop } =
            tokio::task::spawn_blocking(move || WriterThread::start(parts, slot)).await??;
        tokio::spawn(async move {
            let ended = ended.await.unwrap_or(Err(JournalError::Closed));
            // Fails only when the actor is gone, and then nobody needs to know.
            let _ = myself.cast(JournalControl::Ended(ended));
        });
        Ok(Writing { journal, stop: Some(stop) })
    }

    async fn handle(
        &self,
        _: ActorRef<JournalControl>,
        control: JournalControl,
        _: &mut Writing,
    ) -> Result<(), ActorProcessingErr> {
        match control {
            JournalControl::Ping(reply) => {
                // The asker may have given up waiting.
                let _ = reply.send(());
                Ok(())
            }
            JournalControl::Ended(Ok(())) => Err("the journal's writer ended".into()),
            JournalControl::Ended(Err(error)) => Err(error.line().into()),
        }
    }

    async fn post_stop(
        &self,
        _: ActorRef<JournalControl>,
        writing: &mut Writing,
    ) -> Result<(), ActorProcessingErr> {
        drop(writing.stop.take());
        // Until the thread has written what waits.
        drop(Arc::clone(&writing.journal.shared.slot).lock_owned().await);
        Ok(())
    }
}
