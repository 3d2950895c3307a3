//! The bytes of a file: mapped from disk, or owned (in tests and fuzzing).

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Read-only bytes of a whole file.
///
/// A mapped file costs no memory until it is touched. If another process shortens
/// it while it is mapped, the operating system may stop this process: replace
/// model files by renaming (as this crate does), never by writing into them.
#[derive(Debug)]
pub struct FileBytes(Storage);

#[derive(Debug)]
enum Storage {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl FileBytes {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// When it does not exist, is a folder, or cannot be mapped.
    pub fn map(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|cause| Error::io("open", path, &cause))?;
        let about = file.metadata().map_err(|cause| Error::io("read", path, &cause))?;
        if !about.is_file() {
            return Err(Error::malformed("this is not a regular file").in_file(path));
        }
        // An empty file cannot be mapped; every parser rejects it by its length.
        if about.len() == 0 {
            return Ok(Self(Storage::Owned(Vec::new())));
        }
        map_read_only(&file)
            .map(|map| Self(Storage::Mapped(map)))
            .map_err(|cause| Error::io("map", path, &cause))
    }

    /// Bytes already in memory.
    pub fn owned(bytes: Vec<u8>) -> Self {
        Self(Storage::Owned(bytes))
    }

    /// All bytes of the file.
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Storage::Mapped(map) => map,
            Storage::Owned(bytes) => bytes,
        }
    }
}

#[expect(unsafe_code, reason = "mapping weights instead of copying them needs this one call")]
fn map_read_only(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is read-only and private to this type. The one thing that
    // cannot be ruled out here, that another process writes into the file while
    // it is mapped, is documented on `FileBytes`; values are only ever read as
    // plain bytes, for which every bit pattern is valid.
    unsafe { Mmap::map(file) }
}
