use std::{collections::BTreeMap, sync::Arc};

use openclaw_journal::{Episode, EpisodeId, EpisodeStep, Group, Outcome, SessionId, Standing, TurnId};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{
    super::{MethodConfig, tests::sample as plain},
    *,
};

/// The score and state of a step.
type Step = (Option<f32>, u64);
/// Episodes by their outcome, and their steps.
type Told<'a> = &'a [(f32, &'a [Step])];

fn group_of(told: Told<'_>) -> Arc<Vec<GroupEpisode>> {
    let episode = |(no, (reward, steps)): (usize, &(f32, &[Step]))| GroupEpisode {
        id: EpisodeId(format!("e{no}").into()),
        outcome: Outcome { reward: *reward, success: None, numbers: BTreeMap::new() },
        steps: (0..)
            .zip(*steps)
            .map(|(place, (score, state))| {
                let turn = TurnId(format!("{no}-{place}").into());
                (place, EpisodeStep { turn, score: *score, state: *state })
            })
            .collect(),
    };
    Arc::new(told.iter().enumerate().map(episode).collect())
}

fn sample(group: &Arc<Vec<GroupEpisode>>, episode: usize, step: u32) -> Sample {
    let of = group.len() as u32;
    let standing = Standing {
        episode: Arc::new(Episode {
            id: group[episode].id.clone(),
            session: SessionId("s".into()),
            environment: "toy".into(),
            task: "t".into(),
            seed: None,
            group: Some(Group { name: "g".into(), of }),
            judged: true,
        }),
        step,
        group: group.clone(),
    };
    Sample { standing: Some(standing), ..plain(&[-0.5, -1.5], None, None) }
}

fn config(kind: MethodKind, group: GroupConfig) -> MethodConfig {
    MethodConfig { group, ..MethodConfig::new(kind) }
}

/// Of each step of each episode; none where it is not trained on.
fn advantages(config: &MethodConfig, told: Told<'_>) -> Vec<Vec<Option<f32>>> {
    let group = group_of(told);
    let of = |episode: usize, step: u32| {
        let sample = sample(&group, episode, step);
        let targets = config.targets(&sample).expect("aligned");
        let all: Vec<f32> = targets.iter().map(|one| one.taken.expect("a taken term").advantage).collect();
        assert!(all.iter().all(|one| *one == all[0]), "every token of a step has the same");
        config.is_effective(&sample).then_some(all[0])
    };
    (0..told.len())
        .map(|episode| (0..told[episode].1.len() as u32).map(|step| of(episode, step)).collect())
        .collect()
}

fn assert_close(found: &[Vec<Option<f32>>], expected: &[&[Option<f64>]]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(*expected) {
            match (found, expected) {
                (Some(found), Some(expected)) => {
                    assert!((f64::from(*found) - expected).abs() < 5e-6, "{found} for {expected}");
                }
                _ => assert_eq!(found.is_none(), expected.is_none(), "{found:?} for {expected:?}"),
            }
        }
    }
}

const NONE: &[Step] = &[(None, 0)];

#[test]
fn grpo_compares_outcomes_as_published() {
    let told: Told<'_> = &[(1.0, NONE), (-1.0, NONE), (1.0, NONE), (1.0, NONE)];
    // The published golden values: the deviation of these is 1.
    let published: [&[Option<f64>]; 4] = [&[Some(0.5)], &[Some(-1.5)], &[Some(0.5)], &[Some(0.5)]];
    assert_close(&advantages(&config(MethodKind::Grpo, GroupConfig::default()), told), &published);
    let half: Told<'_> = &[(0.5, NONE), (-0.5, NONE), (0.5, NONE), (0.5, NONE)];
    assert_close(&advantages(&config(MethodKind::Grpo, GroupConfig::default()), half), &published);
    let plain = GroupConfig { normalize: false, ..GroupConfig::default() };
    let halves: [&[Option<f64>]; 4] = [&[Some(0.25)], &[Some(-0.75)], &[Some(0.25)], &[Some(0.25)]];
    assert_close(&advantages(&config(MethodKind::Grpo, plain), half), &halves);
}

#[test]
fn an_episode_counts_once_however_many_steps_it_has_unless_steps_are_counted() {
    let three: &[Step] = &[(Some(1.0), 0), (Some(-1.0), 0), (None, 0)];
    let told: Told<'_> = &[(1.0, three), (-1.0, NONE)];
    let half = 2f64.sqrt().recip();
    let once: [&[Option<f64>]; 2] = [&[Some(half); 3], &[Some(-half)]];
    assert_close(&advantages(&config(MethodKind::Grpo, GroupConfig::default()), told), &once);
    // 1, 1, 1, -1
    let steps = GroupConfig { count: Count::Step, ..GroupConfig::default() };
    let each: [&[Option<f64>]; 2] = [&[Some(0.5); 3], &[Some(-1.5)]];
    assert_close(&advantages(&config(MethodKind::Grpo, steps), told), &each);
    // The mean of the verdicts counts where it has a weight: 1 + .3 and -1 + 0 beside 1 - .3.
    let all: &[Step] = &[(Some(1.0), 0)];
    let worse: &[Step] = &[(Some(-1.0), 0)];
    let told: Told<'_> = &[(1.0, all), (-1.0, NONE), (1.0, worse)];
    let weighted = GroupConfig { step_weight: Some(0.3), normalize: false, ..GroupConfig::default() };
    let mean = 1.0 / 3.0;
    let expected: [&[Option<f64>]; 3] = [&[Some(1.3 - mean)], &[Some(-1.0 - mean)], &[Some(0.7 - mean)]];
    assert_close(&advantages(&config(MethodKind::Grpo, weighted), told), &expected);
}

#[test]
fn step_wise_standardises_outcome_and_verdict_by_place_as_published() {
    // Outcome and verdict add up to 2, 0, 0 and 2 at the first place: the published golden values.
    let [good, bad]: [&[Step]; 2] = [&[(Some(1.0), 0)], &[(Some(-1.0), 0)]];
    let told: Told<'_> = &[(1.0, good), (1.0, bad), (-1.0, good), (1.0, good)];
    let one = 1.0 - 1e-6;
    let expected: [&[Option<f64>]; 4] = [&[Some(one)], &[Some(-one)], &[Some(-one)], &[Some(one)]];
    assert_close(&advantages(&config(MethodKind::StepWise, GroupConfig::default()), told), &expected);
}

#[test]
fn what_is_constant_or_alone_is_told_what_becomes_of_it() {
    let long: &[Step] = &[(Some(1.0), 4), (Some(1.0), 5), (Some(1.0), 6)];
    let short: &[Step] = &[(Some(1.0), 4), (Some(-1.0), 6)];
    let told: Told<'_> = &[(1.0, long), (1.0, short)];
    let one = 1.0 - 1e-6;
    let step_wise = |group| advantages(&config(MethodKind::StepWise, group), told);
    // The first place is constant, the third has one step.
    assert_close(&step_wise(GroupConfig::default()), &[&[None, Some(one), None], &[None, Some(-one)]]);
    let keep = GroupConfig { constant: Constant::Keep, ..GroupConfig::default() };
    let zero = Some(0.0);
    assert_close(&step_wise(keep.clone()), &[&[zero, Some(one), zero], &[zero, Some(-one)]]);
    let raw = GroupConfig { single: Single::Raw, ..keep };
    assert_close(&step_wise(raw), &[&[zero, Some(one), Some(2.0)], &[zero, Some(-one)]]);
    // By state the third step of one is the second of the other.
    let state = GroupConfig { bucket: Bucket::State, ..GroupConfig::default() };
    assert_close(&step_wise(state), &[&[None, None, Some(one)], &[None, Some(-one)]]);

    let grpo = |group| advantages(&config(MethodKind::Grpo, group), &told[..1]);
    assert_close(&grpo(GroupConfig::default()), &[&[None; 3]]);
    let raw = GroupConfig { single: Single::Raw, ..GroupConfig::default() };
    assert_close(&grpo(raw), &[&[Some(1.0); 3]]);
    // What is no step of an episode is nothing to them.
    for kind in [MethodKind::Grpo, MethodKind::StepWise] {
        assert!(!MethodConfig::new(kind).is_effective(&plain(&[-0.5], Some(1), None)));
    }
}

/// The formulas, read once more: sums of squares instead of differences, and buckets that are filled first.
#[test]
fn two_hundred_random_episodes_have_the_advantages_of_an_independent_computation() {
    let mut rng = SmallRng::seed_from_u64(7);
    for round in 0..25 {
        let mut steps: Vec<(f32, Vec<Step>)> = Vec::new();
        for _ in 0..8 {
            let reward = *[-1.0, 1.0, -0.6, 0.25].get(rng.random_range(0..4)).expect("in range");
            let step = |rng: &mut SmallRng| {
                let score = [None, Some(-1.0), Some(1.0), Some(1.0 / 3.0)][rng.random_range(0..4)];
                (score, rng.random_range(0..3))
            };
            steps.push((reward, (0..rng.random_range(1..6)).map(|_| step(&mut rng)).collect()));
        }
        let told: Vec<(f32, &[Step])> =
            steps.iter().map(|(reward, steps)| (*reward, steps.as_slice())).collect();
        for bucket in [Bucket::Step, Bucket::State] {
            let raw = GroupConfig { single: Single::Raw, bucket, ..GroupConfig::default() };
            let found = advantages(&config(MethodKind::StepWise, raw), &told);
            let mut buckets: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
            let key = |place: usize, state: u64| if bucket == Bucket::Step { place as u64 } else { state };
            for (reward, steps) in &steps {
                for (place, (score, state)) in steps.iter().enumerate() {
                    let value = f64::from(*reward) + f64::from(score.unwrap_or(0.0));
                    buckets.entry(key(place, *state)).or_default().push(value);
                }
            }
            for (found, (reward, steps)) in found.iter().zip(&steps) {
                for (place, (found, (score, state))) in found.iter().zip(steps).enumerate() {
                    let values = &buckets[&key(place, *state)];
                    let value = f64::from(*reward) + f64::from(score.unwrap_or(0.0));
                    let count = values.len() as f64;
                    let mean = values.iter().sum::<f64>() / count;
                    let variance = (values.iter().map(|v| v * v).sum::<f64>() / count - mean * mean).max(0.0);
                    let expected = match values.len() {
                        1 => Some(value),
                        _ if variance <= 1e-12 => None,
                        _ => Some((value - mean) / (variance.sqrt() + 1e-6)),
                    };
                    assert_eq!(found.is_some(), expected.is_some(), "round {round}");
                    let apart = found.map_or(0.0, f64::from) - expected.unwrap_or(0.0);
                    assert!(apart.abs() < 1e-5, "round {round}: {found:?} for {expected:?}");
                }
            }
        }
        let found = advantages(&config(MethodKind::Grpo, GroupConfig::default()), &told);
        let sum: f64 = steps.iter().map(|one| f64::from(one.0)).sum();
        let squares: f64 = steps.iter().map(|one| f64::from(one.0).powi(2)).sum();
        let variance = (squares - sum * sum / 8.0) / 7.0;
        for (found, (reward, _)) in found.iter().zip(&steps) {
            for found in found {
                let expected = (f64::from(*reward) - sum / 8.0) / (variance.sqrt() + 1e-6);
                assert_eq!(found.is_some(), variance > 1e-12);
                assert!((found.map_or(0.0, f64::from) - expected).abs() < 1e-5, "{found:?} for {expected}");
            }
        }
    }
}
