//! How a run is doing, for whoever watches it: a few lines at the bottom of a terminal, or a log line now and
//! then.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use openclaw_actors::{optimizer::rounded, rollout::IN_A_ROW, stop::StopSignal};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use crate::telemetry;

/// How busy a node was, period by period, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    /// Length of a period.
    pub period_secs: f64,
    /// Tokens drawn per second, at the end of each.
    pub tokens_per_sec: Vec<f64>,
    /// Most requests at once in each.
    pub in_flight: Vec<usize>,
}

/// How a run is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProgressSnapshot {
    /// Conversations so far.
    pub sessions: u64,
    /// The simulated users, if there are any.
    pub users: Vec<UserProgress>,
    /// Verdicts so far.
    pub rewards: RewardCounts,
    /// Hints found so far.
    pub hints: u64,
    /// The version that serves.
    pub policy_version: u64,
    /// Tokens drawn per second, lately.
    pub tokens_per_sec: f64,
    /// Requests being answered.
    pub in_flight: usize,
    /// The last minutes of both.
    pub recent: Recent,
    /// Optimizer steps so far.
    pub step: u64,
    /// Loss of the last step.
    pub loss: Option<f64>,
    /// What would let it learn sooner.
    pub hint: Option<String>,
}

/// How one simulated user is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserProgress {
    /// Its name.
    pub name: String,
    /// Its sessions so far.
    pub sessions: u64,
    /// Those whose first reply it was satisfied with.
    pub satisfied: u64,
    /// Satisfied first replies in a row, now.
    pub streak: u64,
    /// The session that completed its first streak of three.
    pub satisfied_at: Option<u64>,
    /// It goes on.
    pub open: bool,
}

/// Verdicts by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RewardCounts {
    /// +1.
    pub positive: u64,
    /// -1.
    pub negative: u64,
    /// 0, and turns without a readable vote.
    pub neutral: u64,
}

/// A node's load from now on, period by period.
pub struct RecentLoad {
    /// The periods that are over.
    pub told: Recent,
    began: Instant,
    most_in_flight: usize,
}

impl RecentLoad {
    const PERIOD: Duration = Duration::from_secs(5);
    const PERIODS: usize = 60;

    /// What it is now.
    pub fn look(&mut self, tokens_per_sec: f64, in_flight: usize) {
        self.most_in_flight = self.most_in_flight.max(in_flight);
        if self.began.elapsed() < Self::PERIOD {
            return;
        }
        self.began = Instant::now();
        push(&mut self.told.tokens_per_sec, tokens_per_sec);
        push(&mut self.told.in_flight, std::mem::replace(&mut self.most_in_flight, in_flight));
    }
}

impl Default for RecentLoad {
    fn default() -> Self {
        let told = Recent { period_secs: Self::PERIOD.as_secs_f64(), ..Recent::default() };
        Self { told, began: Instant::now(), most_in_flight: 0 }
    }
}

fn push<T>(periods: &mut Vec<T>, latest: T) {
    if periods.len() == RecentLoad::PERIODS {
        periods.remove(0);
    }
    periods.push(latest);
}

/// How often a terminal is redrawn.
const REDRAW: Duration = Duration::from_millis(200);
/// How often a log line tells of progress.
const LOG: Duration = Duration::from_secs(10);

/// Shows the snapshots until the stop.
pub async fn show(snapshots: watch::Receiver<ProgressSnapshot>, stop: StopSignal) {
    if telemetry::on_terminal() { draw(snapshots, stop).await } else { log(snapshots, stop).await }
}

async fn draw(mut snapshots: watch::Receiver<ProgressSnapshot>, mut stop: StopSignal) {
    let style = ProgressStyle::with_template("{msg}").expect("the template is valid");
    let start = Instant::now();
    // One for all lines: their number changes, and what is removed singly leaves its line behind.
    let bar = telemetry::bars().add(ProgressBar::new_spinner().with_style(style));
    let mut redraw = tokio::time::interval(REDRAW);
    loop {
        tokio::select! {
            () = stop.wait() => break,
            _ = redraw.tick() => {}
        }
        // The first line stays on the terminal at the end: an empty one.
        bar.set_message(format!("\n{}", lines(&snapshots.borrow_and_update(), start.elapsed()).join("\n")));
    }
    bar.finish_and_clear();
}

async fn log(mut snapshots: watch::Receiver<ProgressSnapshot>, mut stop: StopSignal) {
    let mut due = tokio::time::interval(LOG);
    loop {
        tokio::select! {
            () = stop.wait() => break,
            _ = due.tick() => {}
        }
        if snapshots.has_changed().unwrap_or(false) {
            log_line(&snapshots.borrow_and_update());
        }
    }
    log_line(&snapshots.borrow());
}

fn log_line(now: &ProgressSnapshot) {
    let users = now.users.iter().map(|user| format!("{}:{}/{}", user.name, user.satisfied, user.sessions));
    tracing::info!(
        sessions = now.sessions,
        satisfied = users.collect::<Vec<_>>().join(","),
        rewards_positive = now.rewards.positive,
        rewards_negative = now.rewards.negative,
        rewards_neutral = now.rewards.neutral,
        hints = now.hints,
        policy_version = now.policy_version,
        step = now.step,
        loss = now.loss.map(rounded),
        tokens_per_sec = now.tokens_per_sec.round(),
        in_flight = now.in_flight,
        "progress"
    );
}

/// The lines of a terminal. A simulated user has one until all of them are through.
fn lines(now: &ProgressSnapshot, elapsed: Duration) -> Vec<String> {
    let (minutes, secs) = (elapsed.as_secs() / 60, elapsed.as_secs() % 60);
    let loss = now.loss.map_or_else(String::new, |loss| format!(", loss {loss:.3}"));
    let RewardCounts { positive, negative, neutral } = now.rewards;
    let mut lines = vec![
        format!(
            "{minutes:>3}:{secs:02}  version {} after {}{loss}; {:.0} tokens/s, {} in flight",
            now.policy_version,
            count(now.step, "step"),
            now.tokens_per_sec,
            now.in_flight
        ),
        format!(
            "        {}; judged: {positive} good, {negative} bad, {neutral} neutral; {}",
            count(now.sessions, "conversation"),
            count(now.hints, "hint")
        ),
    ];
    if now.users.iter().any(|user| user.open) {
        lines.extend(now.users.iter().map(user_line));
    }
    lines.extend(now.hint.as_ref().map(|hint| format!("        {hint}")));
    lines
}

fn user_line(user: &UserProgress) -> String {
    let UserProgress { name, sessions, satisfied, streak, satisfied_at, open } = user;
    let told = match satisfied_at {
        Some(session) => format!("content after {}", count(*session, "conversation")),
        None if *open => {
            format!("{satisfied} of {sessions} first replies to its taste, {streak} in a row of {IN_A_ROW}")
        }
        None => format!("gave up after {}", count(*sessions, "conversation")),
    };
    format!("        {name:<8} {told}")
}

/// `1 step`, `2 steps`.
fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use openclaw_actors::stop::stop_flag;

    #[test]
    fn a_terminal_shows_the_run_in_a_line_per_subject() {
        let student = UserProgress {
            name: "student".to_owned(),
            sessions: 9,
            satisfied: 4,
            streak: 2,
            satisfied_at: None,
            open: true,
        };
        let ta = UserProgress {
            name: "ta".to_owned(),
            sessions: 8,
            satisfied: 5,
            streak: 1,
            satisfied_at: Some(7),
            open: false,
        };
        let mut now = ProgressSnapshot {
            sessions: 17,
            users: vec![student, ta],
            rewards: RewardCounts { positive: 9, negative: 8, neutral: 1 },
            hints: 6,
            policy_version: 3,
            tokens_per_sec: 1234.4,
            in_flight: 2,
            recent: Recent::default(),
            step: 4,
            loss: Some(0.03125),
            hint: None,
        };
        assert_eq!(
            lines(&now, Duration::from_secs(125)),
            [
                "  2:05  version 3 after 4 steps, loss 0.031; 1234 tokens/s, 2 in flight",
                "        17 conversations; judged: 9 good, 8 bad, 1 neutral; 6 hints",
                "        student  4 of 9 first replies to its taste, 2 in a row of 3",
                "        ta       content after 7 conversations",
            ]
        );
        (now.users[0].open, now.hints) = (false, 1);
        now.hint = Some("4 of 16 samples wait".to_owned());
        let all_through = lines(&now, Duration::from_secs(125));
        assert!(all_through.len() == 3 && all_through[1].ends_with("; 1 hint"), "{all_through:?}");
        assert_eq!(all_through[2], "        4 of 16 samples wait");
        assert!(user_line(&now.users[0]).ends_with("gave up after 9 conversations"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_minutes_are_kept_period_by_period() {
        let mut load = RecentLoad::default();
        load.look(900.0, 7);
        for period in 0..RecentLoad::PERIODS + 1 {
            tokio::time::advance(RecentLoad::PERIOD).await;
            load.look(period as f64, 2);
        }
        assert_eq!(load.told.tokens_per_sec.len(), RecentLoad::PERIODS);
        assert_eq!(load.told.tokens_per_sec[..2], [1.0, 2.0], "the oldest is gone");
        assert!(load.told.in_flight.iter().all(|most| *most == 2));
        tokio::time::advance(RecentLoad::PERIOD / 2).await;
        load.look(5.0, 9);
        tokio::time::advance(RecentLoad::PERIOD / 2).await;
        load.look(5.0, 3);
        assert_eq!(load.told.in_flight.last(), Some(&9), "a peak within a period counts");
    }

    #[tokio::test(start_paused = true)]
    async fn showing_ends_with_the_stop() {
        let (_sender, snapshots) = watch::channel(ProgressSnapshot::default());
        let (handle, stop) = stop_flag();
        let shown = tokio::spawn(log(snapshots, stop));
        handle.stop();
        shown.await.unwrap();
    }
}
