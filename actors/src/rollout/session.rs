//! One session of a simulated user: a task of theirs, told to the policy through the API, and a world that says what they
//! say next.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openclaw_environments::world::{
    Action, Observation, Outcome, Said, Split, Task, User, Verdict, World, WorldError, drawn,
};
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Progress, RolloutArguments, Schedule, Turn, meters};
use crate::chat_client::{ChatError, ChatRequest};

/// More exchanges than this no session has.
const MOST_EXCHANGES: usize = 16;

/// A session that was handed out. Dropped before its end, it is given back.
pub(super) struct Held<'a> {
    schedule: &'a Mutex<Schedule>,
    pub turn: Turn,
    ended: bool,
}

impl<'a> Held<'a> {
    pub fn take(schedule: &'a Mutex<Schedule>) -> Option<Self> {
        let turn = locked(schedule).start()?;
        meters::active_sessions().increment(1.0);
        Some(Self { schedule, turn, ended: false })
    }

    /// How far its user has come, and the share of their latest sessions that satisfied them.
    pub fn end(mut self, satisfied: bool) -> (Progress, Option<f64>) {
        self.ended = true;
        let mut schedule = locked(self.schedule);
        (schedule.end(&self.turn, satisfied), schedule.recently_satisfied(&self.turn))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        meters::active_sessions().decrement(1.0);
        if !self.ended {
            locked(self.schedule).give_back(&self.turn);
        }
    }
}

pub(super) fn locked(schedule: &Mutex<Schedule>) -> MutexGuard<'_, Schedule> {
    schedule.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a session broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlayError {
    #[error(transparent)]
    Chat(#[from] ChatError),
    #[error("no reply within {0:?}")]
    Deadline(Duration),
    #[error(transparent)]
    World(#[from] WorldError),
}

impl PlayError {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Chat(_) => "error",
            Self::Deadline(_) => "deadline",
            Self::World(error) => error.name(),
        }
    }
}

/// A session that was played to its end.
#[derive(Default)]
pub(super) struct Played {
    pub task: Option<Task>,
    pub verdict: Verdict,
    /// Replies that the user remarked on, bad ones first.
    pub remarks: [u64; 2],
    /// The first reply.
    pub replied: String,
    pub policy_version: Option<u64>,
}

/// Plays the `number`th session of a user, from 1. The same number asks the same in every run of a seed, whatever the
/// timing.
pub(super) async fn play(
    RolloutArguments { config, client, .. }: &RolloutArguments,
    user: &User,
    number: usize,
) -> Result<Played, PlayError> {
    let (mut asked, task, seen) = Asked::open(user, config.seed, number).await?;
    let mut messages: Vec<Value> = task.opening.iter().map(Said::message).chain(spoken(&seen)).collect();
    let mut headers = HeaderMap::new();
    let id = format!("{}-{}-{number}-{}", user.name, config.seed, uuid::Uuid::new_v4().simple());
    headers.insert("x-session-id", HeaderValue::from_str(&id).expect("letters, digits and dashes"));
    // All that it says is its user's: nobody need wait to see whether the next request shows it.
    headers.insert("x-turn-type", HeaderValue::from_static("main"));
    let mut played = Played { task: Some(task), ..Played::default() };
    for exchange in 0..MOST_EXCHANGES {
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
        let outcome = asked.hears(reply.content.clone()).await?;
        if let Some(rule) = outcome.rule {
            played.remarks[usize::from(rule.score > 0)] += 1;
        }
        if outcome.done {
            break;
        }
        messages.push(json!({"role": "assistant", "content": reply.content}));
        messages.extend(spoken(&outcome.observation));
    }
    played.verdict = asked.verdict().await?;
    Ok(played)
}

/// What is seen is what the user says.
fn spoken(seen: &Observation) -> Option<Value> {
    (!seen.parts.is_empty()).then(|| Said { role: "user", parts: seen.parts.clone() }.message())
}

/// A world at a task. It blocks, so it is asked on threads for that.
struct Asked {
    world: Option<Box<dyn World>>,
}

impl Asked {
    async fn open(user: &User, seed: u64, number: usize) -> Result<(Self, Task, Observation), WorldError> {
        let environment = user.environment.clone();
        blocking(move || {
            let nth = (number as u64).saturating_sub(1);
            let task = environment.task(Split::Train, drawn(seed, nth, environment.tasks(Split::Train)))?;
            let mut world = environment.open()?;
            let seen = world.reset(&task)?;
            Ok((Self { world: Some(world) }, task, seen))
        })
        .await
    }

    async fn hears(&mut self, reply: String) -> Result<Outcome, WorldError> {
        self.ask(move |world| world.step(&Action::Text(reply))).await
    }

    async fn verdict(&mut self) -> Result<Verdict, WorldError> {
        self.ask(|world| world.evaluate()).await
    }

    async fn ask<T: Send + 'static>(
        &mut self,
        what: impl FnOnce(&mut dyn World) -> Result<T, WorldError> + Send + 'static,
    ) -> Result<T, WorldError> {
        let Some(mut world) = self.world.take() else {
            return Err(WorldError::Broken("it panicked".to_owned()));
        };
        let (world, answer) = blocking(move || {
            let answer = what(&mut *world);
            Ok((world, answer))
        })
        .await?;
        self.world = Some(world);
        answer
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WorldError> + Send + 'static,
) -> Result<T, WorldError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(WorldError::Broken(error.to_string())))
}
