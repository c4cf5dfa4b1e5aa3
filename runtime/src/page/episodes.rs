//! Episodes of agents as the page shows them: the list, and one of them step by step.

use openclaw_journal::{Episode, EpisodeRow, EpisodeState, EpisodeStep, Story};
use openclaw_model::Tokenizer;
use serde::Serialize;

use super::{
    Page, Text,
    story::{Message, Shown, TurnView, asked, unix_ms},
};
use crate::refusal::Refusal;

/// Characters of why an episode was abandoned.
const REASON_CHARS: usize = 200;
/// Characters of a name that agents outside chose.
const NAME_CHARS: usize = 200;

/// An episode in the list.
#[derive(Debug, Serialize)]
pub(super) struct EpisodeView {
    /// Its name.
    episode: String,
    /// Its conversation.
    session: String,
    /// What a further page starts before.
    place: u64,
    environment: Text,
    task: Text,
    /// Those that it is compared with: `{name, of}`; null for one by itself, and for held-out tasks.
    group: Option<GroupView>,
    /// `open`, `ended` or `abandoned`.
    state: &'static str,
    /// Why it was abandoned.
    reason: Option<Text>,
    /// How it came out.
    reward: Option<f32>,
    /// Whether the task was done.
    success: Option<bool>,
    /// What else was measured, by name.
    numbers: Vec<(String, Option<f64>)>,
    steps: u32,
    /// The version that took its first step that is kept.
    version: Option<u64>,
    began_unix_ms: u64,
    ended_unix_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct GroupView {
    name: Text,
    of: u32,
}

/// The episode that a conversation is of.
#[derive(Debug, Serialize)]
pub(super) struct EpisodeName {
    episode: String,
    environment: Text,
    task: Text,
}

/// A step of an episode.
#[derive(Debug, Serialize)]
pub(super) struct StepView {
    /// Its number, from 1.
    number: u32,
    /// What a judge, a rule or a person made of it, from -1 to 1.
    score: Option<f32>,
    turn: String,
    /// The turn; null where it has left the journal.
    shown: Option<Shown>,
    /// What the next step was told, where nothing is recorded of what followed this one.
    told: Vec<Message>,
}

/// An episode and some of its steps.
#[derive(Debug, Serialize)]
pub(super) struct EpisodeSteps {
    episode: EpisodeView,
    steps: Vec<StepView>,
    /// The number of the last step of this page, where there are further ones.
    next: Option<u32>,
}

impl EpisodeView {
    fn new(row: EpisodeRow, version: Option<u64>) -> Self {
        let EpisodeRow { no, episode, state, steps, began, ended } = row;
        let (word, reason, outcome) = match state {
            EpisodeState::Open => ("open", None, None),
            EpisodeState::Abandoned(reason) => ("abandoned", Some(Text::cut(&reason, REASON_CHARS)), None),
            EpisodeState::Ended(outcome) => ("ended", None, Some(outcome)),
        };
        let name = |name: &str| Text::cut(name, NAME_CHARS);
        Self {
            episode: episode.id.to_string(),
            session: episode.session.to_string(),
            place: no,
            environment: name(&episode.environment),
            task: name(&episode.task),
            group: episode.group.map(|group| GroupView { name: name(&group.name), of: group.of }),
            state: word,
            reason,
            reward: outcome.as_ref().map(|outcome| outcome.reward),
            success: outcome.as_ref().and_then(|outcome| outcome.success),
            numbers: outcome.into_iter().flat_map(|outcome| outcome.numbers).map(finite).collect(),
            steps,
            version,
            began_unix_ms: unix_ms(began),
            ended_unix_ms: ended.map(unix_ms),
        }
    }
}

fn finite((name, value): (String, f64)) -> (String, Option<f64>) {
    (name, Some(value).filter(|value| value.is_finite()))
}

impl EpisodeName {
    /// Of this episode.
    pub fn new(episode: &Episode) -> Self {
        let name = |name: &str| Text::cut(name, NAME_CHARS);
        Self {
            episode: episode.id.to_string(),
            environment: name(&episode.environment),
            task: name(&episode.task),
        }
    }
}

impl StepView {
    /// `next` is the step behind it, for what that was told.
    fn new(
        (place, step): &(u32, EpisodeStep),
        story: Option<&Story>,
        next: Option<&Story>,
        tokenizer: &Tokenizer,
    ) -> Self {
        let unseen = story.is_some_and(|story| story.row.next_state.is_none());
        let told = next.filter(|_| unseen).map(|next| asked(&next.row.turn.messages));
        Self {
            number: place + 1,
            score: step.score,
            turn: step.turn.to_string(),
            shown: story.map(|story| Shown::Turn(Box::new(TurnView::new(story, tokenizer, 0)))),
            told: told.unwrap_or_default(),
        }
    }
}

impl Page {
    /// Episodes before a place, the newest first, and what a further page starts before.
    pub(super) async fn episodes(
        &self,
        before: u64,
        limit: usize,
    ) -> Result<(Vec<EpisodeView>, Option<u64>), Refusal> {
        let mut rows = self.journal.episodes(before, limit + 1).await?;
        let is_more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| is_more).map(|row| row.no);
        let versions = self.journal.first_versions(rows.iter().map(|row| row.no).collect()).await?;
        let shown = rows.into_iter().zip(versions).map(|(row, version)| EpisodeView::new(row, version));
        Ok((shown.collect(), next))
    }

    /// An episode, and `limit` of its steps from the one of this number on; none where there is no such episode.
    pub(super) async fn episode_steps(
        &self,
        id: &str,
        from: u32,
        limit: usize,
    ) -> Result<Option<EpisodeSteps>, Refusal> {
        let Some((row, steps)) = self.journal.episode(&openclaw_journal::EpisodeId(id.into())).await? else {
            return Ok(None);
        };
        let version = self.journal.first_versions(vec![row.no]).await?.into_iter().next().flatten();
        let meant: Vec<_> =
            steps.into_iter().filter(|(place, _)| place + 1 >= from).take(limit + 1).collect();
        let mut stories = Vec::with_capacity(meant.len());
        for (_, step) in &meant {
            stories.push(match self.journal.story(&step.turn).await {
                Ok(story) => Ok(story),
                Err(error) if error.is_of_one_turn() => Err(error.line()),
                Err(error) => return Err(error.into()),
            });
        }
        let found = |at: usize| stories.get(at).and_then(|story| story.as_ref().ok()?.as_ref());
        let shown = meant.iter().take(limit).enumerate().map(|(at, step)| {
            let mut view = StepView::new(step, found(at), found(at + 1), &self.text.tokenizer);
            if let Err(why) = &stories[at] {
                let turn = view.turn.clone();
                view.shown = Some(Shown::Unreadable { turn, place: 0, unreadable: why.clone() });
            }
            view
        });
        Ok(Some(EpisodeSteps {
            steps: shown.collect(),
            next: meant.get(limit).and(meant.get(limit - 1)).map(|(place, _)| place + 1),
            episode: EpisodeView::new(row, version),
        }))
    }
}
