//! Scores the response's own tokens once as the policy sees them and once under the prompt with the hint.
//!
//! The response ids are appended to the ids of each prompt, so both score the same tokens, from the first to the
//! last, by the same code and at the temperature they were drawn at. The first token counts most: it is where a
//! style is chosen. Nothing is padded: a signal that does not cover the response exactly is dropped and counted.

use std::time::{Duration, Instant};

use openclaw_journal::{
    Candidates, Journal, JournalError, Judged, Record, Recorded, Sample, TeacherSignal, Turn, fault,
    inbox::Lease,
};
use openclaw_model::{ScoreRequest, Scored};
use serde_json::Value;
use tokio::time::timeout;
use tracing::{Span, debug_span, field::Empty, warn};

use crate::{
    conversation,
    engine::{Engine, EngineError},
    hints::overlap,
    methods::{MethodConfig, check_alignment},
    prompts,
    worker::{Work, patience},
};

mod check;

/// Ids per token that decide between hints (published).
const OVERLAP_TOP_K: usize = 4;
/// The longest hint that a teacher is shown.
pub const MOST_HINT_CHARS: usize = 1000;

/// What a teacher reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TeacherConfig {
    /// How many of the student's most likely ids per token.
    pub student_top_k: usize,
    /// How many of its own.
    pub teacher_top_k: usize,
    /// A turn that takes longer is late: it uses up an attempt, and has twice the time at the next.
    pub deadline: Duration,
    /// A hint that changes nothing, or takes the place of an answer, is not distilled.
    pub hint_check: bool,
}

impl TeacherConfig {
    /// What `method` needs.
    pub fn for_method(method: &MethodConfig, deadline: Duration) -> Self {
        let (student_top_k, teacher_top_k) = (method.student_top_k(), method.teacher_top_k());
        Self { student_top_k, teacher_top_k, deadline, hint_check: false }
    }
}

/// The work of `teacher.N`.
pub struct Teacher {
    /// What it reports.
    pub config: TeacherConfig,
    /// The policy as it serves now.
    pub student: Engine,
    /// The base version.
    pub teacher: Engine,
    /// Where its signals are recorded.
    pub journal: Journal,
}

impl Work for Teacher {
    type Message = Judged;
    const ROLE: &'static str = "teacher";

    fn span(message: &Judged) -> Span {
        debug_span!("teach", turn = %message.turn.id, hints = message.hints.len(), tokens = Empty)
    }

    async fn handle(&self, lease: Lease<Judged>) {
        fault::point("teacher.before");
        let started = Instant::now();
        let deadline = patience(self.config.deadline, lease.attempt());
        let signal = match timeout(deadline, self.signal(&lease.turn, &lease.hints)).await {
            Ok(Ok(signal)) => signal,
            Ok(Err(error)) => {
                warn!(turn = %lease.turn.id, attempt = lease.attempt(), %error, "not scored");
                return match error {
                    EngineError::Refused { .. } | EngineError::Prompt { .. } => lease.fail(),
                    EngineError::Ended { .. } | EngineError::Start { .. } | EngineError::Remote { .. } => {
                        lease.postpone()
                    }
                };
            }
            Err(_) => {
                warn!(turn = %lease.turn.id, attempt = lease.attempt(), ?deadline, "not scored in time");
                // An engine that is away is no fault of the turn.
                if !(self.student.status().up && self.teacher.status().up) {
                    return lease.postpone();
                }
                return lease.fail_for(format!(
                    "slow: not scored within {} s; raise `actors.teacher.deadline_secs`",
                    deadline.as_secs_f32()
                ));
            }
        };
        metrics::histogram!("openclaw_teacher_signal_seconds").record(started.elapsed());
        match self.record(&lease, signal).await {
            Ok(_) => {
                fault::point("teacher.after");
                lease.ack();
            }
            Err(error) => {
                warn!(turn = %lease.turn.id, %error, "a signal was not recorded");
                lease.postpone();
            }
        }
    }
}

impl Teacher {
    async fn record(
        &self,
        judged: &Judged,
        teacher: Option<TeacherSignal>,
    ) -> Result<Recorded, JournalError> {
        let turn = judged.turn.id.clone();
        let verdict = judged.verdict.clone();
        let sample = Sample { turn: judged.turn.clone(), verdict, teacher, standing: None };
        if let Err(error) = check_alignment(&sample) {
            warn!(%turn, %error, "sample dropped");
            return self.journal.record(Record::TurnDropped { turn, reason: "misaligned" }).await;
        }
        let gap = metrics::histogram!("openclaw_teacher_gap_nats");
        if let Some(signal) = &sample.teacher {
            Span::current().record("tokens", signal.logprobs.len());
            let pairs = signal.logprobs.iter().zip(&signal.old_logprobs);
            pairs.for_each(|(teacher, student)| gap.record(f64::from(teacher - student)));
        }
        self.journal.record(Record::Taught { turn, undone: judged.undone, signal: sample.teacher }).await
    }

    /// `None` when no hinted prompt fits the context: the verdict alone remains.
    async fn signal(&self, turn: &Turn, hints: &[String]) -> Result<Option<TeacherSignal>, EngineError> {
        let completion = &turn.completion;
        let overlap_k = if hints.len() > 1 { OVERLAP_TOP_K } else { 0 };
        let plain = |top_k, candidates| {
            let (ids, start) = with_response(turn, &completion.prompt_ids);
            let temperature = completion.trained_temperature();
            ScoreRequest { ids, start, temperature, top_k, candidates, asked_again: false }
        };
        // The teacher's own ids are asked of the student, too, once they are known.
        let top_k = self.config.student_top_k.max(overlap_k);
        let asked_again = self.config.teacher_top_k > 0;
        let student = self.student.score(ScoreRequest { asked_again, ..plain(top_k, Vec::new()) }).await?;
        let student_ids = ids_of(&student.top, self.config.student_top_k);

        let mut tried: Vec<(usize, &String, Scored)> = Vec::with_capacity(hints.len());
        for hint in hints {
            let (ids, start) = with_response(turn, &self.hinted_prompt(turn, hint)?);
            if ids.len() > self.teacher.text().context_tokens {
                metrics::counter!("openclaw_teacher_hints_dropped_total", "reason" => "context").increment(1);
                continue;
            }
            let request = ScoreRequest {
                ids,
                start,
                temperature: completion.trained_temperature(),
                top_k: self.config.teacher_top_k.max(overlap_k),
                candidates: student_ids.clone(),
                asked_again: false,
            };
            let scored = self.teacher.score(request).await?;
            tried.push((overlap(&student.top, &scored.top, overlap_k), hint, scored));
        }
        // The first of equals.
        tried.sort_by_key(|(overlap, ..)| std::cmp::Reverse(*overlap));
        if self.config.hint_check && !tried.is_empty() {
            // A trainer that stays near the base asks the same.
            let unhinted = ScoreRequest { asked_again: true, ..plain(0, student_ids.clone()) };
            let unhinted = self.teacher.score(unhinted).await?;
            tried = self.checked(turn, &unhinted, tried).await;
        }
        let Some((shared, hint, taught)) = tried.into_iter().next() else { return Ok(None) };
        if overlap_k > 0 {
            let most = (overlap_k * completion.response_ids.len()).max(1);
            metrics::histogram!("openclaw_teacher_hint_overlap_ratio").record(shared as f64 / most as f64);
        }

        let teacher_ids = ids_of(&taught.top, self.config.teacher_top_k);
        let student_of_teacher = if teacher_ids.is_empty() {
            Vec::new()
        } else {
            self.student.score(plain(0, teacher_ids)).await?.candidates
        };
        let student_top = beside(&student.top, self.config.student_top_k, &taught.candidates)
            .map(|(ids, old_logprobs, teacher_logprobs)| Candidates { ids, old_logprobs, teacher_logprobs });
        let teacher_top = beside(&taught.top, self.config.teacher_top_k, &student_of_teacher)
            .map(|(ids, teacher_logprobs, old_logprobs)| Candidates { ids, old_logprobs, teacher_logprobs });
        Ok(Some(TeacherSignal {
            hint: hint.clone(),
            student_top: student_top.collect(),
            teacher_top: teacher_top.collect(),
            logprobs: taught.logprobs,
            old_logprobs: student.logprobs,
        }))
    }

    fn hinted_prompt(&self, turn: &Turn, hint: &str) -> Result<Vec<u32>, EngineError> {
        let messages = hinted_messages(&turn.messages, hint);
        self.teacher.prompt_ids(&messages, &turn.tools, &turn.template_kwargs)
    }
}

/// The prompt followed by the response's own ids, and where the response starts.
fn with_response(turn: &Turn, prompt_ids: &[u32]) -> (Vec<u32>, usize) {
    ([prompt_ids, &turn.completion.response_ids].concat(), prompt_ids.len())
}

/// The hint stands at the end of the message that the policy was answering, fenced: it was drawn from text that
/// came from outside.
fn hinted_messages(messages: &[Value], hint: &str) -> Vec<Value> {
    let mut messages = messages.to_vec();
    let hint = prompts::fence(hint, MOST_HINT_CHARS);
    match conversation::task_position(&messages) {
        Some(task) => {
            let text = messages[task]["content"].as_str().unwrap_or_default();
            messages[task]["content"] = prompts::with_hint(text, &hint).into();
        }
        None => messages.push(serde_json::json!({"role": "user", "content": prompts::with_hint("", &hint)})),
    }
    messages
}

fn ids_of(top: &[Vec<(u32, f32)>], most: usize) -> Vec<Vec<u32>> {
    if most == 0 {
        return Vec::new();
    }
    top.iter().map(|row| row.iter().take(most).map(|(id, _)| *id).collect()).collect()
}

/// Row by row: up to `most` ids, their log-probs, and what the other side says of them.
fn beside<'a>(
    top: &'a [Vec<(u32, f32)>],
    most: usize,
    other: &'a [Vec<f32>],
) -> impl Iterator<Item = (Vec<u32>, Vec<f32>, Vec<f32>)> + 'a {
    let rows = if most == 0 { 0 } else { top.len() };
    top.iter().zip(other).take(rows).map(move |(row, other)| {
        let (ids, own) = row.iter().take(most).copied().unzip();
        (ids, own, other.clone())
    })
}

#[cfg(test)]
mod tests;
