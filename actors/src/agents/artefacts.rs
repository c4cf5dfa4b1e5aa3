//! What is left of an episode for people to look at: a folder with the files that its world held, what a screen has shown, and how
//! it came out. The latest are kept.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use openclaw_environments::world::{Shot, StepVerdict, Verdict};
use openclaw_journal::{Episode, EpisodeId, SessionId};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::warn;

use super::slot::Slot;

/// Says how the episode came out; a folder without it is of an episode that goes on, or of a killed worker.
const OUTCOME: &str = "outcome.json";
/// What the world's screen has shown, a line for each step. Step 0 is what it showed first.
pub const FILM: &str = "film.jsonl";
/// What the world held.
const FILES: &str = "files";
/// Folders that wait for their trajectory. Then they go without.
const MOST_WAITING: usize = 64;

/// Keeps what is left of episodes.
#[derive(Clone, Debug)]
pub struct Artefacts {
    dir: PathBuf,
    keep: usize,
    left: mpsc::Sender<Left>,
}

/// A folder that was written, but for the episode's trajectory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The episode.
    pub episode: EpisodeId,
    /// Its session.
    pub session: SessionId,
    /// The folder.
    pub folder: PathBuf,
}

impl Artefacts {
    /// Keeps those of the latest `keep` episodes in `dir`, each in a folder by its name. Whoever has the other end may
    /// add to them.
    pub fn new(dir: PathBuf, keep: usize) -> (Self, mpsc::Receiver<Left>) {
        let (left, written) = mpsc::channel(MOST_WAITING);
        (Self { dir, keep, left }, written)
    }

    fn folder(&self, episode: &EpisodeId) -> PathBuf {
        self.dir.join(&*episode.0)
    }

    /// An episode begins, or begins again: what a worker that was killed has left goes.
    pub(super) async fn begin(&self, episode: &EpisodeId) {
        let folder = self.folder(episode);
        let made = {
            let folder = folder.clone();
            blocking(move || match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => fs::create_dir_all(&folder),
            })
        };
        if let Err(error) = made.await {
            warn!(%error, folder = %folder.display(), "no artefacts can be kept");
        }
    }

    /// What a screen shows behind a step, and what the world's rule said of the step.
    pub(super) async fn frame(&self, episode: &EpisodeId, step: u32, shot: &Shot, rule: Option<StepVerdict>) {
        let path = self.folder(episode).join(FILM);
        let Shot { image, point } = shot;
        let told = json!({
            "step": step, "image": image.sha256, "width": image.width, "height": image.height, "point": point,
            "rule": rule.map(|rule| json!({"score": rule.score, "reason": rule.reason})),
        });
        let wrote = blocking(move || {
            let mut film = fs::OpenOptions::new().create(true).append(true).open(path)?;
            film.write_all(format!("{told}\n").as_bytes())
        });
        if let Err(error) = wrote.await {
            warn!(%episode, step, %error, "what a screen showed is not kept");
        }
    }

    /// The files of a world that is about to be evaluated.
    pub(super) async fn files(&self, episode: &EpisodeId, slot: &Slot) {
        let folder = self.folder(episode);
        if let Err(error) = slot.keep(folder.join(FILES)).await {
            warn!(%episode, %error, "the files of an episode are not kept");
        }
    }

    /// How an episode came out; an error is why it was abandoned.
    pub(super) async fn outcome(&self, episode: &Episode, came_out: Result<&Verdict, String>) {
        let folder = self.folder(&episode.id);
        let outcome = match came_out {
            Ok(Verdict { reward, success, numbers }) => {
                json!({"reward": reward, "success": success, "numbers": numbers})
            }
            Err(why) => json!({"abandoned": why}),
        };
        let told = json!({
            "episode": *episode.id.0, "environment": *episode.environment, "task": *episode.task,
            "outcome": outcome,
        });
        let (dir, keep, written) = (self.dir.clone(), self.keep, folder.clone());
        let wrote = blocking(move || {
            write(&written, &told)?;
            prune(&dir, keep)
        });
        if let Err(error) = wrote.await {
            return warn!(%error, folder = %folder.display(), "the outcome of an episode is not kept as a file");
        }
        let left = Left { episode: episode.id.clone(), session: episode.session.clone(), folder };
        // Where nobody adds to it, or too many wait, it is as it is.
        let _ = self.left.try_send(left);
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn write(folder: &Path, outcome: &Value) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(OUTCOME), format!("{outcome:#}\n"))
}

/// Removes the oldest beyond `keep`.
fn prune(dir: &Path, keep: usize) -> io::Result<()> {
    let mut ended = Vec::new();
    for entry in fs::read_dir(dir)? {
        let folder = entry?.path();
        if let Ok(outcome) = fs::metadata(folder.join(OUTCOME)) {
            ended.push((outcome.modified()?, folder));
        }
    }
    ended.sort();
    let too_many = ended.len().saturating_sub(keep);
    for (_, folder) in ended.into_iter().take(too_many) {
        match fs::remove_dir_all(&folder) {
            // Another worker was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_latest_are_kept_and_those_that_go_on() {
        let dir = tempfile::tempdir().expect("a folder");
        let (artefacts, mut written) = Artefacts::new(dir.path().join("episodes"), 2);
        let episode = |name: &str| Episode {
            id: EpisodeId(name.into()),
            session: SessionId(format!("own:{name}").into()),
            environment: "sums".into(),
            task: "t/1".into(),
            seed: None,
            group: None,
            judged: false,
        };
        fs::create_dir_all(artefacts.dir.join("goes-on/files")).expect("a folder");
        let verdict = Verdict { reward: 1.0, success: true, ..Verdict::default() };
        for name in ["a", "b", "c"] {
            let came_out = if name == "b" { Err("invalid".to_owned()) } else { Ok(&verdict) };
            artefacts.outcome(&episode(name), came_out).await;
            assert_eq!(written.recv().await.expect("told").episode.0.as_ref(), name);
        }
        let mut names: Vec<String> = fs::read_dir(&artefacts.dir)
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        names.sort();
        assert_eq!(names, ["b", "c", "goes-on"]);
        let told = |name: &str| -> Value {
            let text = fs::read(artefacts.dir.join(name).join(OUTCOME)).expect("a file");
            serde_json::from_slice(&text).expect("JSON")
        };
        assert_eq!(told("b")["outcome"]["abandoned"], "invalid");
        assert_eq!(told("c")["outcome"]["reward"], 1.0);
    }
}
