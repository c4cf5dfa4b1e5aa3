//! TensorBoard's event file: records with checksums, each an event that holds a moment, a step and numbers under their
//! names.

use std::{
    io::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use prost::Message;

/// `tensorflow.Event`, as far as it is written here.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    /// The step.
    #[prost(int64, tag = "2")]
    pub step: i64,
    /// The first event of a file says this.
    #[prost(string, optional, tag = "3")]
    pub file_version: Option<String>,
    /// The others hold this.
    #[prost(message, optional, tag = "5")]
    pub summary: Option<Summary>,
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    /// The numbers.
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<Scalar>,
}

/// `tensorflow.Summary.Value` with a number.
#[derive(Clone, PartialEq, Message)]
pub struct Scalar {
    /// Its name; what stands before the first `/` is its group.
    #[prost(string, tag = "1")]
    pub tag: String,
    /// The number; one of several kinds of value, so that 0 is written, too.
    #[prost(float, optional, tag = "2")]
    pub simple_value: Option<f32>,
}

/// Writes events one after another.
pub struct EventWriter<W>(W);

impl<W: Write> EventWriter<W> {
    /// Begins a file.
    pub fn new(out: W, begun: SystemTime) -> io::Result<Self> {
        let mut writer = Self(out);
        let file_version = Some("brain.Event:2".to_owned());
        writer.record(&Event { wall_time: unix_secs(begun), file_version, ..Event::default() })?;
        Ok(writer)
    }

    /// Numbers of a step.
    pub fn scalars(&mut self, time: SystemTime, step: u64, value: Vec<Scalar>) -> io::Result<()> {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let summary = Some(Summary { value });
        self.record(&Event { wall_time: unix_secs(time), step, file_version: None, summary })
    }

    fn record(&mut self, event: &Event) -> io::Result<()> {
        let data = event.encode_to_vec();
        let length = (data.len() as u64).to_le_bytes();
        self.0.write_all(&length)?;
        self.0.write_all(&masked_crc(&length).to_le_bytes())?;
        self.0.write_all(&data)?;
        self.0.write_all(&masked_crc(&data).to_le_bytes())
    }

    /// All of it is written.
    pub fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn unix_secs(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A checksum of data that may hold checksums itself.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Reads a file back; panics where a checksum is wrong.
#[cfg(test)]
pub fn read(mut file: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while !file.is_empty() {
        let (head, rest) = file.split_at(12);
        let length = u64::from_le_bytes(head[..8].try_into().unwrap());
        assert_eq!(masked_crc(&head[..8]).to_le_bytes(), head[8..]);
        let (data, rest) = rest.split_at(length as usize);
        let (crc, rest) = rest.split_at(4);
        assert_eq!(masked_crc(data).to_le_bytes(), crc);
        events.push(Event::decode(data).unwrap());
        file = rest;
    }
    events
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Written by TensorBoard's own `EventFileWriter` (2.21): its version event, and one number.
    const THEIRS: &[u8] = include_bytes!("testdata/events.out.tfevents");

    #[test]
    fn a_file_is_to_the_byte_what_tensorboard_writes() {
        let theirs = read(THEIRS);
        let at = |event: &Event| UNIX_EPOCH + Duration::from_secs_f64(event.wall_time);
        let mut ours = Vec::new();
        let mut writer = EventWriter::new(&mut ours, at(&theirs[0])).unwrap();
        let value = theirs[1].summary.clone().unwrap().value;
        assert_eq!(value, [Scalar { tag: "train/loss".into(), simple_value: Some(0.25) }]);
        writer.scalars(at(&theirs[1]), 7, value).unwrap();
        writer.finish().unwrap();
        assert_eq!(ours, THEIRS);
        let zero = Scalar { tag: String::new(), simple_value: Some(0.0) };
        assert_eq!(zero.encode_to_vec(), [0x15, 0, 0, 0, 0], "no number is left out");
    }
}
