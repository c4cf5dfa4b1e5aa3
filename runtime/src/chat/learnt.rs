//! What is learnt of each reply, in words: one line once it is judged, another once it is trained on or given up.
//! Pure: looks at the journal go in, lines come out.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use openclaw_journal::TurnState;
use serde::Deserialize;

use crate::operate::columns::short;

/// Characters of a hint, or of a reason, in a line.
const QUOTED_CHARS: usize = 200;

/// What the node tells of a session, as far as it is needed here.
#[derive(Clone, Debug, Deserialize)]
pub struct Look {
    /// Turns, oldest first.
    pub turns: Vec<TurnLook>,
    /// Where a further look starts; none where this was all.
    pub next: Option<u64>,
    /// Of the next step.
    pub batch: Batch,
}

/// A turn.
#[derive(Clone, Debug, Deserialize)]
pub struct TurnLook {
    /// The reply's name.
    pub turn: String,
    /// Its place in the journal.
    pub place: u64,
    next_state: Option<NextState>,
    verdict: Option<Verdict>,
    #[serde(default)]
    hints: Vec<Text>,
    fate: Option<Fate>,
    unreadable: Option<String>,
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Batch {
    ready: u64,
    of: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct NextState {
    kind: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Verdict {
    reward: Option<i8>,
    rule: Option<String>,
    votes: Vec<Vote>,
}

#[derive(Clone, Debug, Deserialize)]
struct Vote {
    vote: Option<i8>,
}

#[derive(Clone, Debug, Deserialize)]
struct Text {
    text: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Fate {
    state: TurnState,
    dead: bool,
    words: String,
    version: Option<u64>,
}

impl TurnLook {
    /// Nothing will become of it any more; what waits for its next state may still be followed.
    pub fn is_settled(&self) -> bool {
        let Some(fate) = &self.fate else { return true };
        fate.dead || fate.version.is_some() || !fate.state.is_open()
    }

    fn is_waiting(&self) -> bool {
        self.fate.as_ref().is_some_and(|fate| fate.state == TurnState::Waiting)
    }

    /// Between its verdict and its teacher, which is a matter of moments.
    fn is_between(&self) -> bool {
        !self.is_settled() && self.fate.as_ref().is_some_and(|fate| fate.state == TurnState::Judged)
    }

    fn version(&self) -> Option<u64> {
        self.fate.as_ref().and_then(|fate| fate.version)
    }

    fn reward(&self) -> Option<i8> {
        self.verdict.as_ref()?.reward
    }

    /// The verdict, the hint and, where it is to be said, what becomes of it.
    fn story(&self, outcome: Option<String>) -> String {
        let hint = self.hints.first().map(|hint| format!("hint: \"{}\"", short(&hint.text, QUOTED_CHARS)));
        let parts = [self.verdict.as_ref().map(Verdict::words), hint, outcome];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
    }

    fn outcome(&self, batch: Batch) -> String {
        let Some(Fate { state, dead, words, version }) = &self.fate else {
            let why = self.unreadable.as_deref().unwrap_or("it is not known why");
            return format!("cannot be read: {}", short(why, QUOTED_CHARS));
        };
        let words = short(words, QUOTED_CHARS);
        match (state, version) {
            _ if *dead => words,
            (_, Some(version)) => format!("trained in version {version}"),
            (TurnState::Ready, None) => format!("waits for a batch ({})", batch.words()),
            (TurnState::Dropped, None) => words.replacen("dropped", "not trained on", 1),
            _ => words,
        }
    }
}

impl Batch {
    fn words(self) -> String {
        format!("{} of {}", self.ready.min(self.of), self.of)
    }
}

impl Verdict {
    /// `bad (2 of 3 votes)`.
    fn words(&self) -> String {
        let word = match self.reward {
            Some(1..) => "good",
            Some(0) => "neither good nor bad",
            Some(_) => "bad",
            None => return "no vote could be read".to_owned(),
        };
        let why = match self.rule.as_deref() {
            Some("rating") => "as you said".to_owned(),
            Some("truncated") => "it was cut at its limit".to_owned(),
            Some("empty") => "it was empty".to_owned(),
            Some("tool_error") => "its tool failed".to_owned(),
            Some("repeat") => "it said the same again".to_owned(),
            Some(rule) => short(rule, QUOTED_CHARS),
            None if self.votes.len() == 1 => "1 vote".to_owned(),
            None => {
                let agreed = self.votes.iter().filter(|vote| vote.vote == self.reward).count();
                format!("{agreed} of {} votes", self.votes.len())
            }
        };
        format!("{word} ({why})")
    }
}

/// How much a person was told of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    Verdict,
    All,
}

#[derive(Debug)]
struct Reply {
    turn: String,
    session: String,
    number: usize,
    /// Another reply took its place.
    is_replaced: bool,
    /// It was answered or rated, which the journal may not tell yet.
    is_followed: bool,
    /// The last look found it between its verdict and its teacher.
    was_between: bool,
    told: Told,
}

/// Every reply of every session of this process, and what is known of it.
#[derive(Debug, Default)]
pub struct Learnt {
    replies: Vec<Reply>,
    turns: HashMap<String, TurnLook>,
    batch: Batch,
    session: String,
}

impl Learnt {
    /// The replies that come now are of this session.
    pub fn begin_session(&mut self, session: &str) {
        session.clone_into(&mut self.session);
    }

    /// A reply has come to its end; its number in the session. With `again` it takes the place of the one before.
    pub fn replied(&mut self, turn: &str, again: bool) -> usize {
        let last = self.replies.last_mut().filter(|reply| reply.session == self.session);
        let number = match last {
            Some(last) if again => {
                last.is_replaced = true;
                last.number
            }
            Some(last) => last.number + 1,
            None => 1,
        };
        self.replies.push(Reply {
            turn: turn.to_owned(),
            session: self.session.clone(),
            number,
            is_replaced: false,
            is_followed: false,
            was_between: false,
            told: Told::Nothing,
        });
        number
    }

    /// This reply was answered, or rated in time.
    pub fn followed(&mut self, turn: &str) {
        let replies = self.replies.iter_mut().filter(|reply| reply.turn == turn);
        replies.for_each(|reply| reply.is_followed = true);
    }

    /// Takes in a look, or that nothing has changed since the last one; what is news to a person.
    pub fn see(&mut self, look: Option<Look>) -> Vec<String> {
        if let Some(look) = look {
            self.batch = look.batch;
            self.turns.extend(look.turns.into_iter().map(|turn| (turn.turn.clone(), turn)));
        }
        let mut lines = Vec::new();
        let mut trained: BTreeMap<u64, Vec<(bool, usize)>> = BTreeMap::new();
        for reply in &mut self.replies {
            let Some(turn) = self.turns.get(&reply.turn).filter(|_| reply.told < Told::All) else { continue };
            let is_between = turn.is_between();
            let is_news = match reply.told {
                // One that nothing followed has taught nothing.
                Told::Nothing if turn.verdict.is_none() => false,
                Told::Nothing => !is_between || reply.was_between,
                Told::Verdict | Told::All => turn.is_settled(),
            };
            reply.was_between = is_between;
            if !is_news {
                continue;
            }
            let is_earlier = reply.session != self.session;
            let name = if is_earlier { "reply {n} of an earlier session" } else { "reply {n}" };
            let name = name.replace("{n}", &reply.number.to_string());
            let version = turn.version();
            let outcome = version.is_none().then(|| turn.outcome(self.batch));
            if reply.told == Told::Nothing {
                let feedback = turn.next_state.as_ref().is_some_and(|next| next.kind == "feedback");
                let what = if feedback { "rating of" } else { "answer to" };
                lines.push(format!("learnt from your {what} {name}: {}", turn.story(outcome)));
            } else if let Some(outcome) = outcome {
                lines.push(format!("{name}: {outcome}"));
            }
            if let Some(version) = version {
                trained.entry(version).or_default().push((is_earlier, reply.number));
            }
            reply.told = if turn.is_settled() { Told::All } else { Told::Verdict };
        }
        lines.extend(trained.into_iter().map(|(version, replies)| trained_line(version, &replies)));
        lines
    }

    /// Something may still be learnt of a reply that was answered or rated.
    pub fn is_under_way(&self) -> bool {
        self.replies.iter().any(|reply| self.awaits(reply))
    }

    /// The same of the replies of one session.
    pub fn is_under_way_in(&self, session: &str) -> bool {
        self.replies.iter().any(|reply| reply.session == session && self.awaits(reply))
    }

    fn awaits(&self, reply: &Reply) -> bool {
        match self.turns.get(&reply.turn) {
            Some(turn) => !turn.is_settled() && (reply.is_followed || !turn.is_waiting()),
            None => reply.is_followed,
        }
    }

    /// A line for each reply of this session, which may have ended.
    pub fn story(&self, has_ended: bool) -> Vec<String> {
        let line = |reply: &Reply| {
            let number = reply.number;
            let turn = self.turns.get(&reply.turn);
            let story = match turn.filter(|turn| turn.is_settled() || !turn.is_waiting()) {
                Some(turn) => turn.story(Some(turn.outcome(self.batch))),
                None if reply.is_followed => "not judged yet".to_owned(),
                None if has_ended || reply.is_replaced => "nothing followed it".to_owned(),
                None => turn.map_or_else(|| "not known".to_owned(), |turn| turn.outcome(self.batch)),
            };
            match reply.is_replaced {
                true => format!("reply {number}, asked again: {story}"),
                false => format!("reply {number}: {story}"),
            }
        };
        self.of_this_session().map(line).collect()
    }

    /// What this session came to; nothing where nobody said anything.
    pub fn summary(&self) -> Option<String> {
        let turns: Vec<&TurnLook> =
            self.of_this_session().filter_map(|reply| self.turns.get(&reply.turn)).collect();
        let count = |number: usize, what: &str| (number > 0).then(|| format!("{number} {what}"));
        let rewarded = |reward| turns.iter().filter(|turn| turn.reward() == Some(reward)).count();
        let hints = turns.iter().filter(|turn| !turn.hints.is_empty()).count();
        let under_way = self.of_this_session().filter(|reply| self.awaits(reply)).count();
        let versions: BTreeSet<u64> = turns.iter().filter_map(|turn| turn.version()).collect();
        let versions = listed("version", &versions.into_iter().collect::<Vec<_>>());
        let replies = self.of_this_session().filter(|reply| !reply.is_replaced).count();
        let parts = [
            count(replies, if replies == 1 { "reply" } else { "replies" }),
            count(rewarded(1), "approved"),
            count(rewarded(-1), "rejected"),
            count(hints, if hints == 1 { "hint" } else { "hints" }),
            versions.map(|versions| format!("trained in {versions}")),
            count(under_way, "still to be learnt from"),
        ];
        (replies > 0).then(|| parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }

    fn of_this_session(&self) -> impl Iterator<Item = &Reply> {
        self.replies.iter().filter(|reply| reply.session == self.session)
    }
}

/// Replies by their number, and whether they are of an earlier session.
fn trained_line(version: u64, replies: &[(bool, usize)]) -> String {
    let now: Vec<usize> = replies.iter().filter(|(earlier, _)| !earlier).map(|(_, number)| *number).collect();
    let earlier = match replies.len() - now.len() {
        0 => None,
        1 => Some("a reply of an earlier session".to_owned()),
        more => Some(format!("{more} replies of earlier sessions")),
    };
    let parts: Vec<String> = listed("reply", &now).into_iter().chain(earlier).collect();
    format!("trained in version {version}: {}", parts.join(" and "))
}

/// `version 3`, `versions 3 and 4`, `replies 1, 2 and 4`.
fn listed<N: ToString>(what: &str, numbers: &[N]) -> Option<String> {
    let many = if what == "reply" { "replies".to_owned() } else { format!("{what}s") };
    let words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    match words.as_slice() {
        [] => None,
        [one] => Some(format!("{what} {one}")),
        [first @ .., last] => Some(format!("{many} {} and {last}", first.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn turn(id: &str, state: &str, more: Value) -> Value {
        let mut turn = json!({"turn": id, "place": 1, "hints": [], "next_state": null, "verdict": null,
            "fate": {"state": state, "dead": false, "words": "dropped: it is empty", "version": null}});
        for (key, value) in more.as_object().expect("an object") {
            turn[key] = value.clone();
        }
        turn
    }

    fn look(turns: Value) -> Option<Look> {
        let look = json!({"turns": turns, "next": null, "batch": {"ready": 5, "of": 8}});
        Some(serde_json::from_value(look).expect("a look"))
    }

    fn judged(reward: i8) -> Value {
        json!({"verdict": {"reward": reward, "rule": null, "votes": [{"vote": reward}, {"vote": 1}, {"vote": null}]},
               "next_state": {"kind": "user"}, "hints": [{"text": "answer in\none \u{1b}[2Jsentence"}]})
    }

    fn trained(id: &str, version: u64, more: &Value) -> Value {
        let mut turn = turn(id, "trained", more.clone());
        turn["fate"]["version"] = json!(version);
        turn
    }

    #[test]
    fn a_verdict_is_told_once_and_what_came_of_it_once() {
        let mut learnt = Learnt::default();
        learnt.replied("a", false);
        assert_eq!(learnt.see(look(json!([turn("a", "waiting", json!({}))]))), [""; 0]);
        assert_eq!(learnt.see(look(json!([turn("a", "followed", json!({}))]))), [""; 0]);
        assert!(learnt.is_under_way());
        let ready = json!([turn("a", "ready", judged(-1))]);
        let told = "learnt from your answer to reply 1: bad (1 of 3 votes) \
                    · hint: \"answer in one �[2Jsentence\" · waits for a batch (5 of 8)";
        assert_eq!(learnt.see(look(ready.clone())), [told]);
        assert_eq!(learnt.see(look(ready)), [""; 0]);
        assert_eq!(
            learnt.see(look(json!([trained("a", 12, &judged(-1))]))),
            ["trained in version 12: reply 1"]
        );
        assert_eq!(learnt.see(None), [""; 0]);
        assert!(!learnt.is_under_way());
    }

    #[test]
    fn moments_between_judge_and_teacher_are_not_told_but_a_long_wait_is() {
        let mut learnt = Learnt::default();
        learnt.replied("a", false);
        assert_eq!(learnt.see(look(json!([turn("a", "judged", judged(1))]))), [""; 0]);
        let told = learnt.see(None);
        assert!(told[0].starts_with("learnt from your answer to reply 1: good"), "{told:?}");
    }

    #[test]
    fn a_step_is_one_line_however_many_replies_it_took() {
        let mut learnt = Learnt::default();
        let ids = ["a", "b", "c", "d"];
        let ready = ids.map(|id| turn(id, "ready", judged(-1)));
        learnt.replied("a", false);
        learnt.begin_session("s");
        for id in &ids[1..] {
            learnt.replied(id, false);
        }
        assert_eq!(learnt.see(look(json!(ready))).len(), 4);
        let told = learnt.see(look(json!(ids.map(|id| trained(id, 2, &judged(-1))))));
        assert_eq!(told, ["trained in version 2: replies 1, 2 and 3 and a reply of an earlier session"]);
        learnt.replied("e", false);
        let told = learnt.see(look(json!([trained("e", 3, &judged(0))])));
        let verdict = "learnt from your answer to reply 4: neither good nor bad (1 of 3 votes) · hint";
        assert!(told[0].starts_with(verdict) && !told[0].contains("trained"), "{told:?}");
        assert_eq!(told[1..], ["trained in version 3: reply 4"]);
    }

    #[test]
    fn what_is_not_trained_on_says_why() {
        let mut learnt = Learnt::default();
        learnt.replied("a", false);
        let unread = json!({"verdict": {"reward": null, "rule": null, "votes": [{"vote": null}]}});
        let told = learnt.see(look(json!([turn("a", "dropped", unread)])));
        let expected =
            "learnt from your answer to reply 1: no vote could be read · not trained on: it is empty";
        assert_eq!(told, [expected]);
    }

    #[test]
    fn what_was_answered_or_rated_is_under_way_before_the_journal_tells_it() {
        let mut learnt = Learnt::default();
        learnt.begin_session("first");
        learnt.replied("a", false);
        learnt.replied("b", false);
        assert!(!learnt.is_under_way());
        assert_eq!(learnt.story(true), ["reply 1: nothing followed it", "reply 2: nothing followed it"]);
        learnt.followed("a");
        assert!(learnt.is_under_way(), "no look has come");
        let waiting = json!([turn("a", "waiting", json!({})), turn("b", "waiting", json!({}))]);
        learnt.see(look(waiting));
        assert!(learnt.is_under_way(), "the look is older than the answer");
        assert_eq!(learnt.story(true), ["reply 1: not judged yet", "reply 2: nothing followed it"]);
        assert_eq!(learnt.summary().as_deref(), Some("2 replies, 1 still to be learnt from"));
        learnt.begin_session("second");
        learnt.replied("c", false);
        assert!(learnt.is_under_way_in("first") && !learnt.is_under_way_in("second"));
        learnt.see(look(json!([trained("a", 1, &judged(1))])));
        assert!(!learnt.is_under_way());
    }

    #[test]
    fn a_session_is_summed_up() {
        let mut learnt = Learnt::default();
        assert_eq!(learnt.summary(), None);
        learnt.replied("elsewhere", false);
        learnt.begin_session("s");
        assert_eq!(learnt.replied("a", false), 1);
        assert_eq!(learnt.replied("b", true), 1);
        assert_eq!(learnt.replied("c", false), 2);
        assert_eq!(learnt.summary().as_deref(), Some("2 replies"), "nothing is known yet");
        let rated = json!({"verdict": {"reward": 1, "rule": "rating", "votes": []}, "next_state": {"kind": "feedback"}});
        let told = learnt.see(look(json!([
            turn("a", "waiting", json!({})),
            trained("b", 3, &judged(-1)),
            turn("c", "ready", rated),
        ])));
        let rating = "learnt from your rating of reply 2: good (as you said) · waits for a batch (5 of 8)";
        assert_eq!(told[1], rating);
        let summary =
            "2 replies, 1 approved, 1 rejected, 1 hint, trained in version 3, 1 still to be learnt from";
        assert_eq!(learnt.summary().as_deref(), Some(summary));
        let story = learnt.story(false);
        assert_eq!(story[0], "reply 1, asked again: nothing followed it");
        assert!(
            story[1].ends_with("trained in version 3") && story[2].starts_with("reply 2: good"),
            "{story:?}"
        );
    }
}
