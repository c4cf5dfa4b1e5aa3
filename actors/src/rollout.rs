//! Simulated users: whoever asks in an environment talks to the policy through the real HTTP API, session by session,
//! until each of them is satisfied with three first replies in a row or gives up. The workers of a group share its
//! schedule; a session whose worker is gone is played anew by another.

mod meters;
mod schedule;
mod session;

use std::{
    marker::PhantomData,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use openclaw_environments::world::{Task, Verdict};
use openclaw_journal::panics::panic_message;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use serde_json::{Map, Value};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tracing::{debug, warn};

pub use schedule::{IN_A_ROW, Progress, Schedule, Turn};
use session::{Held, Played, locked, play};

use crate::chat_client::ChatClient;

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
#[derive(Clone, Debug, PartialEq)]
pub struct SessionReport {
    /// Who.
    pub user: Arc<str>,
    /// Number of the session among this user's, from 1.
    pub number: usize,
    /// What was asked; none where there was no such task.
    pub task: Option<Task>,
    /// What the user made of it: a success is a first reply that they liked.
    pub verdict: Verdict,
    /// The first reply; empty where none came.
    pub replied: String,
    /// The version that gave the first reply.
    pub policy_version: Option<u64>,
    /// How far the user has come with it.
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

async fn work(arguments: &RolloutArguments, mut drain_asked: watch::Receiver<bool>) {
    locked(&arguments.schedule).progress().into_iter().for_each(|(user, _)| meters::show(&user));
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
        let Some(held) = Held::take(&arguments.schedule) else { return };
        let Turn { user, number, .. } = held.turn.clone();
        let started = Instant::now();
        let played = match play(arguments, &user, number).await {
            Ok(played) => played,
            Err(error) => {
                warn!(user = &*user.name, number, %error, "a session broke off");
                metrics::counter!("openclaw_rollout_sessions_failed_total", "reason" => error.name())
                    .increment(1);
                // A session nobody answered satisfied nobody.
                Played::default()
            }
        };
        // A place for the report first: whoever is killed here has not ended the session either.
        let report = arguments.reports.reserve().await;
        let progress = held.end(played.verdict.success);
        metrics::histogram!("openclaw_rollout_session_seconds").record(started.elapsed());
        meters::count(&user.name, &played, progress);
        let Played { task, verdict, replied, policy_version, .. } = played;
        match report {
            Ok(place) => place.send(SessionReport {
                user: user.name,
                number,
                task,
                verdict,
                replied,
                policy_version,
                progress: progress.0,
            }),
            Err(_) => debug!("nobody reads session reports"),
        }
    }
}

#[cfg(test)]
mod tests {
    use openclaw_environments::{
        registry,
        world::{User, text_of},
    };
    use serde_json::Value;

    use super::*;
    use crate::chat_client::tests::{completion, endpoint};

    /// One who wants no formatting.
    fn students() -> Vec<User> {
        let settings = "personas = [\"student\"]".parse().expect("settings");
        registry::make("persona", settings).expect("it needs nothing").users()
    }

    #[tokio::test]
    async fn a_worker_talks_until_each_user_is_satisfied_and_then_stops() {
        // The first two sessions get what it dislikes.
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
            schedule: Arc::new(Mutex::new(Schedule::new(&students(), 72))),
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
            satisfied.push(report.verdict.success);
            let asked = report.task.expect("a task").opening.remove(0).parts;
            exchanges.push((text_of(&asked), report.replied));
            last = report.progress;
        }
        assert_eq!(satisfied, [false, false, true, true, true]);
        assert!(exchanges[0].0.contains("homework"), "{exchanges:?}");
        assert!(exchanges[0].1.starts_with("**Step 1**"), "{exchanges:?}");
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
            schedule: Arc::new(Mutex::new(Schedule::new(&students(), 72))),
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
        assert_eq!((report.number, report.verdict.success), (1, true));
        assert!(sessions.try_recv().is_err(), "it took no further session");
        assert_eq!(locked(&schedule).start().map(|turn| turn.number), Some(2));
    }
}
