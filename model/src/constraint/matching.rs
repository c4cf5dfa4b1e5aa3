//! One response's way through its constraint. Thinking is no part of it: the constraint begins behind a thought that the
//! prompt or the response opens, and what a thought says is free.

use std::collections::VecDeque;
use std::fmt;

use llguidance::Matcher;
use toktrie::{SimpleVob, TokenId};

use super::warm::Unused;
use super::{Constraint, Inner};
use crate::output_parser::{THINK, THINK_END};
use crate::sampler::Allowed;

/// So many tokens of a prompt are enough to see whether it ends in thinking.
const TAIL_TOKENS: usize = 32;
/// Newline tokens that belong to the end of a thought.
const MAX_NEWLINES: usize = 2;

/// A constraint that cannot be followed any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the constraint failed: {0}")]
pub struct ConstraintFailed(pub(crate) String);

pub(crate) struct Matching {
    matcher: Matcher,
    constraint: Constraint,
    /// What `matcher` began as: goes back to the constraint.
    unused: Option<Unused>,
    phase: Phase,
    /// The tokens of a text that alone can follow, with which it is in no need of a mask.
    forced: VecDeque<TokenId>,
    /// The grammar's, for the next token; None where it was not asked yet.
    mask: Option<Result<SimpleVob, ConstraintFailed>>,
    /// What may be drawn.
    allowed: SimpleVob,
    /// Excluded where there is no mask.
    beyond: Vec<TokenId>,
}

/// Where the response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing was drawn: thinking may begin.
    Opening,
    /// So many bytes of `</think>` have just come.
    Thinking { come: usize },
    /// A thought has ended, and so many newline tokens came behind it.
    Thought { newlines: usize },
    /// In what is constrained.
    Constrained,
}

impl Matching {
    pub fn new(constraint: &Constraint, prompt_ids: &[TokenId]) -> Self {
        let Constraint { pristine, grammars } = constraint;
        let unused = grammars.warm.unused(pristine);
        let matcher = unused.matcher.clone();
        let tail = &prompt_ids[prompt_ids.len().saturating_sub(TAIL_TOKENS)..];
        let tail = grammars.marks.tokenizer.decode(tail, false);
        let tail = tail.trim_end();
        let phase = if tail.ends_with(THINK) {
            Phase::Thinking { come: 0 }
        } else if tail.ends_with(THINK_END) || grammars.marks.think.is_none() {
            Phase::Constrained
        } else {
            Phase::Opening
        };
        Self {
            matcher,
            constraint: constraint.clone(),
            unused: Some(unused),
            phase,
            forced: VecDeque::new(),
            mask: None,
            allowed: SimpleVob::new(),
            beyond: Vec::new(),
        }
    }

    /// Whether what may be drawn next takes a while to find out.
    pub fn is_to_look_ahead(&self) -> bool {
        self.mask.is_none() && self.forced.is_empty() && !matches!(self.phase, Phase::Thinking { .. })
    }

    /// Finds it out, which needs no logits: while the model computes them.
    pub fn look_ahead(&mut self) {
        self.force();
        if !self.forced.is_empty() {
            return;
        }
        let mask = self.matcher.compute_mask_or_eos();
        self.mask = Some(mask.map_err(|error| failure(&error)));
        if let (Some(unused), Ok(stats)) = (&mut self.unused, self.matcher.last_step_stats()) {
            unused.cost += stats.lexer_cost;
        }
    }

    /// Finds the text that alone can follow, whose tokens are then the tokenizer's.
    pub fn force(&mut self) {
        if self.forced.is_empty() && self.phase == Phase::Constrained && !self.matcher.is_stopped() {
            self.forced.extend(self.matcher.compute_ff_tokens());
        }
    }

    /// What may be drawn next. An end is drawn by one of `end_ids`, unless these are `withheld`; where it is all that can
    /// be, they are not.
    ///
    /// A thought may open where that is what the model would do anyway, by its `logits`: one that never thinks would take
    /// it for its way out of a form that it finds unlikely.
    pub fn allowed<'a>(
        &'a mut self,
        logits: &[f32],
        end_ids: &'a [TokenId],
        withheld: bool,
    ) -> Result<Allowed<'a>, ConstraintFailed> {
        if self.is_to_look_ahead() {
            self.look_ahead();
        }
        let Inner { factory, marks, .. } = &*self.constraint.grammars;
        if let Phase::Thinking { come } = self.phase {
            self.beyond.clone_from(&marks.beyond_thought[come]);
            if come > 0 {
                self.beyond.extend(&marks.beyond_thought[0]);
            }
            return Ok(Allowed { only: None, not: end_ids, nor: &self.beyond });
        }
        if let Some(&id) = self.forced.front() {
            self.allowed = factory.tok_env().tok_trie().singleton_token_set(id);
            return Ok(Allowed { only: Some(&self.allowed), ..Allowed::default() });
        }
        let mask = self.mask.as_ref().expect("just computed").as_ref();
        self.allowed.clone_from(mask.map_err(Clone::clone)?);
        let may_end = self.allowed.is_allowed(marks.end);
        self.allowed.disallow_token(marks.end);
        match self.phase {
            Phase::Opening => {
                let thinks = |id: &TokenId| {
                    let logit = logits.get(*id as usize);
                    logit.is_some_and(|logit| logits.iter().all(|other| other <= logit))
                };
                marks.think.filter(thinks).into_iter().for_each(|id| self.allowed.allow_token(id));
            }
            Phase::Thought { newlines } if newlines < MAX_NEWLINES => {
                marks.newlines.iter().for_each(|&id| self.allowed.allow_token(id));
            }
            _ => {}
        }
        if may_end && (!withheld || self.allowed.is_zero()) {
            let highest = end_ids.iter().max().map_or(0, |&id| id as usize + 1);
            if highest > self.allowed.len() {
                self.allowed.resize(highest);
            }
            end_ids.iter().for_each(|&id| self.allowed.allow_token(id));
        }
        if self.allowed.is_zero() {
            return Err(ConstraintFailed("it is complete, and the model has no end token".to_owned()));
        }
        Ok(Allowed { only: Some(&self.allowed), ..Allowed::default() })
    }

    /// Goes on by a token that is no end.
    pub fn take(&mut self, id: TokenId) -> Result<(), ConstraintFailed> {
        let marks = &self.constraint.grammars.marks;
        match self.phase {
            Phase::Opening if marks.think == Some(id) => self.phase = Phase::Thinking { come: 0 },
            Phase::Thinking { come } => self.phase = marks.thought_after(come, id),
            Phase::Thought { newlines } if newlines < MAX_NEWLINES && marks.newlines.contains(&id) => {
                self.phase = Phase::Thought { newlines: newlines + 1 };
            }
            _ => {
                self.phase = Phase::Constrained;
                self.mask = None;
                self.matcher.consume_token(id).map_err(|error| failure(&error))?;
                if self.forced.pop_front() != Some(id) {
                    self.forced.clear();
                }
            }
        }
        Ok(())
    }

    /// Nothing but the end is possible.
    pub fn is_complete(&self) -> bool {
        self.phase == Phase::Constrained && self.matcher.is_stopped() && self.matcher.stop_reason().is_ok()
    }
}

impl Drop for Matching {
    fn drop(&mut self) {
        let failed = self.matcher.is_error();
        if let Some(unused) = self.unused.take().filter(|_| !failed) {
            self.constraint.grammars.warm.keep(&self.constraint.pristine, unused);
        }
    }
}

impl super::Marks {
    /// Where a token leaves a thought.
    fn thought_after(&self, come: usize, id: TokenId) -> Phase {
        if self.think_end == Some(id) {
            return Phase::Thought { newlines: 0 };
        }
        if self.tokenizer.is_special(id) {
            return Phase::Thinking { come }; // gives no text
        }
        let mark = THINK_END.as_bytes();
        let mut come = come;
        for &byte in self.tokenizer.bytes_of(id) {
            // No proper end of `</think>` begins it, so that a byte that breaks it off can only begin it anew.
            come = if byte == mark[come] { come + 1 } else { usize::from(byte == mark[0]) };
            if come == mark.len() {
                return Phase::Thought { newlines: 0 };
            }
        }
        Phase::Thinking { come }
    }
}

impl fmt::Debug for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matching").field("phase", &self.phase).finish_non_exhaustive()
    }
}

fn failure(error: &dyn fmt::Display) -> ConstraintFailed {
    ConstraintFailed(super::in_one_line(error))
}
