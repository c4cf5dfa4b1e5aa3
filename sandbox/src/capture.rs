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

/// Finds the lines that end a step of a shell, however the bytes come.
#[derive(Debug)]
pub(crate) struct Until {
    mark: Vec<u8>,
    /// Of what comes before the first mark.
    capture: Capture,
    /// May be the start of a mark; or what follows one, up to the end of its line.
    held: Vec<u8>,
    in_mark: bool,
    /// What follows each mark.
    lines: Vec<Vec<u8>>,
}

impl Until {
    pub(crate) fn new(mark: Vec<u8>, limit: usize) -> Self {
        let capture = Capture::new(limit);
        Self { mark, capture, held: Vec::new(), in_mark: false, lines: Vec::new() }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        loop {
            if self.in_mark {
                let Some(end) = self.held.iter().position(|byte| *byte == b'\n') else { return };
                self.lines.push(self.held.drain(..=end).take(end).collect());
                self.in_mark = false;
            }
            let found = find(&self.held, &self.mark);
            let before = found.unwrap_or(self.held.len().saturating_sub(self.mark.len() - 1));
            if self.lines.is_empty() {
                self.capture.push(&self.held[..before]);
            }
            self.held.drain(..before + found.map_or(0, |_| self.mark.len()));
            if found.is_none() {
                return;
            }
            self.in_mark = true;
        }
    }

    /// What stands in the lines of the marks.
    pub(crate) fn lines(&self) -> &[Vec<u8>] {
        &self.lines
    }

    pub(crate) fn finish(mut self) -> Output {
        if self.lines.is_empty() && !self.in_mark {
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
    fn marks_are_found_however_the_bytes_come() {
        for chunk in 1..20 {
            let mut until = Until::new(b"\nMARK ".to_vec(), 100);
            b"one\nMAR\n\nMARK 7 a\nlater\n\nMARK 8 b\nc\nMARK 9"
                .chunks(chunk)
                .for_each(|part| until.push(part));
            assert_eq!(until.lines(), [b"7 a", b"8 b"]);
            assert_eq!(until.finish().head, b"one\nMAR\n");
        }
    }
}
