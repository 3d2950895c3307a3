//! TensorBoard event files: scalars only.
//!
//! A file is a sequence of records: length (u64), masked CRC-32C of the length,
//! payload, masked CRC-32C of the payload, all little-endian (TensorFlow,
//! `core/lib/io/record_writer.cc`, format confirmed by its reader). The payload
//! is an `Event` protocol buffer with fields `wall_time` (1, double), `step`
//! (2, varint), `file_version` (3, string) and `summary` (5), whose values carry
//! `tag` (1, string) and `simple_value` (2, float).

use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Appends scalars to an event file.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
}

impl EventWriter {
    /// Opens or creates the file; a new one starts with its version record.
    ///
    /// # Errors
    /// When the file cannot be opened or written.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let is_new = !path.exists();
        let file = File::options().create(true).append(true).open(path)?;
        let mut writer = Self { file };
        if is_new {
            let mut event = Vec::new();
            put_f64(&mut event, 1, 0.0);
            put_bytes(&mut event, 3, b"brain.Event:2");
            writer.record(&event)?;
        }
        Ok(writer)
    }

    /// Appends one record with the scalars of a step.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn scalars(
        &mut self,
        step: u64,
        wall_time_s: f64,
        values: &[(String, f64)],
    ) -> std::io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, tag.as_bytes());
            put_key(&mut entry, 2, 5);
            entry.extend_from_slice(&(*value as f32).to_le_bytes());
            put_bytes(&mut summary, 1, &entry);
        }
        let mut event = Vec::new();
        put_f64(&mut event, 1, wall_time_s);
        put_key(&mut event, 2, 0);
        put_varint(&mut event, step);
        put_bytes(&mut event, 5, &summary);
        self.record(&event)
    }

    fn record(&mut self, payload: &[u8]) -> std::io::Result<()> {
        let length = (payload.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(payload.len() + 16);
        record.extend_from_slice(&length);
        record.extend_from_slice(&masked_crc(&length).to_le_bytes());
        record.extend_from_slice(payload);
        record.extend_from_slice(&masked_crc(payload).to_le_bytes());
        self.file.write_all(&record)
    }
}

fn masked_crc(bytes: &[u8]) -> u32 {
    let crc = crc32c::crc32c(bytes);
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    put_varint(out, field << 3 | wire_type);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_key(out, field, 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_f64(out: &mut Vec<u8>, field: u64, value: f64) {
    put_key(out, field, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_framed_by_their_length_and_checksums() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("events.out.tfevents.0.test");
        let mut writer = EventWriter::open(&path).expect("open");
        writer.scalars(300, 1.5, &[("loss".into(), 0.25)]).expect("write");
        let bytes = std::fs::read(&path).expect("read");
        let mut at = 0;
        let mut payloads = Vec::new();
        while at < bytes.len() {
            let length =
                u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes")) as usize;
            let check = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().expect("4 bytes"));
            assert_eq!(check, masked_crc(&bytes[at..at + 8]));
            payloads.push(bytes[at + 12..at + 12 + length].to_vec());
            at += 16 + length;
        }
        assert_eq!(payloads.len(), 2);
        assert!(payloads[0].ends_with(b"brain.Event:2"));
        // Step 300 is the varint ac 02 after key 0x10; the value 0.25 closes the record.
        assert_eq!(&payloads[1][9..12], &[0x10, 0xac, 0x02]);
        assert!(payloads[1].ends_with(&0.25f32.to_le_bytes()));
    }

    #[test]
    fn checksum_of_the_published_test_vector() {
        // CRC-32C of 32 zero bytes is 0x8a9136aa (RFC 3720, B.4).
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(masked_crc(&[0; 32]), 0x8a91_36aau32.rotate_right(15).wrapping_add(0xa282_ead8));
    }
}
