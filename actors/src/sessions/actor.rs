//! The actor around [`Conversations`], and the address under which it is reached through its restarts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, rpc::CallResult};
use tokio::sync::watch;
use tracing::warn;

use super::conversations::{
    Arrival, ArrivedRequest, Conversations, Feedback, FeedbackOutcome, SessionsConfig, TurnCompleted,
};
use crate::turn::Evaluate;

/// How often idle sessions are looked for.
const SWEEP_PERIOD: Duration = Duration::from_secs(10);
/// How long a request waits for a restarting actor before it is answered without a session.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries to reach a restarting actor.
const RETRY_PERIOD: Duration = Duration::from_millis(20);

/// Takes a turn with its next state onward, to be judged. Must not block.
pub type EvaluateSink = Arc<dyn Fn(Evaluate) + Send + Sync>;

/// What sessions are told and asked.
#[derive(Debug)]
pub enum SessionsMessage {
    /// A request has arrived and is about to be answered.
    RequestArrived(Arc<ArrivedRequest>, RpcReplyPort<Arrival>),
    /// A response is complete.
    TurnCompleted(Box<TurnCompleted>),
    /// A person rated or commented a response.
    Feedback(Feedback, RpcReplyPort<FeedbackOutcome>),
    /// Time to look for idle sessions.
    Sweep,
}

/// What starts a [`Sessions`].
#[derive(Clone)]
pub struct SessionsArguments {
    /// Limits and defaults.
    pub config: SessionsConfig,
    /// Where turns go whose next state is known.
    pub sink: EvaluateSink,
    /// The address to answer at.
    pub address: SessionsAddress,
}

/// The actor.
#[derive(Debug, Default)]
pub struct Sessions;

/// What the actor keeps.
pub struct SessionsState {
    conversations: Conversations,
    sink: EvaluateSink,
}

impl Actor for Sessions {
    type Msg = SessionsMessage;
    type State = SessionsState;
    type Arguments = SessionsArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<SessionsMessage>,
        arguments: SessionsArguments,
    ) -> Result<SessionsState, ActorProcessingErr> {
        describe_metrics();
        myself.send_interval(SWEEP_PERIOD, || SessionsMessage::Sweep);
        arguments.address.current.send_replace(Some(myself));
        Ok(SessionsState { conversations: Conversations::new(arguments.config), sink: arguments.sink })
    }

    async fn handle(
        &self,
        _: ActorRef<SessionsMessage>,
        message: SessionsMessage,
        state: &mut SessionsState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SessionsMessage::RequestArrived(request, reply) => state.arrive(&request, reply),
            SessionsMessage::TurnCompleted(turn) => state.conversations.complete(*turn, Instant::now()),
            SessionsMessage::Feedback(feedback, reply) => state.feedback(feedback, reply),
            SessionsMessage::Sweep => state.conversations.sweep(Instant::now()),
        }
        metrics::gauge!("openclaw_sessions_open_sessions").set(state.conversations.open_sessions() as f64);
        metrics::gauge!("openclaw_sessions_waiting_turns").set(state.conversations.waiting_turns() as f64);
        Ok(())
    }
}

impl SessionsState {
    fn arrive(&mut self, request: &ArrivedRequest, reply: RpcReplyPort<Arrival>) {
        let (arrival, evaluations) = self.conversations.arrive(request, Instant::now());
        for evaluate in evaluations {
            (self.sink)(evaluate);
        }
        // A client that hung up no longer waits for the answer.
        let _ = reply.send(arrival);
    }

    fn feedback(&mut self, feedback: Feedback, reply: RpcReplyPort<FeedbackOutcome>) {
        let (outcome, evaluate) = self.conversations.feedback(feedback);
        if let Some(evaluate) = evaluate {
            (self.sink)(evaluate);
        }
        let _ = reply.send(outcome);
    }
}

/// Where the sessions actor is, whichever incarnation.
#[derive(Clone, Debug)]
pub struct SessionsAddress {
    current: Arc<watch::Sender<Option<ActorRef<SessionsMessage>>>>,
}

impl Default for SessionsAddress {
    fn default() -> Self {
        Self { current: Arc::new(watch::Sender::new(None)) }
    }
}

impl SessionsAddress {
    /// Tells of a request before it is answered. While the actor is away for long, the request is answered as a side
    /// turn of no session: serving does not depend on learning.
    pub async fn arrive(&self, request: ArrivedRequest) -> Arrival {
        let request = Arc::new(request);
        let arrival = self.ask(|reply| SessionsMessage::RequestArrived(request.clone(), reply)).await;
        arrival.unwrap_or_else(|| {
            warn!("sessions does not answer: a request is served without a session");
            metrics::counter!("openclaw_sessions_unreachable_total").increment(1);
            request.without_session()
        })
    }

    /// Tells of a complete response. Messages are handled in order: the request that follows finds the turn.
    pub fn complete(&self, completed: TurnCompleted) {
        let message = SessionsMessage::TurnCompleted(Box::new(completed));
        let delivered = self.current.borrow().as_ref().is_some_and(|actor| actor.cast(message).is_ok());
        if !delivered {
            warn!("sessions is away: a turn will have no next state");
            metrics::counter!("openclaw_sessions_turns_dropped_total", "reason" => "unreachable")
                .increment(1);
        }
    }

    /// Gives feedback on a response; `None` when the actor does not answer.
    pub async fn feedback(&self, feedback: Feedback) -> Option<FeedbackOutcome> {
        self.ask(|reply| SessionsMessage::Feedback(feedback.clone(), reply)).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        message: impl Fn(RpcReplyPort<T>) -> SessionsMessage,
    ) -> Option<T> {
        let mut current = self.current.subscribe();
        let answer = async {
            loop {
                let actor = current.wait_for(Option::is_some).await.ok()?.clone()?;
                if let Ok(CallResult::Success(answer)) = actor.call(&message, None).await {
                    return Some(answer);
                }
                // It is on its way down; its successor will take its place at this address.
                tokio::time::sleep(RETRY_PERIOD).await;
            }
        };
        tokio::time::timeout(PATIENCE, answer).await.ok().flatten()
    }
}

fn describe_metrics() {
    metrics::describe_gauge!("openclaw_sessions_open_sessions", "Sessions that have not ended");
    metrics::describe_gauge!(
        "openclaw_sessions_waiting_turns",
        "Main turns whose next state has not arrived"
    );
    metrics::describe_counter!(
        "openclaw_sessions_next_states_total",
        "Next states found in requests, by kind"
    );
    metrics::describe_counter!(
        "openclaw_sessions_turns_dropped_total",
        "Turns that will not be judged, by reason"
    );
    metrics::describe_counter!(
        "openclaw_sessions_unreachable_total",
        "Requests served while sessions was away"
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{sessions::RequestMarks, turn::TurnKind};

    fn request() -> ArrivedRequest {
        let marks = RequestMarks { session_header: Some("s".to_owned()), ..RequestMarks::default() };
        ArrivedRequest::new(marks, Arc::new(vec![json!({"role": "user", "content": "hi"})]), false)
    }

    fn arguments(address: &SessionsAddress) -> SessionsArguments {
        let (evaluations, _) = mpsc::unbounded_channel();
        let sink: EvaluateSink = Arc::new(move |evaluate| {
            let _ = evaluations.send(evaluate);
        });
        SessionsArguments { config: SessionsConfig::default(), sink, address: address.clone() }
    }

    #[tokio::test]
    async fn a_request_finds_the_actor_that_took_the_place_of_a_stopped_one() {
        let address = SessionsAddress::default();
        let (first, ended) = Actor::spawn(None, Sessions, arguments(&address)).await.expect("it starts");
        assert_eq!(address.arrive(request()).await.index, 1);
        first.stop(None);
        ended.await.expect("it ended");
        let waiting = tokio::spawn({
            let address = address.clone();
            async move { address.arrive(request()).await }
        });
        tokio::task::yield_now().await;
        let _second = Actor::spawn(None, Sessions, arguments(&address)).await.expect("it starts again");
        assert_eq!(waiting.await.expect("no panic").kind, TurnKind::Main);
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_actor_a_request_becomes_a_side_turn() {
        let arrival = SessionsAddress::default().arrive(request()).await;
        assert_eq!((arrival.kind, arrival.session.to_string().as_str()), (TurnKind::Side, "s"));
    }
}
