//! Server-sent events as they come off the wire, however their bytes are cut.

/// Reads the data of events. Other fields and comments are passed over.
#[derive(Debug, Default)]
pub struct EventStream {
    pending: Vec<u8>,
}

impl EventStream {
    /// What the lines that end within `bytes` say, in their order.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            self.pending.extend_from_slice(bytes);
            return Vec::new();
        };
        let mut lines = std::mem::replace(&mut self.pending, bytes[end + 1..].to_vec());
        lines.extend_from_slice(&bytes[..end]);
        let lines = String::from_utf8_lossy(&lines);
        let data = lines.lines().filter_map(|line| line.strip_prefix("data:"));
        data.map(|data| data.trim().to_owned()).collect()
    }

    /// Bytes of a line that has not ended yet.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_the_bytes_are_cut() {
        let text = "data: {\"a\":\"é\"}\r\n\n: keep-alive\ndata: [DONE]\n\n".as_bytes();
        for cut in 0..text.len() {
            let mut events = EventStream::default();
            let mut found = events.push(&text[..cut]);
            found.extend(events.push(&text[cut..]));
            assert_eq!(found, ["{\"a\":\"é\"}", "[DONE]"], "cut at {cut}");
        }
        let mut events = EventStream::default();
        let found: Vec<String> = text.iter().flat_map(|byte| events.push(&[*byte])).collect();
        assert_eq!((found.len(), events.pending_bytes()), (2, 0));
    }
}
