//! Compiling programs by NVRTC, and keeping what came out on disk.

use std::ffi::{CStr, CString, c_char};
use std::io::Write;
use std::path::{Path, PathBuf};

use cudarc::nvrtc::{result, sys};
use sha2::{Digest, Sha256};

use super::device::{DeviceFault, FaultKind};
use super::libraries::{Library, require};
use super::program::Program;

/// Options of every compilation. No fast mathematics: results are compared with the
/// CPU's.
const OPTIONS: &[&str] = &["--std=c++17"];

/// Bytes of the hash at the beginning of a kept file.
const DIGEST_BYTES: usize = 32;

/// The run-time compiler.
#[derive(Debug)]
pub(crate) struct Compiler {
    version: (i32, i32),
    architectures: Vec<i32>,
    cache: Option<PathBuf>,
}

/// A compiled program: machine code where the compiler knows the device, else PTX,
/// which ends with a zero byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// What the driver loads.
    pub(crate) bytes: Vec<u8>,
}

impl Compiler {
    /// Finds the compiler, also in `folders`. `cache` is where results are kept.
    ///
    /// # Errors
    /// [`FaultKind::Missing`] where there is none.
    pub(crate) fn open(folders: &[PathBuf], cache: Option<PathBuf>) -> Result<Self, DeviceFault> {
        require(Library::Nvrtc, folders)?;
        let fault = |error: result::NvrtcError| {
            DeviceFault::new(FaultKind::Device, format!("CUDA's run-time compiler: {error}"))
        };
        let version = version().map_err(fault)?;
        let architectures = architectures().map_err(fault)?;
        Ok(Self { version, architectures, cache })
    }

    /// Major and minor version.
    #[must_use]
    pub(crate) fn version(&self) -> (i32, i32) {
        self.version
    }

    /// The architecture to compile for: the device's own, else the closest one below,
    /// as PTX for the driver to finish. `capability` is ten times major plus minor.
    #[must_use]
    pub(crate) fn architecture(&self, capability: i32) -> String {
        let known = self.architectures.iter().filter(|&&known| known <= capability).max();
        match known {
            // Hopper's own instructions have a target of their own.
            Some(90) if capability == 90 => "sm_90a".to_owned(),
            Some(&known) if known == capability => format!("sm_{known}"),
            Some(&known) => format!("compute_{known}"),
            None => format!("compute_{capability}"),
        }
    }

    /// Compiles a program, or takes what an earlier run compiled.
    ///
    /// # Errors
    /// What the compiler says, where it refuses the source or the architecture.
    pub(crate) fn compile(
        &self,
        program: Program,
        architecture: &str,
    ) -> Result<Image, DeviceFault> {
        let (source, options) = (program.source(), options(program, architecture));
        let path = self.cache.as_ref().map(|folder| folder.join(self.file(&source, &options)));
        if let Some(image) = path.as_deref().and_then(kept) {
            return Ok(image);
        }
        let image = compile(&source, &options, architecture.starts_with("sm_"))?;
        if let Some(path) = path {
            // A cache that cannot be written only costs time.
            let _ = keep(&path, &image);
        }
        Ok(image)
    }

    /// Name of the file that keeps a compiled program.
    fn file(&self, source: &str, options: &[String]) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}\n{}\n", self.version, options.join("\n")));
        hash.update(source);
        let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{digits}.cubin")
    }
}

fn options(program: Program, architecture: &str) -> Vec<String> {
    let mut options = vec![format!("--gpu-architecture={architecture}")];
    options.extend(OPTIONS.iter().map(|&option| option.to_owned()));
    options.extend(program.definitions());
    options
}

/// What a file keeps: the hash of an image, then the image. A file that was cut short or
/// changed counts as absent, because the driver reads an image without being told its
/// length.
fn kept(path: &Path) -> Option<Image> {
    let stored = std::fs::read(path).ok()?;
    let (digest, bytes) = stored.split_at_checked(DIGEST_BYTES)?;
    let is_whole = !bytes.is_empty() && Sha256::digest(bytes).as_slice() == digest;
    is_whole.then(|| Image { bytes: bytes.to_vec() })
}

/// Writes beside and renames, so that a file is whole or absent.
fn keep(path: &Path, image: &Image) -> std::io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    std::fs::create_dir_all(folder)?;
    let beside = path.with_extension(format!("{}.part", std::process::id()));
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(&Sha256::digest(&image.bytes))?;
    file.write_all(&image.bytes)?;
    file.sync_all()?;
    std::fs::rename(beside, path)
}

/// A program of NVRTC, destroyed when dropped.
struct Handle(sys::nvrtcProgram);

impl Drop for Handle {
    #[expect(unsafe_code, reason = "foreign functions")]
    fn drop(&mut self) {
        // SAFETY: created by `create_program` and destroyed once.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

#[expect(unsafe_code, reason = "foreign functions")]
fn compile(source: &str, options: &[String], cubin: bool) -> Result<Image, DeviceFault> {
    let fault = |what: String| DeviceFault::new(FaultKind::Device, what);
    let says = |error: result::NvrtcError| fault(format!("CUDA's run-time compiler: {error}"));
    let source = CString::new(source).map_err(|error| fault(error.to_string()))?;
    let handle = Handle(result::create_program(&source, Some(c"patarm.cu")).map_err(says)?);
    // SAFETY: the program is live, and so is the source it refers to.
    if let Err(error) = unsafe { result::compile_program(handle.0, options) } {
        // SAFETY: the program is live.
        let log = unsafe { result::get_program_log(handle.0) }.unwrap_or_default();
        let log: Vec<u8> = log.iter().map(|&c| c.cast_unsigned()).collect();
        let log = CStr::from_bytes_until_nul(&log).map_or("", |log| log.to_str().unwrap_or(""));
        let options = options.join(" ");
        return Err(fault(format!("a kernel does not compile ({error}, {options}): {log}")));
    }
    // SAFETY: the program is live and compiled.
    let bytes = if cubin { unsafe { get_cubin(handle.0) } } else { unsafe { ptx(handle.0) } };
    Ok(Image { bytes: bytes.map_err(says)? })
}

/// # Safety
/// The program is live and compiled for a real architecture.
#[expect(unsafe_code, reason = "foreign functions")]
unsafe fn get_cubin(program: sys::nvrtcProgram) -> Result<Vec<u8>, result::NvrtcError> {
    let mut size = 0;
    // SAFETY: the caller's promise.
    unsafe { sys::nvrtcGetCUBINSize(program, &raw mut size) }.result()?;
    let mut bytes = vec![0u8; size];
    // SAFETY: as above, and there is room for `size` bytes.
    unsafe { sys::nvrtcGetCUBIN(program, bytes.as_mut_ptr().cast::<c_char>()) }.result()?;
    Ok(bytes)
}

/// # Safety
/// The program is live and compiled.
#[expect(unsafe_code, reason = "foreign functions")]
unsafe fn ptx(program: sys::nvrtcProgram) -> Result<Vec<u8>, result::NvrtcError> {
    // SAFETY: the caller's promise.
    let text = unsafe { result::get_ptx(program) }?;
    Ok(text.iter().map(|&c| c.cast_unsigned()).collect())
}

#[expect(unsafe_code, reason = "foreign functions")]
fn version() -> Result<(i32, i32), result::NvrtcError> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both point to numbers.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result()?;
    Ok((major, minor))
}

#[expect(unsafe_code, reason = "foreign functions")]
fn architectures() -> Result<Vec<i32>, result::NvrtcError> {
    let mut count = 0;
    // SAFETY: points to a number.
    unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) }.result()?;
    let mut found = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: there is room for `count` numbers.
    unsafe { sys::nvrtcGetSupportedArchs(found.as_mut_ptr()) }.result()?;
    Ok(found)
}

#[cfg(test)]
mod tests;
