//! What an agent is shown of an output.

use openclaw_sandbox::Output;

/// The start and the end of what was written, at most `limit` bytes of it; what was dropped is said in a line.
pub(crate) fn shown(output: &Output, limit: usize) -> String {
    let (head, tail) = (&output.head[..], &output.tail[..]);
    if output.dropped_bytes == 0 && head.len() <= limit {
        return String::from_utf8_lossy(head).into_owned();
    }
    let first = &head[..head.len().min(limit / 2)];
    // The head is all there is where nothing was dropped.
    let end = if output.dropped_bytes == 0 { head } else { tail };
    let last = &end[end.len() - end.len().min(limit - limit / 2)..];
    let written = head.len() as u64 + output.dropped_bytes + tail.len() as u64;
    let left_out = written - first.len() as u64 - last.len() as u64;
    let (first, last) = (String::from_utf8_lossy(first), String::from_utf8_lossy(last));
    // Of a character that was cut through nothing is shown.
    let (first, last) = (first.trim_end_matches('\u{fffd}'), last.trim_start_matches('\u{fffd}'));
    format!("{first}\n[{left_out} bytes left out]\n{last}")
}

/// The start and the end of a text, at most `limit` bytes of it.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    shown(&Output { head: text.into(), ..Output::default() }, limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_keeps_its_ends() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abc\n[1 bytes left out]\nefg");
        let output = Output { head: b"abcd".to_vec(), dropped_bytes: 90, tail: b"wxyz".to_vec() };
        assert_eq!(shown(&output, 8), "abcd\n[90 bytes left out]\nwxyz");
        assert_eq!(shown(&output, 4), "ab\n[94 bytes left out]\nyz");
        assert_eq!(shown(&output, 99), "abcd\n[90 bytes left out]\nwxyz");
        assert_eq!(cut("\u{e4}\u{e4}\u{e4}", 4), "\u{e4}\n[2 bytes left out]\n\u{e4}");
        assert_eq!(cut(&"\u{e4}".repeat(9), 6), "\u{e4}\n[12 bytes left out]\n\u{e4}");
    }
}
