//! Finding CUDA at run time. The binary links nothing of it.
//!
//! `cudarc` loads libraries by their plain names. A library found elsewhere (a
//! toolkit, a Python environment) is loaded here by its path first; the system's
//! loader then answers the plain name with the library that is already there.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::device::{DeviceFault, FaultKind};

/// A library that has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    /// The driver of the device.
    Driver,
    /// The run-time compiler.
    Nvrtc,
    /// Matrix products.
    CublasLt,
}

/// Libraries kept loaded for as long as the program runs: `cudarc` keeps pointers into
/// them.
static LOADED: Mutex<Vec<libloading::Library>> = Mutex::new(Vec::new());

impl Library {
    /// Beginnings of the files' names: what the library itself looks for by plain
    /// name comes before it.
    fn stems(self) -> &'static [&'static str] {
        match self {
            Self::Driver => &[],
            Self::Nvrtc => &["libnvrtc-builtins.so", "libnvrtc.so"],
            Self::CublasLt => &["libcublasLt.so"],
        }
    }

    fn is_loadable(self) -> bool {
        is_loadable(self)
    }

    fn missing(self) -> DeviceFault {
        let message = match self {
            Self::Driver => "the driver's library (libcuda) was not found",
            Self::Nvrtc => {
                "CUDA's run-time compiler (libnvrtc, pip install nvidia-cuda-nvrtc) was not found"
            }
            Self::CublasLt => {
                "CUDA's matrix library (libcublasLt, pip install nvidia-cublas) was not found"
            }
        };
        DeviceFault::new(FaultKind::Missing, message)
    }
}

/// Makes sure that `cudarc` will find a library.
///
/// # Errors
/// [`FaultKind::Missing`], with what to do.
pub(crate) fn require(library: Library, folders: &[PathBuf]) -> Result<(), DeviceFault> {
    for stem in library.stems() {
        let mut found = folders.iter().flat_map(|folder| files(folder, stem));
        if let Some(loaded) = found.find_map(|path| load(&path)) {
            LOADED.lock().unwrap_or_else(PoisonError::into_inner).push(loaded);
        }
    }
    if library.is_loadable() { Ok(()) } else { Err(library.missing()) }
}

/// Files of a folder whose names are the stem or the stem and a version.
fn files(folder: &Path, stem: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let rest = name.to_str().and_then(|name| name.strip_prefix(stem));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[expect(unsafe_code, reason = "loading a library runs its initialisers")]
fn load(path: &Path) -> Option<libloading::Library> {
    // SAFETY: the libraries of CUDA initialise nothing that could break ours; the
    // library is never unloaded while code of it may run.
    unsafe { libloading::Library::new(path) }.ok()
}

#[expect(unsafe_code, reason = "loading a library runs its initialisers")]
fn is_loadable(library: Library) -> bool {
    // SAFETY: as for `load`.
    unsafe {
        match library {
            Library::Driver => cudarc::driver::sys::is_culib_present(),
            Library::Nvrtc => cudarc::nvrtc::sys::is_culib_present(),
            Library::CublasLt => cudarc::cublaslt::sys::is_culib_present(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stem_is_followed_by_a_version_or_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        for name in ["libnvrtc.so.13", "libnvrtc.so", "libnvrtc.alt.so.13", "libnvrtc-builtins.so"]
        {
            std::fs::write(folder.path().join(name), "").expect("file");
        }
        let found = files(folder.path(), "libnvrtc.so");
        let names: Vec<_> = found.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(names, ["libnvrtc.so", "libnvrtc.so.13"]);
        assert!(files(Path::new("no such folder"), "libnvrtc.so").is_empty());
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let fault = Library::CublasLt.missing();
        assert_eq!(fault.kind(), FaultKind::Missing);
        assert!(fault.to_string().contains("pip install nvidia-cublas"));
    }
}
