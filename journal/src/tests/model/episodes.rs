//! Episodes of the plain collections: which turns are their steps, and when these may be learnt from.

use std::{collections::BTreeMap, sync::Arc};

use super::Memory;
use crate::{
    Episode, EpisodeId, EpisodeState, EpisodeStep, GroupEpisode, Outcome, SessionId, Standing, Turn, TurnId,
    TurnState,
};

/// Nothing follows a turn for one of these reasons, whose episode goes on.
const UNFOLLOWED: [&str; 4] = ["idle", "session_done", "session_overflow", "overflow"];

pub(crate) struct Played {
    pub episode: Episode,
    pub state: EpisodeState,
    /// 0 once its group is closed.
    of: u32,
    pub steps: BTreeMap<u32, EpisodeStep>,
}

impl Played {
    fn team(&self) -> Arc<str> {
        self.episode.group.as_ref().map_or(&self.episode.id.0, |group| &group.name).clone()
    }
}

impl Memory {
    pub(super) fn begin_episode(&mut self, episode: &Episode) -> bool {
        let is_known = self.episodes.contains_key(&episode.id);
        if is_known || self.open_episode(&episode.session).is_some() {
            return false;
        }
        let of = episode.group.as_ref().map_or(1, |group| group.of);
        let (episode, state, steps) = (episode.clone(), EpisodeState::Open, BTreeMap::new());
        self.episodes.insert(episode.id.clone(), Played { episode, state, of, steps });
        self.last_seq += 1;
        true
    }

    fn open_episode(&self, session: &SessionId) -> Option<&EpisodeId> {
        let open =
            |played: &&Played| played.episode.session == *session && played.state == EpisodeState::Open;
        self.episodes.values().find(open).map(|played| &played.episode.id)
    }

    /// The episode that a turn becomes a step of.
    pub(super) fn joins(&mut self, turn: &Turn, state: u64) -> Option<EpisodeId> {
        let id = self.open_episode(&turn.session)?.clone();
        let steps = &mut self.episodes.get_mut(&id)?.steps;
        let place = steps.last_key_value().map_or(0, |(place, _)| place + 1);
        steps.insert(place, EpisodeStep { turn: turn.id.clone(), score: None, state });
        Some(id)
    }

    fn played(&self, turn: &TurnId) -> Option<&Played> {
        self.episodes.get(self.turns.get(turn)?.episode.as_ref()?)
    }

    pub(super) fn is_judged(&self, turn: &TurnId) -> bool {
        self.played(turn).is_none_or(|played| played.episode.judged)
    }

    pub(super) fn is_over(&self, turn: &TurnId) -> bool {
        self.played(turn).is_some_and(|played| played.state != EpisodeState::Open)
    }

    /// A step waits for its outcome.
    pub(super) fn after_signals(&self, turn: &TurnId) -> TurnState {
        if self.played(turn).is_some() { TurnState::Held } else { TurnState::Ready }
    }

    pub(super) fn is_last_for_now(&self, turn: &TurnId, reason: &str) -> bool {
        let waits = self
            .turns
            .get(turn)
            .is_some_and(|entry| entry.state == TurnState::Waiting && entry.dead.is_none());
        waits && UNFOLLOWED.contains(&reason) && self.played(turn).is_some() && !self.is_over(turn)
    }

    pub(super) fn score(&mut self, turn: &TurnId, score: Option<f32>) {
        let steps = self.episodes.values_mut().flat_map(|played| played.steps.values_mut());
        steps.filter(|step| step.turn == *turn).for_each(|step| step.score = score);
    }

    pub(super) fn end_episode(&mut self, id: &EpisodeId, outcome: &Outcome) -> bool {
        if !self.close(id, EpisodeState::Ended(outcome.clone())) {
            return false;
        }
        for turn in self.steps_in(id, TurnState::Waiting) {
            self.step(&turn, TurnState::Waiting, |_, _| TurnState::Held);
        }
        for entry in self.turns.values_mut().filter(|entry| entry.episode.as_ref() == Some(id)) {
            entry.provisional = false;
        }
        self.release_of(id);
        self.last_seq += 1;
        true
    }

    pub(super) fn abandon_episode(&mut self, id: &EpisodeId, reason: &str) -> bool {
        if !self.close(id, EpisodeState::Abandoned(reason.to_owned())) {
            return false;
        }
        for state in [TurnState::Waiting, TurnState::Followed, TurnState::Judged, TurnState::Held] {
            for turn in self.steps_in(id, state) {
                self.drop_turn(&turn, state);
            }
        }
        self.release_of(id);
        self.last_seq += 1;
        true
    }

    fn close(&mut self, id: &EpisodeId, state: EpisodeState) -> bool {
        match self.episodes.get_mut(id).filter(|played| played.state == EpisodeState::Open) {
            Some(played) => {
                played.state = state;
                true
            }
            None => false,
        }
    }

    /// By the order in which they were said.
    fn steps_in(&self, id: &EpisodeId, state: TurnState) -> Vec<TurnId> {
        let mut found: Vec<_> = self
            .turns
            .values()
            .filter(|entry| entry.episode.as_ref() == Some(id) && entry.state == state)
            .collect();
        found.sort_by_key(|entry| entry.no);
        found.into_iter().map(|entry| entry.turn.id.clone()).collect()
    }

    /// A turn that is given up; one that its group never saw is none of its steps.
    fn drop_turn(&mut self, turn: &TurnId, was: TurnState) -> bool {
        let done = self.step(turn, was, |_, totals| {
            totals.dropped += 1;
            TurnState::Dropped
        });
        if done && !matches!(was, TurnState::Ready | TurnState::Leased) {
            self.episodes.values_mut().for_each(|played| played.steps.retain(|_, step| step.turn != *turn));
        }
        done
    }

    pub(super) fn give_up(&mut self, turn: &TurnId) -> bool {
        let open = self.turns.get(turn).map(|entry| entry.state).filter(|state| state.is_open());
        let Some(was) = open else { return false };
        let done = self.drop_turn(turn, was);
        if !matches!(was, TurnState::Ready | TurnState::Leased) {
            self.release_held(turn);
        }
        done
    }

    pub(super) fn close_group(&mut self, group: &str) -> bool {
        let open = |played: &Played| *played.team() == *group && played.state == EpisodeState::Open;
        if self.episodes.values().any(open) {
            return false;
        }
        let mut closed = false;
        for played in self.episodes.values_mut().filter(|played| *played.team() == *group && played.of > 0) {
            // Nobody is missing any more; how many there were to be is still told.
            played.of = 0;
            closed = true;
        }
        if closed {
            self.release(group);
        }
        closed
    }

    pub(super) fn release_held(&mut self, turn: &TurnId) {
        if let Some(team) = self.played(turn).map(Played::team) {
            self.release(&team);
        }
    }

    fn release_of(&mut self, id: &EpisodeId) {
        let team = self.episodes[id].team();
        self.release(&team);
    }

    /// Steps are let go when all episodes of their group are over, as many as it has, and nobody is at any of them.
    fn release(&mut self, team: &str) {
        let of_team: Vec<&Played> = self.episodes.values().filter(|played| *played.team() == *team).collect();
        let is_over = of_team.iter().all(|played| played.state != EpisodeState::Open);
        let is_whole = of_team.iter().all(|played| of_team.len() >= played.of as usize);
        let ids: Vec<EpisodeId> = of_team.iter().map(|played| played.episode.id.clone()).collect();
        let under_way = [TurnState::Waiting, TurnState::Followed, TurnState::Judged];
        let is_at = |entry: &super::Entry| {
            let is_step = entry.episode.as_ref().is_some_and(|id| ids.contains(id));
            is_step && entry.dead.is_none() && under_way.contains(&entry.state)
        };
        if !is_over || !is_whole || self.turns.values().any(is_at) {
            return;
        }
        let mut held: Vec<(usize, TurnId)> = Vec::new();
        for id in &ids {
            let turns = self.steps_in(id, TurnState::Held);
            held.extend(turns.into_iter().map(|turn| (self.turns[&turn].no, turn)));
        }
        held.sort();
        for (_, turn) in held {
            self.step(&turn, TurnState::Held, |_, totals| {
                totals.samples += 1;
                TurnState::Ready
            });
        }
    }

    /// What a method sees of a step's group.
    pub(super) fn standing(&self, turn: &TurnId) -> Option<Standing> {
        let played = self.played(turn)?;
        let step = played.steps.iter().find(|(_, step)| step.turn == *turn).map(|(place, _)| *place)?;
        let came_out =
            self.episodes.values().filter(|other| other.team() == played.team()).filter_map(|other| {
                let EpisodeState::Ended(outcome) = &other.state else { return None };
                let (id, outcome, steps) = (other.episode.id.clone(), outcome.clone(), other.steps.clone());
                Some(GroupEpisode { id, outcome, steps })
            });
        let group = Arc::new(came_out.collect());
        Some(Standing { episode: Arc::new(played.episode.clone()), step, group })
    }

    /// Turns of episodes without an outcome, and where they stand.
    pub fn of_abandoned(&self) -> Vec<(TurnId, TurnState)> {
        let is = |turn: &TurnId| {
            self.played(turn).is_some_and(|played| matches!(played.state, EpisodeState::Abandoned(_)))
        };
        self.turns.iter().filter(|(id, _)| is(id)).map(|(id, entry)| (id.clone(), entry.state)).collect()
    }
}
