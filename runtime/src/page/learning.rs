//! The learning curve and what each version was taught.

use openclaw_journal::{JournalError, ReplyRow, StepRow};
use serde::Serialize;

use super::{
    Page,
    received::{MOST_REPLIES, by_version},
};
use crate::versions::{Reception, VersionStatus, version_statuses};

/// Steps in the curve, the latest.
const MOST_STEPS: usize = 1000;
/// Turns that are listed of those that taught a version.
const MOST_TURNS: usize = 24;

/// Whether it learns.
#[derive(Debug, Serialize)]
pub(super) struct Learning {
    /// The latest judged replies, oldest first.
    replies: Vec<Point>,
    /// The same by the version that drew them, oldest first.
    versions: Vec<Reception>,
    /// The latest steps, oldest first.
    steps: Vec<Step>,
    /// Most replies that are read: older ones are not in the curve.
    most_replies: usize,
    /// Most steps, likewise.
    most_steps: usize,
}

/// A judged reply.
#[derive(Debug, Serialize)]
struct Point {
    version: u64,
    /// It was the first of its conversation.
    first: bool,
    reward: Option<i8>,
}

/// A step. Numbers that are not finite are null.
#[derive(Debug, Serialize)]
struct Step {
    step: u64,
    version: Option<u64>,
    withheld: Option<String>,
    turns: u64,
    tokens: usize,
    loss: f64,
    grad_norm: f64,
    entropy: f64,
    kl: f64,
    clip_fraction: f64,
    /// Share of the tokens that were drawn greedily or from a part of the distribution.
    truncated_fraction: f64,
}

impl From<StepRow> for Step {
    fn from(StepRow { step, version, withheld, turns, report, .. }: StepRow) -> Self {
        Self {
            step,
            version,
            withheld,
            turns,
            tokens: report.tokens,
            loss: report.loss,
            grad_norm: report.grad_norm,
            entropy: report.entropy,
            kl: report.kl,
            clip_fraction: report.clip_fraction,
            truncated_fraction: report.truncated_fraction,
        }
    }
}

/// A version in the list.
#[derive(Debug, Serialize)]
pub(super) struct VersionView {
    #[serde(flatten)]
    status: VersionStatus,
    /// How its replies were received, as far as the curve reaches.
    heard: Reception,
    /// How many turns taught it.
    taught: u64,
    /// The first of them.
    taught_by: Vec<TaughtBy>,
    /// What its step did.
    numbers: Option<Step>,
}

/// A turn that taught a version.
#[derive(Debug, Serialize)]
struct TaughtBy {
    turn: String,
    session: String,
}

/// The versions, newest first.
#[derive(Debug, Serialize)]
pub(super) struct Versions {
    /// What is served.
    current: u64,
    /// How many there are, withheld ones and the base included.
    total: usize,
    versions: Vec<VersionView>,
}

impl Page {
    pub(super) async fn learning(&self) -> Result<Learning, JournalError> {
        let replies = self.received.replies().await?;
        let mut steps: Vec<Step> =
            self.journal.steps(MOST_STEPS).await?.into_iter().map(Step::from).collect();
        steps.reverse();
        let point = |reply: &ReplyRow| Point {
            version: reply.version,
            first: reply.index == 1,
            reward: reply.reward,
        };
        Ok(Learning {
            replies: replies.values().map(point).collect(),
            versions: by_version(&replies).into_values().collect(),
            steps,
            most_replies: MOST_REPLIES,
            most_steps: MOST_STEPS,
        })
    }

    /// `limit` of them, after the `skip` newest.
    pub(super) async fn versions(&self, skip: usize, limit: usize) -> Result<Versions, JournalError> {
        let heard = by_version(&self.received.replies().await?);
        let current = self.rollback.versions.number();
        let mut statuses = vec![VersionStatus {
            version: Some(0),
            state: if current == 0 { "current" } else { "base" }.to_owned(),
            kept: true,
            ..VersionStatus::default()
        }];
        statuses.extend(version_statuses(&self.journal, &self.rollback).await?);
        let steps = self.journal.steps(MOST_STEPS).await?;
        let total = statuses.len();
        let mut versions = Vec::new();
        for status in statuses.into_iter().rev().skip(skip).take(limit) {
            let (taught, turns) = match status.version {
                Some(version) if version > 0 => self.journal.taught(version, MOST_TURNS).await?,
                _ => (0, Vec::new()),
            };
            let taught_by = turns
                .into_iter()
                .map(|(turn, session)| TaughtBy { turn: turn.to_string(), session: session.to_string() });
            let made = |step: &&StepRow| (step.step, step.version) == (status.step, status.version);
            versions.push(VersionView {
                heard: status.version.and_then(|version| heard.get(&version)).copied().unwrap_or_default(),
                taught,
                taught_by: taught_by.collect(),
                numbers: steps.iter().find(made).cloned().map(Step::from),
                status,
            });
        }
        Ok(Versions { current, total, versions })
    }
}
