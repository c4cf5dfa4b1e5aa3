//! A journal in plain collections, to compare the real one with.

mod episodes;

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use self::episodes::Played;
use super::super::record::*;
use crate::{
    EpisodeId, Evaluate, Judged, MOST_WISHES, NextState, Sample, TeacherSignal, Turn, TurnId, TurnKind,
    Verdict, are_about_the_same,
};

struct Entry {
    no: usize,
    seq: u64,
    state: TurnState,
    dead: Option<DeadTurn>,
    turn: Arc<Turn>,
    mark: TurnMark,
    completed: SystemTime,
    next_state: Option<NextState>,
    verdict: Option<Verdict>,
    hints: Vec<String>,
    signal: Option<TeacherSignal>,
    provisional: bool,
    undone: u32,
    rating: Option<i8>,
    hint: Option<String>,
    /// The version whose folder holds what was learnt from it.
    learnt_by: Option<u64>,
    /// What it is a step of.
    episode: Option<EpisodeId>,
}

impl Entry {
    fn is_provisional(&self) -> bool {
        self.provisional && self.state.is_under_way()
    }

    fn is_trainable(&self) -> bool {
        matches!(self.state, TurnState::Ready | TurnState::Leased) && !self.is_provisional()
    }

    /// Of a step, nobody needs to have said anything.
    fn learnt_from(&self) -> Option<Verdict> {
        let nobodys =
            || self.episode.as_ref().map(|_| Verdict { reward: None, votes: Vec::new(), rule: None });
        let verdict = self.verdict.clone().or_else(nobodys)?;
        Some(match self.rating {
            Some(rating) => Verdict { reward: Some(rating), rule: Some("rating".to_owned()), ..verdict },
            None => verdict,
        })
    }
}

#[derive(Default)]
pub(crate) struct Memory {
    turns: BTreeMap<TurnId, Entry>,
    pub episodes: BTreeMap<EpisodeId, Played>,
    pub totals: Totals,
    last_seq: u64,
    pub steps: Vec<StepRow>,
    pub versions: BTreeMap<u64, VersionRow>,
    pub current: u64,
    pub resumable: u64,
    pub audit: Vec<AuditRow>,
    pub wishes: Vec<Wish>,
}

pub(crate) struct Wish {
    pub no: u64,
    pub person: u64,
    pub text: String,
    turn: TurnId,
    pub stands: bool,
}

impl Memory {
    pub fn apply(&mut self, record: &Record) -> Recorded {
        let done = match record {
            Record::TurnCompleted { turn, mark } => self.complete(turn, mark),
            Record::NextStateSeen { turn, next_state, provisional } => {
                let is_judged = self.is_judged(turn);
                let done = self.step(turn, TurnState::Waiting, |entry, totals| {
                    totals.next_states += 1;
                    entry.next_state = Some(next_state.clone());
                    entry.provisional = *provisional;
                    if is_judged { TurnState::Followed } else { TurnState::Held }
                });
                if let (true, false, Some(rating)) = (done, is_judged, next_state.rating) {
                    self.score(turn, Some(f32::from(rating.signum())));
                }
                done
            }
            Record::NextStateSettled { turn } => match self.turns.get_mut(turn) {
                Some(entry) if entry.is_provisional() => {
                    entry.provisional = false;
                    if entry.state == TurnState::Ready {
                        self.last_seq += 1;
                        entry.seq = self.last_seq;
                    }
                    true
                }
                _ => false,
            },
            Record::NextStateUndone { turn } => {
                let state = self.turns.get(turn).map(|entry| entry.state);
                let is_over = self.is_over(turn);
                state.filter(|state| state.is_under_way() && !is_over).is_some_and(|state| {
                    self.forget_wishes_of(turn);
                    if self.turns[turn].rating.is_none() {
                        self.score(turn, None);
                    }
                    self.step(turn, state, |entry, _| {
                        entry.undone += 1;
                        (entry.provisional, entry.next_state) = (false, None);
                        (entry.verdict, entry.signal) = (None, None);
                        entry.hints.clear();
                        TurnState::Waiting
                    })
                })
            }
            Record::Judged { turn, undone, .. } | Record::Taught { turn, undone, .. }
                if self.turns.get(turn).is_some_and(|entry| entry.undone != *undone) =>
            {
                false
            }
            Record::Judged { turn, verdict, hints, teach, wish, .. } => {
                let after = self.after_signals(turn);
                let done = self.step(turn, TurnState::Followed, |entry, totals| {
                    match verdict.reward {
                        Some(1) => totals.approved += 1,
                        Some(-1) => totals.rejected += 1,
                        _ => totals.neutral += 1,
                    }
                    totals.hinted += u64::from(!hints.is_empty());
                    let next = if *teach || entry.hint.is_some() { TurnState::Judged } else { after };
                    totals.samples += u64::from(next == TurnState::Ready);
                    entry.verdict = Some(verdict.clone());
                    entry.hints.clone_from(hints);
                    next
                });
                if done && self.turns[turn].rating.is_none() {
                    self.score(turn, verdict.score());
                }
                if done && self.turns[turn].state == TurnState::Held {
                    self.release_held(turn);
                }
                if let (true, Some(wish)) = (done, wish) {
                    self.voice(turn, wish);
                }
                done
            }
            Record::Taught { turn, signal: Some(signal), .. } if self.expects_another(turn, &signal.hint) => {
                false
            }
            Record::Taught { turn, signal, .. } => {
                let after = self.after_signals(turn);
                let done = self.step(turn, TurnState::Judged, |entry, totals| {
                    totals.samples += u64::from(after == TurnState::Ready);
                    totals.taught += 1;
                    entry.signal.clone_from(signal);
                    after
                });
                if done {
                    self.release_held(turn);
                }
                done
            }
            Record::TurnDropped { turn, reason } if self.is_last_for_now(turn, reason) => {
                self.step(turn, TurnState::Waiting, |_, _| TurnState::Held)
            }
            Record::TurnDropped { turn, .. } => self.give_up(turn),
            Record::TurnWithdrawn { turn } => {
                let leased = self.turns.get(turn).is_some_and(|entry| entry.state == TurnState::Leased);
                let done = !leased && self.give_up(turn);
                if done {
                    self.forget_wishes_of(turn);
                }
                done
            }
            Record::Rated { turn, rating } => match self.turns.get_mut(turn) {
                Some(entry) if entry.state.is_under_way() && entry.dead.is_none() => {
                    entry.rating = Some(*rating);
                    self.totals.rated += 1;
                    self.last_seq += 1;
                    self.score(turn, Some(f32::from(*rating)));
                    true
                }
                _ => false,
            },
            Record::HintCorrected { turn, hint } => match self.turns.get_mut(turn) {
                Some(entry)
                    if entry.dead.is_none()
                        && entry.state.is_open()
                        && !matches!(entry.state, TurnState::Held | TurnState::Leased)
                        && entry.hint.as_ref() != Some(hint) =>
                {
                    self.last_seq += 1;
                    if matches!(entry.state, TurnState::Judged | TurnState::Ready) {
                        (entry.state, entry.seq) = (TurnState::Judged, self.last_seq);
                    }
                    (entry.hint, entry.signal) = (Some(hint.clone()), None);
                    self.totals.corrected += 1;
                    true
                }
                _ => false,
            },
            Record::TurnDied { turn, inbox, attempts, reason } => match self.turns.get_mut(turn) {
                Some(entry) if entry.state.is_open() && entry.dead.is_none() => {
                    entry.dead = Some(DeadTurn {
                        turn: turn.clone(),
                        state: entry.state,
                        inbox: inbox.clone(),
                        attempts: *attempts,
                        reason: reason.clone(),
                        when: SystemTime::now(),
                    });
                    self.release_held(turn);
                    true
                }
                _ => false,
            },
            Record::TurnRetried { turn } => match self.turns.get_mut(turn) {
                Some(entry) if entry.dead.is_some() => {
                    self.last_seq += 1;
                    (entry.dead, entry.seq) = (None, self.last_seq);
                    true
                }
                _ => false,
            },
            Record::BatchLeased { turns, .. } => {
                let leasable = |turn| self.turns.get(turn).is_some_and(Entry::is_trainable);
                let all = !turns.is_empty() && turns.iter().all(leasable);
                if all {
                    self.settle(turns, &[TurnState::Ready, TurnState::Leased], TurnState::Leased);
                }
                all
            }
            Record::StepCompleted(commit) => self.commit(commit),
            Record::VersionKept { version, turns } => match self.versions.get_mut(version) {
                Some(row) if !row.checkpoint => {
                    row.checkpoint = true;
                    self.trained(turns, *version);
                    true
                }
                _ => false,
            },
            Record::VersionRestored { version, base } => {
                let of = self.versions.get(base).cloned();
                let known = self.versions.contains_key(version) || (of.is_none() && *base != 0);
                if !known {
                    let row = VersionRow {
                        number: *version,
                        step: of.as_ref().map_or(0, |row| row.step),
                        base: *base,
                        fingerprint: of.map(|row| row.fingerprint).unwrap_or_default(),
                        checkpoint: false,
                        published: false,
                        when: SystemTime::now(),
                    };
                    self.versions.insert(*version, row);
                }
                !known
            }
            Record::VersionsUndone { versions, to } => {
                let lost = |entry: &Entry| entry.learnt_by.is_some_and(|version| versions.contains(&version));
                let mut turns: Vec<_> = self.turns.values().filter(|entry| lost(entry)).collect();
                turns.sort_by_key(|entry| entry.seq);
                let turns: Vec<TurnId> = turns.into_iter().map(|entry| entry.turn.id.clone()).collect();
                self.totals.trained -= self.settle(&turns, &[TurnState::Trained], TurnState::Ready);
                for version in versions {
                    if let Some(row) = self.versions.get_mut(version) {
                        row.checkpoint = false;
                    }
                }
                self.resumable = *to;
                true
            }
            Record::StepWithheld { step, turns, reason, report, fingerprint } => {
                let held = self.settle(turns, &[TurnState::Leased], TurnState::Quarantined);
                if held > 0 {
                    self.totals.quarantined += held;
                    self.totals.withheld += 1;
                    self.steps.push(StepRow {
                        step: *step,
                        version: None,
                        withheld: Some(reason.clone()),
                        turns: turns.len() as u64,
                        report: *report,
                        fingerprint: fingerprint.clone(),
                        when: SystemTime::now(),
                    });
                }
                held > 0
            }
            Record::VersionPublished { version } => match self.versions.get_mut(version) {
                Some(row) if !row.published => {
                    row.published = true;
                    self.serve(*version);
                    true
                }
                _ => false,
            },
            Record::RolledBack { to, .. } => {
                let known = *to == 0 || self.versions.contains_key(to);
                if known {
                    self.serve(*to);
                    self.resumable = *to;
                }
                known
            }
            Record::WishVoiced { turn, wish } => self.voice(turn, wish),
            Record::WishWithdrawn { wish } => {
                let of = self.wishes.iter_mut().find(|known| known.no == *wish);
                of.is_some_and(|known| std::mem::replace(&mut known.stands, false))
            }
            Record::SessionEnded { session } => {
                let of = |entry: &&mut Entry| entry.turn.session == *session && !entry.mark.last;
                let ended = self.turns.values_mut().filter(of).map(|entry| entry.mark.last = true);
                ended.count() > 0
            }
            Record::EpisodeBegan { episode } => self.begin_episode(episode),
            Record::EpisodeEnded { episode, outcome } => self.end_episode(episode, outcome),
            Record::EpisodeAbandoned { episode, reason } => self.abandon_episode(episode, reason),
            Record::GroupClosed { group } => self.close_group(group),
            Record::Operated { verb, target, outcome } => {
                self.audit.push(AuditRow {
                    when: SystemTime::now(),
                    verb: verb.clone(),
                    target: target.clone(),
                    outcome: outcome.clone(),
                });
                true
            }
        };
        if done { Recorded::Done } else { Recorded::Stale }
    }

    fn voice(&mut self, turn: &TurnId, wish: &str) -> bool {
        let Some(entry) = self.turns.get(turn).filter(|entry| entry.episode.is_none()) else { return false };
        let (person, place) = (entry.mark.person, entry.no);
        let is_over =
            |known: &Wish| known.turn == *turn || known.text == wish || are_about_the_same(&known.text, wish);
        let place_of = |turn: &TurnId| self.turns[turn].no;
        let standing = self.wishes.iter_mut().filter(|known| known.person == person && known.stands);
        let (over, mut left): (Vec<&mut Wish>, Vec<&mut Wish>) = standing.partition(|known| is_over(known));
        let is_said = |known: &&mut Wish| known.text == wish && known.turn == *turn;
        if over.iter().any(|known| place_of(&known.turn) > place || is_said(known)) {
            return false;
        }
        let surplus = (left.len() + 1).saturating_sub(MOST_WISHES);
        over.into_iter().chain(left.drain(..surplus)).for_each(|known| known.stands = false);
        let no = self.wishes.len() as u64 + 1;
        self.wishes.push(Wish { no, person, text: wish.to_owned(), turn: turn.clone(), stands: true });
        true
    }

    fn forget_wishes_of(&mut self, turn: &TurnId) {
        self.wishes.iter_mut().filter(|known| known.turn == *turn).for_each(|known| known.stands = false);
    }

    /// A person wrote another hint than `shown`.
    fn expects_another(&self, turn: &TurnId, shown: &str) -> bool {
        self.turns.get(turn).and_then(|entry| entry.hint.as_deref()).is_some_and(|hint| hint != shown)
    }

    /// What opening does: what was leased is ready again.
    pub fn reopen(&mut self) {
        let mut leased: Vec<(u64, TurnId)> = self
            .turns
            .iter()
            .filter(|(_, entry)| entry.state == TurnState::Leased)
            .map(|(id, entry)| (entry.seq, id.clone()))
            .collect();
        leased.sort();
        let leased: Vec<TurnId> = leased.into_iter().map(|(_, id)| id).collect();
        self.settle(&leased, &[TurnState::Leased], TurnState::Ready);
    }

    fn complete(&mut self, turn: &Arc<Turn>, mark: &TurnMark) -> bool {
        if self.turns.contains_key(&turn.id) {
            return false;
        }
        self.last_seq += 1;
        self.totals.turns += 1;
        self.totals.sessions += u64::from(turn.kind == TurnKind::Main && turn.index == 1);
        let trainable = turn.trainable && turn.kind == TurnKind::Main;
        let is_main = turn.kind == TurnKind::Main;
        let episode = if is_main { self.joins(turn, mark.before) } else { None };
        let entry = Entry {
            no: self.turns.len(),
            seq: self.last_seq,
            state: if trainable { TurnState::Waiting } else { TurnState::Answered },
            dead: None,
            turn: turn.clone(),
            mark: mark.clone(),
            completed: SystemTime::now(),
            next_state: None,
            verdict: None,
            hints: Vec::new(),
            signal: None,
            provisional: false,
            undone: 0,
            rating: None,
            hint: None,
            learnt_by: None,
            episode,
        };
        self.turns.insert(turn.id.clone(), entry);
        true
    }

    fn step(
        &mut self,
        turn: &TurnId,
        expected: TurnState,
        change: impl FnOnce(&mut Entry, &mut Totals) -> TurnState,
    ) -> bool {
        let Some(entry) = self.turns.get_mut(turn).filter(|entry| entry.state == expected) else {
            return false;
        };
        entry.state = change(entry, &mut self.totals);
        entry.dead = None;
        self.last_seq += 1;
        entry.seq = self.last_seq;
        true
    }

    fn settle(&mut self, turns: &[TurnId], from: &[TurnState], to: TurnState) -> u64 {
        let mut changed = 0;
        for turn in turns {
            let Some(entry) = self.turns.get_mut(turn).filter(|entry| from.contains(&entry.state)) else {
                continue;
            };
            self.last_seq += 1;
            (entry.state, entry.seq, entry.dead) = (to, self.last_seq, None);
            changed += 1;
        }
        changed
    }

    fn commit(&mut self, commit: &StepCommit) -> bool {
        if self.versions.contains_key(&commit.version) {
            return false;
        }
        let when = SystemTime::now();
        if commit.checkpoint {
            self.trained(&commit.turns, commit.version);
        }
        self.totals.steps += 1;
        self.steps.push(StepRow {
            step: commit.step,
            version: Some(commit.version),
            withheld: None,
            turns: commit.batch,
            report: commit.report,
            fingerprint: commit.fingerprint.clone(),
            when,
        });
        let row = VersionRow {
            number: commit.version,
            step: commit.step,
            base: commit.base,
            fingerprint: commit.fingerprint.clone(),
            checkpoint: commit.checkpoint,
            published: false,
            when,
        };
        self.versions.insert(commit.version, row);
        true
    }

    /// The folder of `version` holds what was learnt from `turns`.
    fn trained(&mut self, turns: &[TurnId], version: u64) {
        for turn in turns {
            if self.settle(std::slice::from_ref(turn), &[TurnState::Leased], TurnState::Trained) > 0 {
                self.totals.trained += 1;
                self.turns.get_mut(turn).expect("it was just settled").learnt_by = Some(version);
            }
        }
        self.resumable = version;
    }

    fn serve(&mut self, version: u64) {
        self.current = version;
        self.totals.version = version;
    }

    pub fn backlog(&self) -> Backlog {
        let mut backlog = Backlog { last_seq: self.last_seq, ..Backlog::default() };
        for entry in self.turns.values() {
            let counted = match entry.state {
                _ if entry.dead.is_some() => &mut backlog.dead,
                TurnState::Waiting => &mut backlog.waiting,
                TurnState::Followed => &mut backlog.to_judge,
                TurnState::Judged => &mut backlog.to_teach,
                TurnState::Held => &mut backlog.held,
                TurnState::Ready if entry.provisional => &mut backlog.provisional,
                TurnState::Ready => &mut backlog.ready,
                TurnState::Leased => &mut backlog.leased,
                _ => continue,
            };
            *counted += 1;
        }
        backlog
    }

    fn pending(&self, state: TurnState, after: u64, limit: usize) -> Vec<&Entry> {
        let held = |entry: &Entry| entry.state == TurnState::Ready && entry.provisional;
        let wanted = |entry: &&Entry| {
            entry.state == state && entry.dead.is_none() && entry.seq > after && !held(entry)
        };
        let mut found: Vec<&Entry> = self.turns.values().filter(wanted).collect();
        found.sort_by_key(|entry| entry.seq);
        found.truncate(limit);
        found
    }

    pub fn evaluations(&self, after: u64, limit: usize) -> Vec<(u64, Evaluate)> {
        let evaluate = |entry: &Entry| {
            let next_state = entry.next_state.clone()?;
            Some((entry.seq, Evaluate { turn: entry.turn.clone(), next_state, undone: entry.undone }))
        };
        self.pending(TurnState::Followed, after, limit).into_iter().filter_map(evaluate).collect()
    }

    pub fn judged(&self, after: u64, limit: usize) -> Vec<(u64, Judged)> {
        let judged = |entry: &Entry| {
            let hints = entry.hint.iter().cloned().collect::<Vec<_>>();
            let hints = if hints.is_empty() { entry.hints.clone() } else { hints };
            let verdict = entry.learnt_from()?;
            Some((entry.seq, Judged { turn: entry.turn.clone(), verdict, hints, undone: entry.undone }))
        };
        self.pending(TurnState::Judged, after, limit).into_iter().filter_map(judged).collect()
    }

    pub fn samples(&self, after: u64, limit: usize) -> Vec<(u64, Sample)> {
        let sample = |entry: &Entry| {
            let (teacher, standing) = (entry.signal.clone(), self.standing(&entry.turn.id));
            let verdict = entry.learnt_from()?;
            Some((entry.seq, Sample { turn: entry.turn.clone(), verdict, teacher, standing }))
        };
        self.pending(TurnState::Ready, after, limit).into_iter().filter_map(sample).collect()
    }

    pub fn trainable(&self, turns: &[TurnId]) -> Vec<TurnId> {
        let open = |turn: &&TurnId| self.turns.get(*turn).is_some_and(Entry::is_trainable);
        turns.iter().filter(open).cloned().collect()
    }

    pub fn open_turns(&self, since: SystemTime) -> Vec<RecordedTurn> {
        let recent = |entry: &&Entry| {
            let session = |other: &Entry| other.turn.session == entry.turn.session;
            entry.state == TurnState::Waiting
                || self.turns.values().any(|other| session(other) && other.completed >= since)
        };
        let mut found: Vec<&Entry> = self.turns.values().filter(recent).collect();
        found.sort_by_key(|entry| entry.no);
        found
            .into_iter()
            .map(|entry| RecordedTurn {
                turn: entry.turn.id.clone(),
                session: entry.turn.session.clone(),
                index: entry.turn.index,
                kind: entry.turn.kind,
                trainable: entry.turn.trainable,
                mark: entry.mark.clone(),
                waiting: entry.state == TurnState::Waiting,
                rated: entry.rating.filter(|_| entry.state == TurnState::Waiting),
                completed: entry.completed,
            })
            .collect()
    }

    pub fn provisional_turns(&self) -> Vec<TurnId> {
        let mut found: Vec<&Entry> = self.turns.values().filter(|entry| entry.is_provisional()).collect();
        found.sort_by_key(|entry| entry.no);
        found.into_iter().map(|entry| entry.turn.id.clone()).collect()
    }

    pub fn dead(&self) -> Vec<DeadTurn> {
        self.turns.values().filter_map(|entry| entry.dead.clone()).collect()
    }
}
