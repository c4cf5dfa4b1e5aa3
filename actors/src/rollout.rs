//! Simulated users: personas that talk to the policy through the real HTTP API, session by session, until each of
//! them is satisfied with three first replies in a row or gives up.

mod schedule;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use openclaw_environments::persona::{Persona, PersonaSession, SessionRecord, Step};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tracing::{debug, warn};

pub use schedule::{IN_A_ROW, Progress, Schedule};

use crate::chat_client::{ChatClient, ChatError, ChatRequest};

/// More exchanges than this no session has.
const MOST_EXCHANGES: usize = 16;

/// Who talks, and how.
#[derive(Clone, Debug)]
pub struct RolloutConfig {
    /// Who they play.
    pub personas: Vec<Persona>,
    /// Sessions at a time.
    pub workers: usize,
    /// Sessions per persona before it gives up.
    pub max_sessions: usize,
    /// Decides what is asked and said.
    pub seed: u64,
    /// Further fields of each request: `temperature`, `max_tokens`, ..
    pub options: Map<String, Value>,
    /// Reads replies as they are drawn.
    pub stream: bool,
    /// A reply that takes longer ends its session.
    pub reply_deadline: Duration,
}

/// What came of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionReport {
    /// Who.
    pub persona: Persona,
    /// Number of the session among this persona's, from 1.
    pub number: usize,
    /// What the experiment keeps of it.
    pub record: SessionRecord,
    /// The version that gave the first reply.
    pub policy_version: Option<u64>,
    /// How far the persona has come with it.
    pub progress: Progress,
}

/// Returns once what was said before has been learnt from. A person takes minutes between two conversations;
/// simulated users wait for this instead.
pub type Pace = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// What starts a group of simulated users.
#[derive(Clone)]
pub struct RolloutArguments {
    /// Who talks, and how.
    pub config: RolloutConfig,
    /// The gateway.
    pub client: ChatClient,
    /// Where sessions are handed out; it outlives the actor.
    pub schedule: Arc<Mutex<Schedule>>,
    /// Awaited before each session; none talk as fast as they are answered.
    pub pace: Option<Pace>,
    /// Told of each session.
    pub reports: mpsc::Sender<SessionReport>,
}

/// Control of a group.
pub enum RolloutControl {
    /// How far each persona has come.
    Progress(RpcReplyPort<Vec<(Persona, Progress)>>),
    /// Every persona is satisfied or has given up.
    #[doc(hidden)]
    Over,
}

/// The actor `rollout.N`: one group. It stops by itself when its personas are through.
pub struct Rollout;

/// One incarnation's workers.
pub struct Running {
    schedule: Arc<Mutex<Schedule>>,
    _workers: JoinSet<()>,
}

impl Actor for Rollout {
    type Msg = RolloutControl;
    type State = Running;
    type Arguments = RolloutArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: RolloutArguments,
    ) -> Result<Running, ActorProcessingErr> {
        let schedule = arguments.schedule.clone();
        let mut workers = JoinSet::new();
        for _ in 0..arguments.config.workers.max(1) {
            let (arguments, myself) = (arguments.clone(), myself.clone());
            workers.spawn(async move {
                work(&arguments).await;
                if locked(&arguments.schedule).is_over() {
                    // Fails only when the actor is gone, and then nobody needs to know.
                    let _ = myself.cast(RolloutControl::Over);
                }
            });
        }
        Ok(Running { schedule, _workers: workers })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        control: RolloutControl,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        match control {
            // The asker may have given up waiting.
            RolloutControl::Progress(reply) => drop(reply.send(locked(&running.schedule).progress())),
            RolloutControl::Over => myself.stop(Some("every persona is through".to_owned())),
        }
        Ok(())
    }
}

fn locked(schedule: &Mutex<Schedule>) -> std::sync::MutexGuard<'_, Schedule> {
    schedule.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn work(arguments: &RolloutArguments) {
    loop {
        if let Some(pace) = &arguments.pace {
            pace().await;
        }
        let Some((persona, number)) = locked(&arguments.schedule).start() else { return };
        let (record, policy_version) = match play(arguments, persona, number).await {
            Ok(played) => played,
            Err(error) => {
                warn!(persona = persona.name(), number, %error, "a session broke off");
                metrics::counter!("openclaw_rollout_sessions_failed_total").increment(1);
                // A session nobody answered satisfied nobody.
                (SessionRecord::default(), None)
            }
        };
        let satisfied = record.first_satisfied;
        let progress = locked(&arguments.schedule).end(persona, number, satisfied);
        let labels = [("persona", persona.name()), ("satisfied", if satisfied { "yes" } else { "no" })];
        metrics::counter!("openclaw_rollout_sessions_total", &labels).increment(1);
        let report = SessionReport { persona, number, record, policy_version, progress };
        if arguments.reports.send(report).await.is_err() {
            debug!("nobody reads session reports");
        }
    }
}

/// Why a session broke off.
#[derive(Debug, thiserror::Error)]
enum PlayError {
    #[error(transparent)]
    Chat(#[from] ChatError),
    #[error("no reply within {0:?}")]
    Deadline(Duration),
}

async fn play(
    RolloutArguments { config, client, .. }: &RolloutArguments,
    persona: Persona,
    number: usize,
) -> Result<(SessionRecord, Option<u64>), PlayError> {
    // Persona and number make the session, so that two runs of one seed ask the same whatever the timing.
    let seed = config.seed.wrapping_mul(1_000_003).wrapping_add(persona as u64 * 10_007 + number as u64);
    let mut session = PersonaSession::new(persona, seed);
    let mut messages: Vec<Value> = Vec::new();
    let mut headers = HeaderMap::new();
    let id = format!("{}-{}-{number}-{}", persona.name(), config.seed, uuid::Uuid::new_v4().simple());
    headers.insert("x-session-id", HeaderValue::from_str(&id).expect("letters, digits and dashes"));
    let mut first_version = None;
    let mut say = session.first_message().to_owned();
    for exchange in 0..MOST_EXCHANGES {
        messages.push(json!({"role": "user", "content": say}));
        let request = ChatRequest {
            messages: messages.clone(),
            options: config.options.clone(),
            headers: headers.clone(),
            stream: config.stream,
        };
        let reply = timeout(config.reply_deadline, client.ask_until_answered(&request))
            .await
            .map_err(|_| PlayError::Deadline(config.reply_deadline))??;
        if exchange == 0 {
            first_version = reply.policy_version;
        }
        match session.next(&reply.content, reply.completion_tokens) {
            Step::Done => break,
            Step::Send(next) => say = next,
        }
        messages.push(json!({"role": "assistant", "content": reply.content}));
    }
    Ok((session.record().clone(), first_version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat_client::tests::{completion, endpoint};

    #[tokio::test]
    async fn a_group_talks_until_each_persona_is_satisfied_and_then_stops() {
        // The student wants no formatting: the first two sessions get what it dislikes.
        let asked = Arc::new(Mutex::new(Vec::<(usize, Value)>::new()));
        let seen = asked.clone();
        let url =
            endpoint(move |body| {
                let messages = body["messages"].as_array().expect("messages").clone();
                let mut asked = seen.lock().expect("not poisoned");
                asked.push((messages.len(), messages.last().expect("a message")["content"].clone()));
                let firsts = asked.iter().filter(|(length, _)| *length == 1).count();
                async move {
                    completion(if firsts <= 2 { "**Step 1**\n1. \\boxed{4}" } else { "We have 2 + 2 = 4." })
                }
            })
            .await;
        let personas = vec![Persona::Student];
        let (reports, mut sessions) = mpsc::channel(100);
        let arguments = RolloutArguments {
            schedule: Arc::new(Mutex::new(Schedule::new(&personas, 72))),
            config: RolloutConfig {
                personas,
                workers: 1,
                max_sessions: 72,
                seed: 1,
                options: Map::new(),
                stream: false,
                reply_deadline: Duration::from_secs(20),
            },
            client: ChatClient::new(&url, "policy", None).expect("a client"),
            pace: None,
            reports,
        };
        let (_actor, task) = Actor::spawn(None, Rollout, arguments).await.expect("it starts");
        task.await.expect("it stops by itself");
        let mut satisfied = Vec::new();
        let mut last = Progress::Open;
        while let Ok(report) = sessions.try_recv() {
            satisfied.push(report.record.first_satisfied);
            last = report.progress;
        }
        assert_eq!(satisfied, [false, false, true, true, true]);
        assert_eq!(last, Progress::Satisfied { sessions: 5 });
        let complaints = asked.lock().expect("not poisoned").iter().filter(|(length, _)| *length > 3).count();
        assert_eq!(complaints, 2, "each bad session hears two complaints, the second in its third exchange");
    }
}
