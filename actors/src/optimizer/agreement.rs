//! Whether what is said of steps agrees with how their episodes come out: a judge that praises what fails teaches the wrong
//! thing.

use openclaw_journal::{Sample, Standing};

/// Counts the steps of episodes among samples that a step has settled.
pub(super) fn count<'a>(samples: impl Iterator<Item = &'a Sample>) {
    for (verdict, outcome) in samples.filter_map(|sample| agreement(sample.standing.as_ref()?)) {
        metrics::counter!("openclaw_agent_step_verdicts_total", "verdict" => verdict, "outcome" => outcome)
            .increment(1);
    }
}

/// What was said of the step, and how its episode came out; none where that is not known.
fn agreement(standing: &Standing) -> Option<(&'static str, &'static str)> {
    let own = standing.own()?;
    let score = own.steps.get(&standing.step).and_then(|step| step.score);
    let verdict = match score {
        Some(score) if score > 0.0 => "good",
        Some(score) if score < 0.0 => "bad",
        _ => "none",
    };
    // An agent outside may give a reward alone.
    let success = own.outcome.success.unwrap_or(own.outcome.reward > 0.0);
    Some((verdict, if success { "success" } else { "failure" }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use openclaw_journal::{Episode, EpisodeId, EpisodeStep, GroupEpisode, Outcome, SessionId, TurnId};

    use super::*;

    fn standing(score: Option<f32>, reward: f32, success: Option<bool>) -> Standing {
        let id = EpisodeId("e".into());
        let episode = Episode {
            id: id.clone(),
            session: SessionId("s".into()),
            environment: "calculator".into(),
            task: "t".into(),
            seed: None,
            group: None,
            judged: true,
        };
        let step = EpisodeStep { turn: TurnId("e-s1".into()), score, state: 0 };
        let outcome = Outcome { reward, success, numbers: Default::default() };
        let own = GroupEpisode { id, outcome, steps: [(0, step)].into() };
        Standing { episode: Arc::new(episode), step: 0, group: Arc::new(vec![own]) }
    }

    #[test]
    fn a_step_is_counted_by_its_sign_and_its_episodes_outcome() {
        let of = |score, reward, success| agreement(&standing(score, reward, success));
        assert_eq!(of(Some(1.0), 0.0, Some(false)), Some(("good", "failure")));
        assert_eq!(of(Some(-0.5), 1.0, None), Some(("bad", "success")));
        assert_eq!(of(Some(0.0), 0.0, None), Some(("none", "failure")));
        assert_eq!(of(None, 1.0, Some(true)), Some(("none", "success")));
        let mut away = standing(None, 1.0, None);
        away.group = Arc::default();
        assert_eq!(agreement(&away), None);
    }
}
