//! Worlds with a screen: what it shows is kept beside the journal, and told of in it.

use std::sync::Arc;

use openclaw_environments::world::{
    Action, Environment, ImageRef, Interrupt, Observation, Outcome, Shot, Spec, Task, Verdict, World,
    WorldError,
};
use sha2::{Digest, Sha256};

use super::*;

/// Another environment, seen on a screen that shows how many steps were taken.
struct Shown(Arc<dyn Environment>);

struct ShownWorld {
    world: Box<dyn World>,
    steps: u32,
    images: Vec<(ImageRef, Vec<u8>)>,
}

impl Environment for Shown {
    fn spec(&self) -> &Spec {
        self.0.spec()
    }

    fn tasks(&self, split: Split) -> Option<u64> {
        self.0.tasks(split)
    }

    fn task(&self, split: Split, number: u64) -> Result<Task, WorldError> {
        self.0.task(split, number)
    }

    fn open(&self) -> Result<Box<dyn World>, WorldError> {
        Ok(Box::new(ShownWorld { world: self.0.open()?, steps: 0, images: Vec::new() }))
    }
}

impl ShownWorld {
    fn shot(&mut self) -> Option<Shot> {
        let png = [b"\x89PNG\r\n\x1a\n".as_slice(), &self.steps.to_le_bytes()].concat();
        let sha256 = Sha256::digest(&png).iter().map(|byte| format!("{byte:02x}")).collect();
        let image = ImageRef { sha256, width: 4, height: 3, media_type: "image/png".to_owned() };
        self.images.push((image.clone(), png));
        Some(Shot { image, point: (self.steps > 0).then_some((0.5, 0.25)) })
    }
}

impl World for ShownWorld {
    fn reset(&mut self, task: &Task) -> Result<Observation, WorldError> {
        let seen = self.world.reset(task)?;
        self.steps = 0;
        Ok(Observation { shot: self.shot(), ..seen })
    }

    fn step(&mut self, action: &Action) -> Result<Outcome, WorldError> {
        let mut outcome = self.world.step(action)?;
        self.steps += 1;
        outcome.observation.shot = self.shot();
        Ok(outcome)
    }

    fn images(&mut self) -> Vec<(ImageRef, Vec<u8>)> {
        std::mem::take(&mut self.images)
    }

    fn evaluate(&mut self) -> Result<Verdict, WorldError> {
        self.world.evaluate()
    }

    fn close(&mut self) {
        self.world.close();
    }

    fn interrupt(&self) -> Interrupt {
        self.world.interrupt()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_screen_shows_is_a_film_with_a_frame_for_each_step() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut bench = Bench::new(plays, 3, 2).await;
    let pictures = Pictures::new(dir.path().join("images"), 1 << 20);
    {
        let player = Arc::get_mut(&mut bench.player).expect("nobody else has it");
        player.environment = Arc::new(Shown(player.environment.clone()));
        player.pictures = pictures.clone();
        player.artefacts = Some(Artefacts::new(dir.path().join("episodes"), 100).0);
    }
    let (worker, task) = bench.worker().await;
    // Whoever takes an episode up begins its film anew.
    let mut backlog = bench.journal.backlog();
    backlog.wait_for(|now| now.last_seq > 10).await.expect("it is up");
    worker.kill();
    task.await.expect("it ends");
    bench.worker().await.1.await.expect("it stops by itself");

    let mut frames_with_points = 0;
    for ((row, _), turns) in bench.stories().await {
        let film = dir.path().join("episodes").join(&*row.episode.id.0).join(FILM);
        let film = std::fs::read_to_string(film).expect("each has one");
        let frames: Vec<serde_json::Value> =
            film.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let steps: Vec<u64> = frames.iter().filter_map(|frame| frame["step"].as_u64()).collect();
        assert_eq!(steps, (0..=turns.len() as u64).collect::<Vec<_>>(), "{}", row.episode.id);
        for frame in &frames {
            assert!(pictures.read(frame["image"].as_str().expect("a name")).is_some());
            frames_with_points += usize::from(frame["point"] == serde_json::json!([0.5, 0.25]));
        }
        for (turn, pair) in turns.iter().zip(frames.windows(2)) {
            let Some(next_state) = &turn.row.next_state else { continue };
            let screen = next_state.screen.as_ref().expect("there was one");
            assert_eq!(screen.before.as_deref(), pair[0]["image"].as_str());
            assert_eq!(Some(screen.after.as_str()), pair[1]["image"].as_str());
            assert_eq!(screen.point, Some((0.5, 0.25)));
        }
    }
    assert!(frames_with_points > 10, "{frames_with_points}");
}
