//! The journal under supervision: an actor that owns the thread that writes.

use openclaw_journal::{Journal, JournalError, Writing};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

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

impl Actor for JournalActor {
    type Msg = JournalControl;
    type State = Writing;
    type Arguments = Journal;

    async fn pre_start(
        &self,
        myself: ActorRef<JournalControl>,
        journal: Journal,
    ) -> Result<Writing, ActorProcessingErr> {
        let mut writing = journal.start_writing().await?;
        let ended = writing.ended();
        tokio::spawn(async move {
            // Fails only when the actor is gone, and then nobody needs to know.
            let _ = myself.cast(JournalControl::Ended(ended.await));
        });
        Ok(writing)
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
        writing.stop().await;
        Ok(())
    }
}
