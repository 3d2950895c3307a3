//! Writing a file so that a crash at any instant leaves the old one or the new one.
//!
//! The new content goes to a file beside the target, is synced, and is renamed
//! over it; then the folder is synced, so that the rename itself survives.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

const BUFFER_BYTES: usize = 1 << 20;

/// A file under way: invisible under its final name until [`AtomicFile::commit`].
///
/// Dropping it without a commit removes what was written.
#[derive(Debug)]
pub struct AtomicFile {
    target: PathBuf,
    writer: BufWriter<NamedTempFile>,
}

impl AtomicFile {
    /// Starts a file that will become `target`, whose folder must exist.
    ///
    /// # Errors
    /// When nothing can be created in that folder.
    pub fn create(target: &Path) -> Result<Self> {
        let name = target.file_name().ok_or_else(|| {
            Error::malformed(format!("{} does not end in a file name", target.display()))
        })?;
        let prefix = format!(".{}.", name.to_string_lossy());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".partial");
        // A temporary file is private by default; this one becomes an ordinary
        // file, so it gets the ordinary permissions that the umask allows.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder
            .tempfile_in(folder_of(target))
            .map_err(|cause| Error::io("create a file beside", target, &cause))?;
        Ok(Self { target: target.to_owned(), writer: BufWriter::with_capacity(BUFFER_BYTES, file) })
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// When the disk is full or refuses; the file of the final name is untouched.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(|cause| Error::io("write", &self.target, &cause))
    }

    /// Syncs the content and gives it its final name, replacing a file of that name.
    ///
    /// # Errors
    /// When syncing or renaming fails; the file of the final name is then untouched.
    pub fn commit(self) -> Result<()> {
        let target = self.target;
        let file = self
            .writer
            .into_inner()
            .map_err(|failed| Error::io("write", &target, failed.error()))?;
        file.as_file().sync_all().map_err(|cause| Error::io("sync", &target, &cause))?;
        file.persist(&target).map_err(|failed| Error::io("replace", &target, &failed.error))?;
        sync_folder(folder_of(&target))
    }
}

/// Replaces the file at `target` by `bytes`, all or nothing.
///
/// # Errors
/// As [`AtomicFile`]; the old file is then untouched.
pub fn write_atomically(target: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(target)?;
    file.write(bytes)?;
    file.commit()
}

fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the rename durable; only Unix lets a folder be opened for this.
fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder)
            .and_then(|handle| handle.sync_all())
            .map_err(|cause| Error::io("sync", folder, &cause))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_commit_replaces_and_a_drop_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("weights");
        write_atomically(&target, b"old").unwrap();

        let mut abandoned = AtomicFile::create(&target).unwrap();
        abandoned.write(b"half of the new").unwrap();
        drop(abandoned);
        assert_eq!(std::fs::read(&target).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

        write_atomically(&target, b"new").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn a_missing_folder_is_an_error_that_names_the_file() {
        let error = write_atomically(Path::new("no/such/folder/file"), b"").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("no/such/folder/file"), "{error}");
    }

    #[test]
    fn a_full_disk_has_its_own_kind() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = Error::io("write", Path::new("model.safetensors"), &full);
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(error.to_string().contains("model.safetensors"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_written_file_has_ordinary_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let ordinary = folder.path().join("ordinary");
        std::fs::write(&ordinary, b"").unwrap();
        let target = folder.path().join("atomic");
        write_atomically(&target, b"").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&target), mode(&ordinary));
    }
}
