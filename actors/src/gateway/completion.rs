//! The end of a reply: its turn is written down and sessions know of it before the client sees the end, so that no
//! later request can overtake it.

use std::{sync::Arc, time::Duration};

use openclaw_journal::fault;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

use super::{Recorder, Shared, errors::ApiError};
use crate::sessions::TurnCompleted;

/// What panics in the middle is done again this often; done twice it changes nothing.
const MOST_TRIES: u32 = 3;
/// Between the tries to write down a turn that the journal has refused.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// Goes on when the client leaves: the turn is complete, whoever reads its end. Returns whether it is recorded.
pub async fn complete(shared: Arc<Shared>, completed: TurnCompleted) -> Result<bool, ApiError> {
    for attempt in 1..=MOST_TRIES {
        let (shared, completed) = (shared.clone(), completed.clone());
        let id = completed.turn.id.clone();
        let hand_on = async move {
            let is_recorded = record(&shared, &completed).await;
            fault::point("gateway.after_commit");
            shared.sessions.complete(completed).await;
            if is_recorded || !shared.config.refuse_unrecorded {
                Ok(is_recorded)
            } else {
                Err(ApiError::not_kept("The reply"))
            }
        };
        match tokio::spawn(hand_on).await {
            Ok(completed) => return completed,
            Err(failure) => error!(turn = %id, attempt, %failure, "the end of a reply panicked"),
        }
    }
    Err(ApiError::internal("The server failed at the end of the reply."))
}

/// Waits for the journal, but not for ever: a turn that it does not take in time is written down later. Returns whether
/// it is.
async fn record(shared: &Arc<Shared>, completed: &TurnCompleted) -> bool {
    let Some(recorder) = shared.recorder.clone() else { return true };
    fault::point("gateway.before_commit");
    let TurnCompleted { turn, mark } = completed.clone();
    let id = turn.id.clone();
    let mut recording: JoinHandle<Result<(), String>> = tokio::spawn(recorder(turn, mark));
    let patience = Duration::from_secs(shared.config.journal_wait_secs);
    let problem = match timeout(patience, &mut recording).await {
        Ok(Ok(Ok(()))) => return true,
        Ok(Ok(Err(problem))) => problem,
        Ok(Err(failure)) => failure.to_string(),
        Err(_) => format!("no answer within {patience:?}"),
    };
    error!(turn = %id, problem, "a turn is not recorded; its reply ends all the same");
    metrics::counter!("openclaw_gateway_unrecorded_turns_total").increment(1);
    let Ok(place) = shared.late_turns.clone().try_acquire_owned() else {
        error!(turn = %id, "a turn is lost: too many wait for the journal");
        metrics::counter!("openclaw_gateway_turns_dropped_total", "reason" => "journal").increment(1);
        recording.abort();
        return false;
    };
    let completed = completed.clone();
    tokio::spawn(async move {
        let _place = place;
        if !recording.is_finished() && matches!(recording.await, Ok(Ok(()))) {
            return info!(turn = %id, "a turn was recorded late");
        }
        record_late(&recorder, completed).await;
    });
    false
}

async fn record_late(recorder: &Recorder, TurnCompleted { turn, mark }: TurnCompleted) {
    loop {
        sleep(RETRY_PERIOD).await;
        match recorder(turn.clone(), mark.clone()).await {
            Ok(()) => return info!(turn = %turn.id, "a turn was recorded late"),
            Err(problem) => warn!(turn = %turn.id, problem, "a turn is still not recorded"),
        }
    }
}
