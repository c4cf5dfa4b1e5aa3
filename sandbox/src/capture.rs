//! Keeps the first and the last part of an output without end.

use std::collections::VecDeque;

use crate::Output;

/// Keeps the first and the last half of `limit` bytes.
#[derive(Debug)]
pub(crate) struct Capture {
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl Capture {
    pub(crate) fn new(limit: usize) -> Self {
        Self { half: limit.div_ceil(2), head: Vec::new(), tail: VecDeque::new(), dropped: 0 }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let (first, rest) = bytes.split_at(bytes.len().min(self.half - self.head.len()));
        self.head.extend_from_slice(first);
        // What cannot stay in the tail anyhow never enters it.
        let (over, last) = rest.split_at(rest.len().saturating_sub(self.half));
        let leaving = (self.tail.len() + rest.len()).saturating_sub(self.half) - over.len();
        self.tail.drain(..leaving);
        self.tail.extend(last);
        self.dropped += (over.len() + leaving) as u64;
    }

    /// Looks at no more than the first half.
    pub(crate) fn starts_with(&self, start: &[u8]) -> bool {
        self.head.starts_with(start)
    }

    pub(crate) fn finish(self) -> Output {
        let Self { mut head, tail, dropped, .. } = self;
        let tail = Vec::from(tail);
        if dropped > 0 {
            return Output { head, dropped_bytes: dropped, tail };
        }
        head.extend(tail);
        Output { head, dropped_bytes: 0, tail: Vec::new() }
    }
}

/// Finds the line that ends a step of a shell, however the bytes come.
#[derive(Debug)]
pub(crate) struct Until {
    mark: Vec<u8>,
    capture: Capture,
    /// May be the start of the mark.
    held: Vec<u8>,
    /// What follows the mark, up to the end of its line.
    found: Option<Vec<u8>>,
}

impl Until {
    pub(crate) fn new(mark: Vec<u8>, limit: usize) -> Self {
        Self { mark, capture: Capture::new(limit), held: Vec::new(), found: None }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if let Some(rest) = &mut self.found {
            rest.extend_from_slice(bytes);
            return;
        }
        self.held.extend_from_slice(bytes);
        if let Some(at) = find(&self.held, &self.mark) {
            self.capture.push(&self.held[..at]);
            self.found = Some(self.held.split_off(at + self.mark.len()));
            return;
        }
        let sure = self.held.len().saturating_sub(self.mark.len() - 1);
        self.capture.push(&self.held[..sure]);
        self.held.drain(..sure);
    }

    /// What stands in the line of the mark, once all of it is here.
    pub(crate) fn line(&self) -> Option<&[u8]> {
        let rest = self.found.as_ref()?;
        rest.iter().position(|byte| *byte == b'\n').map(|end| &rest[..end])
    }

    pub(crate) fn finish(mut self) -> Output {
        if self.found.is_none() {
            self.capture.push(&self.held);
        }
        self.capture.finish()
    }
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_kept_or_counted() {
        for limit in [0, 1, 7, 64] {
            for chunk in [1, 3, 50, 1000] {
                for total in [0, 6, 7, 8, 63, 64, 65, 1000] {
                    let bytes: Vec<u8> = (0..total).map(|n| n as u8).collect();
                    let mut capture = Capture::new(limit);
                    bytes.chunks(chunk).for_each(|part| capture.push(part));
                    let output = capture.finish();
                    let kept = output.head.len() + output.tail.len();
                    assert_eq!(kept as u64 + output.dropped_bytes, total as u64);
                    assert!(bytes.starts_with(&output.head) && bytes.ends_with(&output.tail));
                    assert!(output.dropped_bytes == 0 || kept >= limit);
                }
            }
        }
    }

    #[test]
    fn the_mark_is_found_however_the_bytes_come() {
        for chunk in 1..20 {
            let mut until = Until::new(b"\nMARK ".to_vec(), 100);
            b"one\nMAR\n\nMARK 7\nlater".chunks(chunk).for_each(|part| until.push(part));
            assert_eq!(until.line(), Some(b"7".as_slice()));
            assert_eq!(until.finish().head, b"one\nMAR\n");
        }
    }
}
