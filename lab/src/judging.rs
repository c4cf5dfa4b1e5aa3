//! What `evaluate` found of a model as a judge, kept beside it: whoever checks a topology is told of a judge that nobody has
//! measured, or that misreads people.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::evaluate::Score;

pub use openclaw_model::checkpoint::MEASURED as FILE;
/// The group of cases it is about.
const GROUP: &str = "reaction";
/// A judge that reads fewer of a kind of reaction misleads.
const LEAST_GOOD: f64 = 0.7;
/// One that turns more of them round pushes the wrong way.
const MOST_FLIPPED: f64 = 0.05;

/// How people's reactions, which no model of ours read before, were judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judging {
    /// Reactions.
    pub cases: usize,
    /// Of those to -1, to 0 and to +1: the share that was read so.
    pub good: [f64; 3],
    /// Share of all that was read the wrong way round.
    pub flipped: f64,
    /// Margin of verdicts by their probabilities, in nats; none where one was sampled.
    pub score_margin: Option<f32>,
}

impl Judging {
    /// Of an evaluation, if it asked about reactions to all three.
    pub fn of(scores: &[Score], score_margin: Option<f32>) -> Option<Self> {
        let of = |class: &str| {
            let of = scores.iter().filter(|score| score.group == GROUP && score.class.starts_with(class));
            of.fold((0, 0, 0), |(good, flipped, count), score| {
                (good + score.good, flipped + score.flipped, count + score.count)
            })
        };
        let classes = ["-1", "0", "+1"].map(of);
        let cases: usize = classes.iter().map(|(.., count)| count).sum();
        let flipped: usize = classes.iter().map(|(_, flipped, _)| flipped).sum();
        classes.iter().all(|(.., count)| *count > 0).then(|| Self {
            cases,
            good: classes.map(|(good, _, count)| good as f64 / count as f64),
            flipped: flipped as f64 / cases as f64,
            score_margin,
        })
    }

    /// Puts it into a folder.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::write(folder.join(FILE), format!("{:#}\n", serde_json::to_value(self)?))
    }

    /// What a folder says of itself; none where nobody has measured it, or the file is something else.
    pub fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()
    }

    /// Why such a judge is not to be trusted.
    pub fn fault(&self) -> Option<String> {
        let [worst_class, worst] = ["-1", "0", "+1"]
            .into_iter()
            .zip(self.good)
            .min_by(|(_, a), (_, b)| a.total_cmp(b))
            .map(|(class, good)| [class.to_owned(), format!("{good:.2}")])?;
        let least = self.good.into_iter().fold(1.0, f64::min);
        (least < LEAST_GOOD || self.flipped > MOST_FLIPPED).then(|| {
            format!(
                "of {} reactions of people it reads {worst} of those to {worst_class}, and turns {:.2} of all round: a judge \
                 should read {LEAST_GOOD} of each kind and turn {MOST_FLIPPED} at most",
                self.cases, self.flipped
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(class: &str, good: usize, flipped: usize) -> Score {
        let class = class.to_owned();
        Score { group: GROUP, class, held_out: true, with_system: false, good, flipped, count: 10 }
    }

    #[test]
    fn what_was_found_is_read_back_and_judged() {
        let scores =
            [score("-1, sums", 9, 1), score("-1, facts", 9, 0), score("0", 10, 0), score("+1", 6, 0)];
        let found = Judging::of(&scores, Some(1.0)).expect("all three");
        assert_eq!((found.cases, found.good, found.flipped), (40, [0.9, 1.0, 0.6], 0.025));
        assert!(Judging::of(&scores[..3], None).is_none());
        let folder = tempfile::tempdir().expect("a folder can be made");
        assert_eq!(Judging::read(folder.path()), None);
        found.write(folder.path()).expect("it can be written");
        assert_eq!(Judging::read(folder.path()).as_ref(), Some(&found));
        let fault = found.fault().expect("it misreads praise");
        assert!(fault.contains("0.60 of those to +1"), "{fault}");
        assert_eq!(Judging { good: [0.9; 3], ..found.clone() }.fault(), None);
        assert!(Judging { good: [0.9; 3], flipped: 0.06, ..found }.fault().is_some());
    }
}
