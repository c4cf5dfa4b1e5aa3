//! Simulated users: personas that talk to the policy through the real HTTP API, session by session, until each of
//! them is satisfied with three first replies in a row or gives up. The workers of a group share its schedule; a
//! session whose worker is gone is played anew by another.

mod meters;
mod schedule;

use std::{
    marker::PhantomData,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use openclaw_environments::persona::{Persona, PersonaSession, SessionRecord, Step};
use openclaw_journal::panics::panic_message;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tracing::{debug, warn};

pub use schedule::{IN_A_ROW, Progress, Schedule};

use crate::chat_client::{ChatClient, ChatError, ChatRequest};

/// More exchanges than this no session has.
const MOST_EXCHANGES: usize = 16;

/// How a worker talks.
#[derive(Clone, Debug)]
pub struct RolloutConfig {
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
    /// What was asked first.
    pub asked: String,
    /// The first reply; empty where none came.
    pub replied: String,
    /// The version that gave the first reply.
    pub policy_version: Option<u64>,
    /// How far the persona has come with it.
    pub progress: Progress,
}

/// Returns once what was said before has been learnt from. A person takes minutes between two conversations;
/// simulated users wait for this instead.
pub type Pace = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// What starts a worker.
#[derive(Clone)]
pub struct RolloutArguments {
    /// How it talks.
    pub config: RolloutConfig,
    /// The gateway.
    pub client: ChatClient,
    /// Where the sessions of its group are handed out; it outlives the actor.
    pub schedule: Arc<Mutex<Schedule>>,
    /// Awaited before each session; none talk as fast as they are answered.
    pub pace: Option<Pace>,
    /// Told of each session.
    pub reports: mpsc::Sender<SessionReport>,
}

/// Control of a worker.
pub enum RolloutControl {
    /// Finishes the session under way, answers, and stops.
    Drain(RpcReplyPort<()>),
    /// Answers.
    Ping(RpcReplyPort<()>),
    /// There is no further session, a drain is over, or it panicked.
    #[doc(hidden)]
    Ended(Result<(), String>),
}

/// What a worker does until nothing is left, or until a drain is asked for: then it finishes what it has begun.
pub trait Play: Send + 'static {
    /// Does it.
    fn play(self, drain_asked: watch::Receiver<bool>) -> impl Future<Output = ()> + Send;
}

/// The actor of a worker that plays: `rollout.N` one session after the other, `agent.N` episodes. It stops by itself when
/// none is left.
pub struct Rollout<P>(PhantomData<fn() -> P>);

impl<P> Default for Rollout<P> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// One incarnation.
pub struct Running {
    playing: JoinHandle<()>,
    draining: watch::Sender<bool>,
    drained: Option<RpcReplyPort<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.playing.abort();
    }
}

impl<P: Play> Actor for Rollout<P> {
    type Msg = RolloutControl;
    type State = Running;
    type Arguments = P;

    async fn pre_start(&self, myself: ActorRef<Self::Msg>, play: P) -> Result<Running, ActorProcessingErr> {
        let (draining, drain_asked) = watch::channel(false);
        let playing = tokio::spawn(async move {
            let ended = AssertUnwindSafe(play.play(drain_asked)).catch_unwind().await;
            // Fails only when the actor is gone, and then nobody needs to know.
            let _ = myself.cast(RolloutControl::Ended(ended.map_err(panic_message)));
        });
        Ok(Running { playing, draining, drained: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        control: RolloutControl,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        match control {
            RolloutControl::Drain(reply) => {
                running.draining.send_replace(true);
                running.drained = Some(reply);
            }
            // The asker may have given up waiting, here and below.
            RolloutControl::Ping(reply) => drop(reply.send(())),
            RolloutControl::Ended(ended) => {
                ended?;
                running.drained.take().map(|reply| reply.send(()));
                myself.stop(None);
            }
        }
        Ok(())
    }
}

impl Play for RolloutArguments {
    async fn play(self, drain_asked: watch::Receiver<bool>) {
        work(&self, drain_asked).await;
    }
}

/// A session that was handed out. Dropped before its end, it is given back.
struct Session<'a> {
    schedule: &'a Mutex<Schedule>,
    persona: Persona,
    number: usize,
    ended: bool,
}

impl<'a> Session<'a> {
    fn start(schedule: &'a Mutex<Schedule>) -> Option<Self> {
        let (persona, number) = locked(schedule).start()?;
        meters::active_sessions().increment(1.0);
        Some(Self { schedule, persona, number, ended: false })
    }

    fn end(mut self, satisfied: bool) -> Progress {
        self.ended = true;
        locked(self.schedule).end(self.persona, self.number, satisfied)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        meters::active_sessions().decrement(1.0);
        if !self.ended {
            locked(self.schedule).give_back(self.persona, self.number);
        }
    }
}

fn locked(schedule: &Mutex<Schedule>) -> std::sync::MutexGuard<'_, Schedule> {
    schedule.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn work(arguments: &RolloutArguments, mut drain_asked: watch::Receiver<bool>) {
    locked(&arguments.schedule).progress().into_iter().for_each(|(persona, _)| meters::show(persona));
    loop {
        let pace = async {
            if let Some(pace) = &arguments.pace {
                pace().await;
            }
        };
        let waiting = Instant::now();
        tokio::select! {
            biased;
            _ = drain_asked.wait_for(|asked| *asked) => return,
            () = pace => {}
        }
        metrics::histogram!("openclaw_rollout_wait_seconds").record(waiting.elapsed());
        let Some(session) = Session::start(&arguments.schedule) else { return };
        let (persona, number) = (session.persona, session.number);
        let started = Instant::now();
        let Played { record, asked, replied, policy_version } = match play(arguments, persona, number).await {
            Ok(played) => played,
            Err(error) => {
                warn!(persona = persona.name(), number, %error, "a session broke off");
                metrics::counter!("openclaw_rollout_sessions_failed_total", "reason" => error.name())
                    .increment(1);
                // A session nobody answered satisfied nobody.
                Played::default()
            }
        };
        // A place for the report first: whoever is killed here has not ended the session either.
        let report = arguments.reports.reserve().await;
        let progress = session.end(record.first_satisfied);
        let recent = locked(&arguments.schedule).recently_satisfied(persona);
        metrics::histogram!("openclaw_rollout_session_seconds").record(started.elapsed());
        meters::count(persona, &record, progress, recent);
        match report {
            Ok(place) => place.send(SessionReport {
                persona,
                number,
                record,
                asked,
                replied,
                policy_version,
                progress,
            }),
            Err(_) => debug!("nobody reads session reports"),
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

impl PlayError {
    fn name(&self) -> &'static str {
        match self {
            Self::Chat(_) => "error",
            Self::Deadline(_) => "deadline",
        }
    }
}

/// A session that was played to its end.
#[derive(Default)]
struct Played {
    record: SessionRecord,
    asked: String,
    replied: String,
    policy_version: Option<u64>,
}

async fn play(
    RolloutArguments { config, client, .. }: &RolloutArguments,
    persona: Persona,
    number: usize,
) -> Result<Played, PlayError> {
    // Persona and number make the session, so that two runs of one seed ask the same whatever the timing.
    let seed = config.seed.wrapping_mul(1_000_003).wrapping_add(persona as u64 * 10_007 + number as u64);
    let mut session = PersonaSession::new(persona, seed);
    let mut messages: Vec<Value> = Vec::new();
    let mut headers = HeaderMap::new();
    let id = format!("{}-{}-{number}-{}", persona.name(), config.seed, uuid::Uuid::new_v4().simple());
    headers.insert("x-session-id", HeaderValue::from_str(&id).expect("letters, digits and dashes"));
    // All that it says is its user's: nobody need wait to see whether the next request shows it.
    headers.insert("x-turn-type", HeaderValue::from_static("main"));
    let mut played = Played { asked: session.first_message().to_owned(), ..Played::default() };
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
            played.policy_version = reply.policy_version;
            played.replied = reply.content.clone();
        }
        match session.next(&reply.content, reply.completion_tokens) {
            Step::Done => break,
            Step::Send(next) => say = next,
        }
        messages.push(json!({"role": "assistant", "content": reply.content}));
    }
    played.record = session.record().clone();
    Ok(played)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat_client::tests::{completion, endpoint};

    #[tokio::test]
    async fn a_worker_talks_until_each_persona_is_satisfied_and_then_stops() {
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
        let (reports, mut sessions) = mpsc::channel(100);
        let arguments = RolloutArguments {
            schedule: Arc::new(Mutex::new(Schedule::new(&[Persona::Student], 72))),
            config: RolloutConfig {
                seed: 1,
                options: Map::new(),
                stream: false,
                reply_deadline: Duration::from_secs(20),
            },
            client: ChatClient::new(&url, "policy", None).expect("a client"),
            pace: None,
            reports,
        };
        let (_actor, task) = Actor::spawn(None, Rollout::default(), arguments).await.expect("it starts");
        task.await.expect("it stops by itself");
        let (mut satisfied, mut exchanges) = (Vec::new(), Vec::new());
        let mut last = Progress::Open;
        while let Ok(report) = sessions.try_recv() {
            satisfied.push(report.record.first_satisfied);
            exchanges.push((report.asked, report.replied));
            last = report.progress;
        }
        assert_eq!(satisfied, [false, false, true, true, true]);
        assert!(exchanges[0].0.ends_with('?') && exchanges[0].1.starts_with("**Step 1**"), "{exchanges:?}");
        assert_eq!(exchanges[4].1, "We have 2 + 2 = 4.");
        assert_eq!(last, Progress::Satisfied { sessions: 5 });
        let complaints = asked.lock().expect("not poisoned").iter().filter(|(length, _)| *length > 3).count();
        assert_eq!(complaints, 2, "each bad session hears two complaints, the second in its third exchange");
    }

    #[tokio::test]
    async fn the_session_of_a_killed_worker_is_played_anew_and_a_drained_one_finishes_its_own() {
        let (asked, mut asking) = watch::channel(0);
        let (answers, answering) = watch::channel(false);
        let url = endpoint(move |_| {
            asked.send_modify(|asked| *asked += 1);
            let mut answering = answering.clone();
            async move {
                let _ = answering.wait_for(|answers| *answers).await;
                completion("We have 2 + 2 = 4.")
            }
        })
        .await;
        let (reports, mut sessions) = mpsc::channel(100);
        let arguments = RolloutArguments {
            schedule: Arc::new(Mutex::new(Schedule::new(&[Persona::Student], 72))),
            config: RolloutConfig {
                seed: 1,
                options: Map::new(),
                stream: false,
                reply_deadline: Duration::from_secs(20),
            },
            client: ChatClient::new(&url, "policy", None).expect("a client"),
            pace: None,
            reports,
        };
        let (killed, task) =
            Actor::spawn(None, Rollout::default(), arguments.clone()).await.expect("it starts");
        asking.wait_for(|asked| *asked == 1).await.expect("the endpoint is up");
        killed.kill();
        task.await.expect("it ends");

        let schedule = arguments.schedule.clone();
        let (drained, task) = Actor::spawn(None, Rollout::default(), arguments).await.expect("it starts");
        asking.wait_for(|asked| *asked == 2).await.expect("the endpoint is up");
        let (answer, drain) = ractor::concurrency::oneshot();
        drained.cast(RolloutControl::Drain(answer.into())).expect("it is up");
        // Answered after the ping, which stands behind the drain in the mailbox.
        ractor::call!(drained, RolloutControl::Ping).expect("it is up");
        answers.send_replace(true);
        drain.await.expect("it drains");
        task.await.expect("it stops");
        let report = sessions.recv().await.expect("a report");
        assert_eq!((report.number, report.record.first_satisfied), (1, true));
        assert!(sessions.try_recv().is_err(), "it took no further session");
        assert_eq!(locked(&schedule).start(), Some((Persona::Student, 2)));
    }
}
