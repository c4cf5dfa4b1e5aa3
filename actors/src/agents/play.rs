//! One episode, from its task to its outcome. Each step is written down before the next begins, so that an episode whose
//! worker died is played up to where it was, and goes on.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use openclaw_environments::{
    agent::{Agent, Fit},
    world::{Environment, Shot, Split, StepVerdict, Verdict, WorldError},
};
use openclaw_journal::{
    Episode, EpisodeId, EpisodeState, Group, Journal, JournalError, NextState, OWN_SESSIONS, Record,
    Recorded, Screen, SessionId, Turn, TurnId, TurnKind, TurnMark, fault,
};
use openclaw_model::{Dialogue, TextError};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::{
    AgentsConfig, Artefacts, Pass,
    draw::{Drawn, draw},
    meters,
    moves::{Move, name_of, next_state},
    plan::{Held, Plan, locked},
    slot::Slot,
};
use crate::{
    conversation,
    engine::{Engine, EngineError},
    pictures::Pictures,
    resume::chain,
};

/// Most steps of an episode that are read back.
const MOST_STEPS: usize = 10_000;
/// Between two tries to write down what the journal refuses.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// What a player plays with.
pub struct Player {
    /// Limits and sampling.
    pub config: AgentsConfig,
    /// The environment.
    pub environment: Arc<dyn Environment>,
    /// Which episodes there are.
    pub plan: Arc<Mutex<Plan>>,
    /// The policy.
    pub engines: Vec<Engine>,
    /// Where all of it is written down.
    pub journal: Journal,
    /// Awaited before each step.
    pub pass: Pass,
    /// Where what is left of episodes is kept, if it is.
    pub artefacts: Option<Artefacts>,
    /// Where the images go that worlds with a screen show.
    pub pictures: Pictures,
}

/// Why an episode did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The world failed.
    #[error(transparent)]
    World(#[from] WorldError),
    /// The policy failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What was said cannot be shown to the policy.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// It was played before, and went otherwise.
    #[error("step {step} came out otherwise than before")]
    Diverged {
        /// Its number, from 1.
        step: u32,
    },
    /// A turn of it cannot be read back.
    #[error("step {step} cannot be read back")]
    Unreadable {
        /// Its number, from 1.
        step: u32,
    },
    /// The worker that had it before has still written this step down, behind the look of this one.
    #[error("its former worker took another step")]
    Overtaken,
    /// It ended meanwhile.
    #[error("it ended meanwhile")]
    Ended,
}

impl PlayError {
    /// Why it is abandoned, for the journal and the counter; none where it is worth another try.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::World(error) if error.may_pass() => None,
            Self::World(error) => Some(error.name()),
            Self::Engine(EngineError::Refused { .. } | EngineError::Prompt { .. }) => {
                Some("refused_by_model")
            }
            Self::Engine(_) | Self::Journal(_) => None,
            Self::Text(_) => Some("text"),
            Self::Diverged { .. } => Some("diverged"),
            Self::Unreadable { .. } => Some("unreadable"),
            Self::Overtaken | Self::Ended => None,
        }
    }
}

impl PlayError {
    /// The same, at its last try for whatever it was.
    fn given_up(&self, held: &Held) -> Option<&'static str> {
        self.reason().or(held.is_hopeless().then_some("gave_up"))
    }
}

/// How far an episode is.
struct Course {
    episode: Episode,
    agent: Box<dyn Agent>,
    dialogue: Dialogue,
    slot: Slot,
    /// Steps taken.
    steps: u32,
    malformed: u32,
    /// Names what the policy saw last.
    state: u64,
    /// The image that a screen showed last.
    screen: Option<String>,
    done: bool,
}

impl Player {
    /// Plays an episode, and says what came of it to the plan and the journal.
    pub(super) async fn play(&self, held: Held) {
        let environment = locked(&self.plan).config().environment.clone();
        let episode = match self.begin(&held).await {
            Ok(Some(episode)) => episode,
            Ok(None) => return held.skip(),
            Err(error) => {
                let reason = error.given_up(&held);
                warn!(%error, again = reason.is_none(), "an episode does not begin");
                let Some(reason) = reason else { return sleep(RETRY_PERIOD).await };
                meters::abandoned(&environment, reason);
                return held.end(None);
            }
        };
        let split = held.ticket.split();
        meters::under_way(&environment).increment(1.0);
        let guard = meters::OnDrop(|| meters::under_way(&environment).decrement(1.0));
        let played = self.play_on(episode.clone(), &held).await;
        drop(guard);
        match played {
            Ok((verdict, steps)) => {
                meters::came_out(&environment, split, &verdict, steps);
                if let Some(artefacts) = &self.artefacts {
                    artefacts.outcome(&episode, Ok(&verdict)).await;
                }
                held.end(Some(verdict.success));
            }
            Err(PlayError::Ended) => held.skip(),
            Err(error) => {
                let reason = error.given_up(&held);
                warn!(episode = %episode.id, %error, again = reason.is_none(), "an episode broke off");
                let Some(reason) = reason else { return sleep(RETRY_PERIOD).await };
                if let Some(artefacts) = &self.artefacts {
                    artefacts.outcome(&episode, Err(error.to_string())).await;
                }
                let abandoned = Record::EpisodeAbandoned { episode: episode.id, reason: reason.to_owned() };
                self.record(abandoned).await;
                meters::abandoned(&environment, reason);
                held.end(None);
            }
        }
    }

    /// The episode, begun; none where it has ended before.
    async fn begin(&self, held: &Held) -> Result<Option<Episode>, PlayError> {
        let (name, group, number, config) = {
            let mut plan = locked(&self.plan);
            let number = plan.task(held.ticket);
            (plan.episode_name(held.ticket), plan.group_name(held.ticket), number, plan.config().clone())
        };
        let id = EpisodeId(name.as_str().into());
        if let Some((row, _)) = self.journal.episode(&id).await? {
            let open = row.state == EpisodeState::Open;
            return Ok(open.then_some(row.episode));
        }
        let split = held.ticket.split();
        let task = self.environment.task(split, number)?;
        let episode = Episode {
            id,
            session: SessionId(format!("{OWN_SESSIONS}{name}").into()),
            environment: config.environment.clone(),
            task: task.id,
            seed: Some(number),
            group: (split == Split::Train).then(|| Group { name: group.into(), of: config.group }),
            judged: split == Split::Train && self.config.judged,
        };
        self.record(Record::EpisodeBegan { episode: episode.clone() }).await;
        fault::point("agent.after_begin");
        Ok(Some(episode))
    }

    async fn play_on(&self, episode: Episode, held: &Held) -> Result<(Verdict, u32), PlayError> {
        let split = held.ticket.split();
        let number = episode.seed.unwrap_or_default();
        let task = Arc::new(self.environment.task(split, number)?);
        if let Some(artefacts) = &self.artefacts {
            artefacts.begin(&episode.id).await;
        }
        let slot = Slot::open(self.environment.clone()).await?;
        let first = slot.reset(task.clone()).await?;
        let mut agent = self.environment.agent();
        let messages = agent.start(&task, &first.parts);
        let tools: Vec<Value> = task.tools.iter().map(|tool| tool.function()).collect();
        let text = self.engines[0].text();
        let dialogue = Dialogue::new(&text.tokenizer, &text.template, &messages, &tools)?;
        let state = first.state.unwrap_or_else(|| name_of(&messages));
        let mut course = Course {
            episode,
            agent,
            dialogue,
            slot,
            steps: 0,
            malformed: 0,
            state,
            screen: None,
            done: false,
        };
        self.film(&mut course, first.shot.as_ref(), None).await?;
        self.go_on(&mut course).await?;
        let until = Instant::now() + self.config.episode;
        while !course.done && course.steps < self.config.steps && Instant::now() < until {
            (self.pass)().await;
            if !self.has_room(&mut course)? {
                break;
            }
            self.step(&mut course).await?;
        }
        if let Some(artefacts) = &self.artefacts {
            artefacts.files(&course.episode.id, &course.slot).await;
        }
        let verdict = course.slot.evaluate().await?;
        fault::point("agent.before_end");
        let outcome = openclaw_journal::Outcome {
            reward: verdict.reward,
            success: Some(verdict.success),
            numbers: verdict.numbers.clone(),
        };
        let ended = Record::EpisodeEnded { episode: course.episode.id.clone(), outcome };
        if self.record(ended).await == Recorded::Stale {
            return Err(PlayError::Ended);
        }
        Ok((verdict, course.steps))
    }

    /// Takes the steps again that were written down, and sees that the world answers as it did.
    async fn go_on(&self, course: &mut Course) -> Result<(), PlayError> {
        let told = self.journal.stories(&course.episode.session, 0, MOST_STEPS).await?;
        if !told.is_empty() {
            debug!(episode = %course.episode.id, steps = told.len(), "an episode goes on");
            metrics::counter!("openclaw_episodes_resumed_total").increment(1);
        }
        for told in told {
            let step = course.steps + 1;
            let story = told.story.map_err(|_| PlayError::Unreadable { step })?;
            let turn = story.row.turn;
            let parts = conversation::parts(&turn);
            let message = conversation::reply(&turn);
            let before = told_alone(story.row.next_state);
            if turn.completion.prompt_ids != course.dialogue.ids() {
                // A prompt that was rendered anew to make room is found again the same way.
                self.has_room(course)?;
                if turn.completion.prompt_ids != course.dialogue.ids() {
                    return Err(PlayError::Diverged { step });
                }
            }
            let drawn = Drawn { completion: turn.completion.clone(), parts, message };
            let (next_state, followed) = self.act(course, &drawn).await?;
            match (&before, next_state) {
                (Some(_), now @ Some(_)) if before != told_alone(now.clone()) => {
                    return Err(PlayError::Diverged { step });
                }
                (None, Some(next_state)) if turn.trainable => self.follow(turn.id.clone(), next_state).await,
                _ => {}
            }
            if !course.done {
                course.dialogue.followed(&followed)?;
            }
        }
        Ok(())
    }

    /// Leaves out what can be where there is no room for another reply; false where that is not enough.
    fn has_room(&self, course: &mut Course) -> Result<bool, PlayError> {
        let context = self.engines[0].text().context_tokens;
        let fits =
            |dialogue: &Dialogue| dialogue.ids().len() + self.config.sampling.max_new_tokens <= context;
        if fits(&course.dialogue) {
            return Ok(true);
        }
        if let Fit::Rewrite(messages) = course.agent.fit(course.dialogue.messages()) {
            course.dialogue.rewrite(&messages)?;
        }
        Ok(fits(&course.dialogue))
    }

    async fn step(&self, course: &mut Course) -> Result<(), PlayError> {
        let number = course.steps + 1;
        let id = TurnId(format!("{}-s{number}", course.episode.id).into());
        let home = name_of(&[Value::from(&*course.episode.id.0)]) as usize % self.engines.len();
        let started = Instant::now();
        let drawn = draw(&self.engines, home, &id, &course.dialogue, self.config.sampling).await?;
        let turn = Turn {
            id: id.clone(),
            session: course.episode.session.clone(),
            index: number,
            kind: TurnKind::Main,
            trainable: course.episode.group.is_some(),
            messages: Arc::new(course.dialogue.messages().to_vec()),
            tools: Arc::new(course.dialogue.tools().to_vec()),
            template_kwargs: Arc::default(),
            completion: drawn.completion.clone(),
        };
        let trains = turn.trainable;
        let mark = TurnMark {
            chain: [course.state].into(),
            named: true,
            before: course.state,
            says_anything: true,
            ..TurnMark::default()
        };
        fault::point("agent.before_turn");
        if self.record(Record::TurnCompleted { turn: Arc::new(turn), mark }).await == Recorded::Stale {
            return Err(PlayError::Overtaken);
        }
        fault::point("agent.after_turn");
        let acting = Instant::now();
        let (next_state, followed) = self.act(course, &drawn).await?;
        meters::step(&course.episode.environment, acting - started, acting.elapsed());
        if let Some(next_state) = next_state.filter(|_| trains) {
            self.follow(id, next_state).await;
        }
        fault::point("agent.after_step");
        if !course.done {
            course.dialogue.followed(&followed)?;
        }
        Ok(())
    }

    /// Does what a reply says. What followed it, for the judge, and as messages.
    async fn act(
        &self,
        course: &mut Course,
        drawn: &Drawn,
    ) -> Result<(Option<NextState>, Vec<Value>), PlayError> {
        course.dialogue.replied(&drawn.message, &drawn.completion.response_ids)?;
        course.steps += 1;
        let taken = Move::read(&*course.agent, &drawn.parts, drawn.completion.finish_reason);
        let mut outcome = course.slot.step(taken.action.clone()).await?;
        let messages = taken.told(&mut *course.agent, &mut outcome, &mut course.malformed);
        course.done = outcome.done;
        course.state = outcome.observation.state.unwrap_or_else(|| name_of(&messages));
        let malformed = course.malformed > 0;
        let screen = self.film(course, outcome.observation.shot.as_ref(), outcome.rule).await?;
        let followed = next_state(&outcome, &messages, malformed, self.config.step_judge);
        Ok((followed.map(|next_state| NextState { screen, ..next_state }), messages))
    }

    /// Keeps what a screen shows now; none of a world without one.
    async fn film(
        &self,
        course: &mut Course,
        shot: Option<&Shot>,
        rule: Option<StepVerdict>,
    ) -> Result<Option<Screen>, PlayError> {
        let Some(shot) = shot else { return Ok(None) };
        let images = course.slot.images().await?;
        let pictures = self.pictures.clone();
        let kept = tokio::task::spawn_blocking(move || {
            for (image, bytes) in images {
                if let Err(error) = pictures.keep(&image.sha256, &bytes) {
                    warn!(error = chain(&error), "an image is not kept");
                    metrics::counter!("openclaw_agent_images_dropped_total", "reason" => error.name())
                        .increment(1);
                }
            }
        });
        kept.await.map_err(|error| WorldError::Broken(format!("its images: {error}")))?;
        if let Some(artefacts) = &self.artefacts {
            artefacts.frame(&course.episode.id, course.steps, shot, rule).await;
        }
        let after = shot.image.sha256.clone();
        Ok(Some(Screen { before: course.screen.replace(after.clone()), after, point: shot.point }))
    }

    async fn follow(&self, turn: TurnId, next_state: NextState) {
        self.record(Record::NextStateSeen { turn, next_state, provisional: false }).await;
    }

    /// Waits for the journal for as long as it takes: a step that is not written down is not taken.
    async fn record(&self, record: Record) -> Recorded {
        loop {
            match self.journal.record(record.clone()).await {
                Ok(recorded) => return recorded,
                Err(error) => {
                    warn!(error = error.line(), "an episode waits for the journal");
                    sleep(RETRY_PERIOD).await;
                }
            }
        }
    }
}

/// Without the images: a caret that blinks is no other answer of the world.
fn told_alone(next_state: Option<NextState>) -> Option<NextState> {
    next_state.map(|next_state| NextState { screen: None, ..next_state })
}
