//! Reading little-endian values from bytes, never past their end.

use crate::error::{Error, Result};

/// A position in a slice of bytes.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Bytes already read.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Bytes not yet read.
    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// The next `len` bytes; `what` is named when there are fewer.
    pub(super) fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8]> {
        if len > self.remaining() {
            return Err(Error::malformed(format!(
                "the file is truncated: {what} at byte {} needs {len} bytes, {} are left",
                self.position,
                self.remaining()
            )));
        }
        let start = self.position;
        self.position += len;
        Ok(&self.bytes[start..self.position])
    }

    /// The next `N` bytes as an array.
    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of items that each take at least `min_bytes`: refused when it
    /// passes `limit` or when so many items cannot fit in what is left.
    pub(super) fn count(&mut self, what: &str, limit: u64, min_bytes: usize) -> Result<usize> {
        let count = self.u64(what)?;
        self.check_count(count, what, limit, min_bytes)
    }

    /// The checks of [`Cursor::count`] for a count already read.
    pub(super) fn check_count(
        &self,
        count: u64,
        what: &str,
        limit: u64,
        min_bytes: usize,
    ) -> Result<usize> {
        if count > limit {
            return Err(Error::limit(what, count, limit));
        }
        let fits = (self.remaining() / min_bytes.max(1)) as u64;
        if count > fits {
            return Err(Error::malformed(format!(
                "the file is truncated: {what} is {count}, but only {} bytes are left",
                self.remaining()
            )));
        }
        usize::try_from(count).map_err(|_| Error::limit(what, count, usize::MAX as u64))
    }

    /// A string with its `u64` length in front, at most `limit` bytes long.
    pub(super) fn string(&mut self, what: &str, limit: u64) -> Result<String> {
        let start = self.position;
        let len = self.count(what, limit, 1)?;
        let bytes = self.take(len, what)?;
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Error::malformed(format!("{what} at byte {start} is not valid UTF-8")))?;
        Ok(text.to_owned())
    }
}
