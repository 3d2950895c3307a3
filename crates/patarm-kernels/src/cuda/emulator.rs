//! The kernels on the CPU, for tests: compiled as C++ against `emulator.h`, whose
//! threads are coroutines. It checks indices, masks, meetings and arithmetic of the
//! kernels and of the code that launches them; it says nothing about the hardware's
//! own rules, the driver, cuBLASLt or speed.
#![expect(unsafe_code, reason = "memory by address, foreign functions")]

use std::alloc::Layout;
use std::collections::HashMap;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::device::{Address, Device, DeviceFault, FaultKind, Launch, Product};
use super::program::Program;

const ALIGNMENT: usize = 256;
/// Shared memory of a block, as `emulator.h` has it.
const SHARED_BYTES: usize = 227 << 10;
/// Those of an H100: work is cut as it would be there.
const MULTIPROCESSORS: usize = 132;
const HEADER: &str = include_str!("emulator.h");

/// `run_NAME(grid, threads, arguments, backwards)`.
type Run = unsafe extern "C" fn(*const u32, u32, *mut *mut c_void, bool);

/// A device that is none.
#[derive(Debug)]
pub struct Emulator {
    compiler: PathBuf,
    folder: PathBuf,
    limit_bytes: usize,
    backwards: bool,
    records: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    programs: HashMap<Program, Arc<libloading::Library>>,
    allocations: HashMap<Address, usize>,
    bytes: usize,
    /// What is kept while it records.
    recording: Option<Vec<Kept>>,
}

/// Work that is done later.
#[derive(Debug)]
enum Kept {
    SetBytes {
        to: Address,
        value: u8,
        bytes: usize,
    },
    Copy {
        from: Address,
        to: Address,
        bytes: usize,
    },
    Launch {
        program: Program,
        kernel: &'static str,
        grid: [u32; 2],
        threads: u32,
        arguments: Arguments,
    },
}

/// Values of a launch, each in memory of its own.
type Arguments = Vec<Vec<u8>>;

impl Emulator {
    /// A device with `limit_bytes` of memory whose threads take turns in one order,
    /// or `backwards`. `compiler` is a C++ compiler; what it makes goes to `folder`.
    #[must_use]
    pub fn new(compiler: &Path, folder: &Path, limit_bytes: usize, backwards: bool) -> Self {
        Self {
            compiler: compiler.to_owned(),
            folder: folder.to_owned(),
            limit_bytes,
            backwards,
            records: true,
            state: Mutex::default(),
        }
    }

    /// The same device, but it fails at the end of every recording.
    #[must_use]
    pub fn without_recordings(mut self) -> Self {
        self.records = false;
        self
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps work for later while it records; otherwise gives it back to be done.
    fn keep(&self, work: Kept) -> Option<Kept> {
        match &mut self.state().recording {
            Some(recording) => {
                recording.push(work);
                None
            }
            None => Some(work),
        }
    }

    /// Does work.
    ///
    /// # Safety
    /// The promise of whoever asked for it.
    unsafe fn run(&self, work: Kept) -> Result<(), DeviceFault> {
        match work {
            Kept::SetBytes { to, value, bytes } => {
                self.check(to, bytes);
                // SAFETY: checked.
                unsafe { std::ptr::write_bytes(to as *mut u8, value, bytes) };
                Ok(())
            }
            Kept::Copy { from, to, bytes } => {
                self.check(from, bytes);
                self.check(to, bytes);
                // SAFETY: checked; overlap is the caller's promise.
                unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
                Ok(())
            }
            Kept::Launch { program, kernel, grid, threads, arguments } => {
                let library = self.program(program)?;
                let name = format!("run_{kernel}");
                // SAFETY: `EMULATE` defines every kernel with this signature.
                let run = unsafe { library.get::<Run>(name.as_bytes()) }
                    .map_err(|error| DeviceFault::new(FaultKind::Device, error.to_string()))?;
                let mut pointers: Vec<*mut c_void> =
                    arguments.iter().map(|bytes| bytes.as_ptr().cast_mut().cast()).collect();
                // One launch at a time: the emulator's state is static.
                static RUNNING: Mutex<()> = Mutex::new(());
                let _alone = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
                // SAFETY: the caller's promise.
                unsafe { run(grid.as_ptr(), threads, pointers.as_mut_ptr(), self.backwards) };
                Ok(())
            }
        }
    }

    /// Compiles a program, or takes what an earlier test compiled.
    fn compile(&self, program: Program) -> Result<libloading::Library, DeviceFault> {
        let fault = |what: String| DeviceFault::new(FaultKind::Device, format!("emulator: {what}"));
        let runs: String =
            program.kernels().iter().map(|kernel| format!("EMULATE({kernel})\n")).collect();
        let text = [HEADER, &program.source(), &runs].concat();
        let mut hash = Sha256::new();
        hash.update(format!("{:?}\n{:?}\n", self.compiler, program.definitions()));
        hash.update(&text);
        let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let library = self.folder.join(format!("{name}.so"));
        if !library.exists() {
            self.build(program, &text, &library).map_err(fault)?;
        }
        // SAFETY: the library was made of our own source.
        unsafe { libloading::Library::new(&library) }.map_err(|error| fault(error.to_string()))
    }

    /// Compiles beside and renames: several tests may do so at a time.
    fn build(&self, program: Program, text: &str, library: &Path) -> Result<(), String> {
        static BUILDS: AtomicU32 = AtomicU32::new(0);
        let number = BUILDS.fetch_add(1, Ordering::Relaxed);
        let beside = self.folder.join(format!("{}-{number}", std::process::id()));
        let source = beside.with_extension("cpp");
        std::fs::create_dir_all(&self.folder).map_err(|error| error.to_string())?;
        std::fs::write(&source, text).map_err(|error| error.to_string())?;
        let output = Command::new(&self.compiler)
            .args(["-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-w"])
            .args(program.definitions())
            .arg(&source)
            .arg("-o")
            .arg(&beside)
            .output()
            .map_err(|error| format!("{}: {error}", self.compiler.display()))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        std::fs::remove_file(&source).map_err(|error| error.to_string())?;
        std::fs::rename(&beside, library).map_err(|error| error.to_string())
    }

    fn program(&self, program: Program) -> Result<Arc<libloading::Library>, DeviceFault> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = state.programs.get(&program) {
            return Ok(Arc::clone(library));
        }
        let library = Arc::new(self.compile(program)?);
        state.programs.insert(program, Arc::clone(&library));
        Ok(library)
    }

    /// Panics where a range does not lie within one allocation: a bug of an operation.
    fn check(&self, address: Address, bytes: usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let within = |(start, len): (&Address, &usize)| {
            address >= *start && address + bytes as u64 <= start + *len as u64
        };
        assert!(bytes == 0 || state.allocations.iter().any(within), "a range outside memory");
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes.max(1), ALIGNMENT).expect("a power of two")
}

impl Device for Emulator {
    fn name(&self) -> String {
        "emulator".to_owned()
    }

    fn max_shared_bytes(&self) -> usize {
        SHARED_BYTES
    }

    fn multiprocessors(&self) -> usize {
        MULTIPROCESSORS
    }

    fn allocate(&self, bytes: usize) -> Result<Address, DeviceFault> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.bytes + bytes > self.limit_bytes {
            return Err(DeviceFault::new(FaultKind::OutOfMemory, "emulator: out of memory"));
        }
        // SAFETY: the layout has a size.
        let address = unsafe { std::alloc::alloc(layout(bytes)) } as Address;
        assert_ne!(address, 0, "the host has memory");
        state.allocations.insert(address, bytes);
        state.bytes += bytes;
        Ok(address)
    }

    unsafe fn free(&self, address: Address) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = state.allocations.remove(&address).expect("an allocation of this device");
        state.bytes -= bytes;
        // SAFETY: it was allocated with this layout and is in the table no more.
        unsafe { std::alloc::dealloc(address as *mut u8, layout(bytes)) }
    }

    unsafe fn set_bytes(&self, to: Address, value: u8, bytes: usize) -> Result<(), DeviceFault> {
        let work = self.keep(Kept::SetBytes { to, value, bytes });
        // SAFETY: the caller's promise.
        work.map_or(Ok(()), |work| unsafe { self.run(work) })
    }

    unsafe fn upload(&self, from: &[u8], to: Address) -> Result<(), DeviceFault> {
        self.check(to, from.len());
        // SAFETY: checked.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    unsafe fn download(&self, from: Address, to: &mut [u8]) -> Result<(), DeviceFault> {
        assert!(self.state().recording.is_none(), "nothing is downloaded while it records");
        self.check(from, to.len());
        // SAFETY: checked.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), DeviceFault> {
        let work = self.keep(Kept::Copy { from, to, bytes });
        // SAFETY: the caller's promise.
        work.map_or(Ok(()), |work| unsafe { self.run(work) })
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<(), DeviceFault> {
        let &Launch { program, kernel, grid, threads, shared_bytes, arguments } = launch;
        assert!(shared_bytes as usize <= SHARED_BYTES, "{kernel}: shared memory");
        assert!(grid.iter().all(|&blocks| blocks > 0), "{kernel}: blocks");
        assert!(grid[1] < 1 << 16 && threads <= 1024, "{kernel}: limits");
        let arguments = arguments.iter().map(|argument| argument.to_bytes()).collect();
        let work = self.keep(Kept::Launch { program, kernel, grid, threads, arguments });
        // SAFETY: the caller's promise.
        work.map_or(Ok(()), |work| unsafe { self.run(work) })
    }

    fn begin_recording(&self) -> Result<(), DeviceFault> {
        let before = self.state().recording.replace(Vec::new());
        assert!(before.is_none(), "one recording at a time");
        Ok(())
    }

    fn finish_recording(&self, run: bool) -> Result<(), DeviceFault> {
        let recorded = self.state().recording.take().expect("it was begun");
        if !self.records {
            return Err(DeviceFault::new(FaultKind::Device, "emulator: no recordings"));
        }
        let recorded = if run { recorded } else { Vec::new() };
        // SAFETY: the callers' promises when it was recorded; memory is not freed meanwhile.
        recorded.into_iter().try_for_each(|work| unsafe { self.run(work) })
    }

    unsafe fn product(&self, _: &Product) -> Result<bool, DeviceFault> {
        Ok(false)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (&address, &bytes) in &state.allocations {
            // SAFETY: allocated with this layout, freed once.
            unsafe { std::alloc::dealloc(address as *mut u8, layout(bytes)) }
        }
    }
}
