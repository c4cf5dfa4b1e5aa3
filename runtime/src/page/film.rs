//! What a screen has shown in an episode, image by image: the film of an agent that acts on one.

use std::{fs, io, path::PathBuf};

use openclaw_actors::{agents, pictures::Pictures};
use openclaw_journal::{EpisodeId, OWN_SESSIONS};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{Page, Text};
use crate::refusal::{Refusal, RefusalKind};

/// Frames that are told; an episode has as many steps at most.
const MOST_FRAMES: usize = 1000;
/// Characters of a rule's reason.
const REASON_CHARS: usize = 200;

/// Where films and their images lie in the run's folder.
#[derive(Clone, Debug)]
pub struct Films {
    /// A folder for each of the latest episodes.
    pub episodes: PathBuf,
    /// The images.
    pub pictures: Pictures,
}

/// A line of a film.
#[derive(Debug, Deserialize)]
struct Line {
    step: u32,
    image: String,
    width: u32,
    height: u32,
    point: Option<(f32, f32)>,
    rule: Option<Rule>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    score: i8,
    reason: String,
}

/// The screen behind a step; step 0 is the screen at the beginning.
#[derive(Debug, Serialize)]
pub(super) struct Frame {
    step: u32,
    /// Names the image.
    image: String,
    width: u32,
    height: u32,
    /// Where the step has pointed last, from 0 at the left and at the top to 1.
    point: Option<(f32, f32)>,
    /// What the environment's rule said of the step.
    score: Option<i8>,
    reason: Option<Text>,
}

impl Films {
    /// The frames of an episode whose folder is kept, by their steps.
    fn frames(&self, episode: &EpisodeId) -> io::Result<Vec<Frame>> {
        let text = match fs::read_to_string(self.episodes.join(&*episode.0).join(agents::FILM)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text?,
        };
        // The last line may be half written.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        Ok(lines.take(MOST_FRAMES).map(Frame::from).collect())
    }
}

impl From<Line> for Frame {
    fn from(Line { step, image, width, height, point, rule }: Line) -> Self {
        let (score, reason) = rule.map(|rule| (rule.score, Text::cut(&rule.reason, REASON_CHARS))).unzip();
        Self { step, image, width, height, point, score, reason }
    }
}

impl Page {
    /// The film of an episode; no frames where there was no screen, or its folder has made room for others.
    pub(super) async fn film(&self, id: &str) -> Result<Vec<Frame>, Refusal> {
        let id = EpisodeId(id.into());
        let Some((row, _)) = self.journal.episode(&id).await? else {
            return Err(Refusal::new(RefusalKind::Unknown, format!("no episode `{id}`")));
        };
        // The node names its own; others may be called anything, a path too.
        if !row.episode.session.0.starts_with(OWN_SESSIONS) || id.0.contains('/') {
            return Ok(Vec::new());
        }
        let films = self.films.clone();
        let read = tokio::task::spawn_blocking(move || films.frames(&id)).await.map_err(io::Error::other);
        read.and_then(|frames| frames).map_err(|error| {
            warn!(%error, "a film cannot be read");
            Refusal::new(RefusalKind::Failed, format!("the film cannot be read: {error}"))
        })
    }

    /// The bytes of an image.
    pub(super) async fn image(&self, sha256: String) -> Result<Vec<u8>, Refusal> {
        let pictures = self.films.pictures.clone();
        let read = tokio::task::spawn_blocking(move || pictures.read(&sha256)).await.ok().flatten();
        read.ok_or_else(|| {
            Refusal::new(RefusalKind::Unknown, "no such image, or it has made room for others")
        })
    }
}
