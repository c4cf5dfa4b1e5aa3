//! Which turns a request answers, and what its history shows of next states that came before.

use std::time::Instant;

use openclaw_journal::{NextState, NextStateKind, Record, SessionId, TurnId, TurnMark};

use super::{ArrivedRequest, Conversations, Waiting};
use crate::sessions::{
    histories::{Owners, reply_key, request_key, tail_key},
    mark::{Found, Recognise},
    next_state::{following, next_state},
    provisional::{Provisional, Shown, names},
    transcript::{Author, Transcript},
};

/// What a session was known by, which says how far a history may differ from what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Its name.
    Name,
    /// A history that is kept, or none.
    History,
    /// Its last reply and what that answers.
    Tail,
    /// Its last reply, which nobody else got.
    Reply,
}

/// A turn whose reply a request carries.
struct Carried {
    turn: TurnId,
    completed: Instant,
    found: Found,
    /// In other words.
    reworded: bool,
}

/// A turn whose reply may be looked for in a request.
struct Candidate<'a> {
    turn: &'a TurnId,
    mark: &'a TurnMark,
    completed: Instant,
    /// Something has followed it, and may be taken back.
    is_followed: bool,
    /// What has did so behind the reply in other words.
    reworded: bool,
}

impl Conversations {
    /// Finds the turns of a session that a request answers. First what it shows of those before.
    pub(super) fn pair(&mut self, session: &SessionId, trust: Trust, request: &ArrivedRequest, now: Instant) {
        let ArrivedRequest { marks, messages, transcript, .. } = request;
        let known = self.sessions.get(session);
        // A side request that is sent again is one still.
        if known.is_none_or(|known| known.side_requests.contains(&transcript.whole())) {
            return;
        }
        let (mut answered, followed) = self.carried(session, trust, request);
        for Carried { turn, .. } in &answered {
            // What it replied to is history by now.
            let request = self.waiting.get(turn).map(|waiting| waiting.mark.request());
            let brought = |kept: &&Provisional| kept.request.is_some() && kept.request == request;
            let shown: Vec<TurnId> =
                self.provisionals.of(session).iter().filter(brought).map(|kept| kept.turn.clone()).collect();
            shown.iter().for_each(|turn| self.confirm(session, turn));
        }
        for carried in followed.into_iter().rev() {
            answered.extend(self.review(session, carried, request));
        }
        // Else turns go on waiting, for words that may be learnt from.
        if marks.no_train {
            return;
        }
        // Turns are judged in the order in which they happened.
        answered.sort_by_key(|carried| carried.completed);
        for Carried { turn, completed, found: Found { end, behind }, reworded } in answered {
            let Some(said) = next_state(messages, transcript, end, behind.as_deref()) else { continue };
            let Some(Waiting { mark, rated, .. }) = self.take(&turn) else { continue };
            let next_state = NextState { rating: rated, ..said };
            if self.holds_withheld(session, transcript, end + 1) {
                match rated {
                    Some(_) => self.tell_feedback(turn, rated, None, false),
                    None => self.untold.push(Record::TurnDropped { turn, reason: "no_train" }),
                }
                continue;
            }
            let kind = match next_state.kind {
                NextStateKind::User => "user",
                NextStateKind::Tool => "tool",
                NextStateKind::Feedback => "feedback",
            };
            metrics::counter!("openclaw_sessions_next_states_total", "kind" => kind).increment(1);
            self.lonely.follow();
            let following = following(transcript, end, behind.as_deref());
            let is_shown = following.end.is_some() || marks.session_done || marks.states_main();
            let provisional =
                next_state.kind == NextStateKind::User && !is_shown && self.config.settle_secs > 0;
            self.untold.push(Record::NextStateSeen { turn: turn.clone(), next_state, provisional });
            if provisional {
                let kept = Provisional {
                    turn,
                    mark,
                    completed,
                    reworded,
                    rated,
                    request: Some(transcript.whole()),
                    followed: names(&following, messages, transcript),
                    answer: None,
                    since: now,
                    by_time: false,
                };
                let settled = self.provisionals.add(session, kept, self.config.max_provisional);
                self.tell_settled(settled);
            }
        }
    }

    /// The turns whose reply a request carries: those that wait, and those that something has followed.
    fn carried(
        &self,
        session: &SessionId,
        trust: Trust,
        request: &ArrivedRequest,
    ) -> (Vec<Carried>, Vec<Carried>) {
        let ArrivedRequest { messages, transcript, .. } = request;
        let waiting = self.sessions.get(session).map(|session| session.waiting.as_slice());
        let waiting = waiting.unwrap_or_default().iter().filter_map(|turn| {
            let Waiting { mark, completed, .. } = self.waiting.get(turn)?;
            Some(Candidate { turn, mark, completed: *completed, is_followed: false, reworded: false })
        });
        let followed = self.provisionals.of(session).iter().map(|kept| Candidate {
            turn: &kept.turn,
            mark: &kept.mark,
            completed: kept.completed,
            is_followed: true,
            // Of a bare rating nobody has seen how its client shows the reply.
            reworded: kept.reworded || kept.request.is_none(),
        });
        let mut newest_first: Vec<Candidate<'_>> = waiting.chain(followed).collect();
        newest_first.sort_by_key(|candidate| std::cmp::Reverse(candidate.completed));
        let find = |wanted: &dyn Fn(&Candidate<'_>) -> Option<Found>| -> Vec<(bool, Carried)> {
            let carried = |candidate: &Candidate<'_>| {
                let (turn, completed) = (candidate.turn.clone(), candidate.completed);
                Some((
                    candidate.is_followed,
                    Carried { turn, completed, found: wanted(candidate)?, reworded: false },
                ))
            };
            newest_first.iter().filter_map(carried).collect()
        };
        let mut found = find(&|candidate| candidate.mark.kept_in(transcript, messages));
        // Of several answers to one request, the one that is there and not one that it begins with.
        let whole: Vec<usize> = found
            .iter()
            .filter(|(_, carried)| carried.found.behind.is_none())
            .map(|(_, carried)| carried.found.end)
            .collect();
        found.retain(|(_, Carried { found, .. })| found.behind.is_none() || !whole.contains(&found.end));
        // The rest trusts what the session was known by more than the history: one turn at most.
        let none_waits = |found: &[(bool, Carried)]| found.iter().all(|(is_followed, _)| *is_followed);
        let last = transcript.last_reply().map(|reply| reply.end - 1);
        let last_is_known = found.iter().any(|(_, carried)| Some(carried.found.end) == last);
        if none_waits(&found) && !last_is_known {
            let is_known = |turn: &TurnId| found.iter().any(|(_, carried)| carried.turn == *turn);
            let mut moved = find(&|candidate| match trust {
                _ if is_known(candidate.turn) => None,
                Trust::History | Trust::Tail => candidate.mark.tail_in(transcript, messages),
                // Short words are anybody's: they take nothing back.
                Trust::Name | Trust::Reply if candidate.is_followed && !candidate.mark.is_distinct() => {
                    candidate.mark.tail_in(transcript, messages)
                }
                Trust::Name | Trust::Reply => candidate.mark.moved_in(transcript, messages),
            });
            moved.truncate(1);
            found.extend(moved);
        }
        if trust == Trust::Name && none_waits(&found) {
            // Another reply to the same request is none in other words.
            let is_taken = |end: usize| found.iter().any(|(_, carried)| carried.found.end == end);
            let mut reworded = find(&|candidate| match candidate.is_followed && !candidate.reworded {
                true => None,
                false => candidate.mark.reworded_in(transcript).filter(|found| !is_taken(found.end)),
            });
            reworded.truncate(1);
            found.extend(
                reworded.into_iter().map(|(is, carried)| (is, Carried { reworded: true, ..carried })),
            );
        }
        let (followed, waiting): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(is_followed, _)| *is_followed);
        let plain = |found: Vec<(bool, Carried)>| found.into_iter().map(|(_, carried)| carried).collect();
        (plain(waiting), plain(followed))
    }

    /// What a request shows of a next state. A turn that it takes it from waits again, and is returned.
    fn review(&mut self, session: &SessionId, carried: Carried, request: &ArrivedRequest) -> Option<Carried> {
        let ArrivedRequest { marks, messages, transcript, .. } = request;
        let Found { end, behind } = &carried.found;
        let kept = self.provisionals.of(session).iter().find(|kept| kept.turn == carried.turn)?;
        let following = following(transcript, *end, behind.as_deref());
        let answer = following.end.map(|at| transcript.entries[at].hash);
        match kept.shown_by(&names(&following, messages, transcript), answer) {
            Shown::Nothing => None,
            // The rating has counted.
            Shown::Explained if kept.by_time => None,
            Shown::Kept => {
                self.confirm(session, &carried.turn);
                None
            }
            // A batch may have it by now: it could not wait for other words.
            // A rating stands without words that may not be learnt from.
            Shown::Replaced | Shown::Explained
                if (kept.by_time || kept.request.is_none())
                    && (marks.no_train || self.holds_withheld(session, transcript, end + 1)) =>
            {
                None
            }
            Shown::Replaced | Shown::Explained => {
                let kept = self.provisionals.remove(session, &carried.turn)?;
                self.undo(&kept.turn, kept.rated);
                if let Some(request) = kept.request {
                    metrics::counter!("openclaw_sessions_side_requests_found_total").increment(1);
                    self.drop_side_request(session, request);
                }
                self.wait_again(session, kept);
                Some(carried)
            }
        }
    }

    /// The next state of a turn is part of the conversation.
    fn confirm(&mut self, session: &SessionId, turn: &TurnId) {
        if let Some(kept) = self.provisionals.remove(session, turn).filter(|kept| !kept.by_time) {
            self.tell_settled([kept.turn]);
        }
    }

    pub(super) fn tell_settled(&mut self, turns: impl IntoIterator<Item = TurnId>) {
        self.untold.extend(turns.into_iter().map(|turn| Record::NextStateSettled { turn }));
    }

    /// What a side request was answered is never learnt from, whether it was answered already or is yet to be.
    fn drop_side_request(&mut self, session: &SessionId, request: u64) {
        let Some(known) = self.sessions.touch(session) else { return };
        known.side_requests.push_back(request);
        if known.side_requests.len() > self.config.max_provisional.max(1) {
            known.side_requests.pop_front();
        }
        // It was no turn of the conversation: the next one has its number.
        if known.last_request == Some(request) {
            known.main_turns = known.main_turns.saturating_sub(1);
        }
        let answers =
            |turn: &&TurnId| self.waiting.get(*turn).is_some_and(|waiting| waiting.mark.request() == request);
        let answers: Vec<TurnId> = known.waiting.iter().filter(answers).cloned().collect();
        for turn in answers {
            self.take(&turn);
            self.untold.push(Record::TurnDropped { turn, reason: "side_request" });
        }
    }

    fn wait_again(&mut self, session: &SessionId, kept: Provisional) {
        let Provisional { turn, mark, completed, rated, .. } = kept;
        self.settled.remove(&turn);
        if let Some(known) = self.sessions.touch(session) {
            let is_later =
                |other: &TurnId| self.waiting.get(other).is_some_and(|waiting| waiting.completed > completed);
            let at = known.waiting.iter().position(is_later).unwrap_or(known.waiting.len());
            known.waiting.insert(at, turn.clone());
        }
        self.waiting.insert(turn, Waiting { session: session.clone(), mark, completed, rated });
    }

    /// Whether a history holds words, behind its first `after` entries, that came with `X-No-Train`.
    pub(super) fn holds_withheld(&self, session: &SessionId, transcript: &Transcript, after: usize) -> bool {
        self.sessions.get(session).is_some_and(|session| session.withheld.in_history(transcript, after))
    }

    /// The session whose history is the longest prefix of this one; else the one whose last reply this one carries.
    pub(super) fn recognise(&self, transcript: &Transcript, retry: bool) -> Option<(SessionId, Trust)> {
        let length = transcript.entries.len();
        for known in (1..=length).rev() {
            let history = transcript.chain[known];
            let ends_with_reply = transcript.entries[known - 1].author == Author::Assistant;
            if ends_with_reply && let Some(session) = self.owner(history) {
                return Some((session, Trust::History));
            }
            let Some(session) = self.owner(request_key(history)) else { continue };
            let goes_on = transcript.entries.get(known).is_some_and(|next| next.author == Author::Assistant);
            // The same request again is a retry if it says so or goes on from a reply; else it is someone new.
            let repeated = known == length
                && self.sessions.get(&session).is_some_and(|session| session.last_request == Some(history));
            let begun = transcript.entries.iter().any(|entry| entry.author == Author::Assistant);
            if goes_on || repeated && (retry || begun) {
                return Some((session, Trust::History));
            }
        }
        let reply = transcript.last_reply()?;
        let (hash, before) = (transcript.entries[reply.end - 1].hash, transcript.before(reply.start));
        for (key, trust) in
            [(tail_key(before, hash), Trust::Tail), (reply_key(transcript.chain[0], hash), Trust::Reply)]
        {
            match self.by_history.sole(key) {
                Owners::None => {}
                Owners::One(session) => return Some((session.clone(), trust)),
                Owners::Many => {
                    metrics::counter!("openclaw_sessions_ambiguous_total").increment(1);
                    return None;
                }
            }
        }
        None
    }

    /// Of the sessions that have this history, the first whose turn waits to be followed; they said the same.
    fn owner(&self, history: u64) -> Option<SessionId> {
        let owners = self.by_history.owners(history);
        let waits = |session: &&SessionId| {
            let waiting = self.sessions.get(session).map(|session| session.waiting.as_slice());
            let turns = waiting.unwrap_or_default().iter().filter_map(|id| self.waiting.get(id));
            turns.into_iter().any(|turn| turn.mark.answered() == history)
        };
        owners.iter().find(waits).or(owners.last()).cloned()
    }
}
