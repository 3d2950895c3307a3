//! A real device, through the driver: context, one stream, memory, launches.
#![expect(unsafe_code, reason = "foreign functions")]

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{
    self, CUdevice_attribute as Attribute, CUfunction_attribute as Function,
};

use super::blas::Blas;
use super::compiler::Compiler;
use super::device::{Address, Device, DeviceFault, FaultKind, Launch, Product};
use super::libraries::{Library, require};
use super::program::Program;

/// Shared memory a kernel may use without asking for more.
const PLAIN_SHARED_BYTES: u32 = 48 << 10;

/// A device, its primary context and one stream. Fields are dropped in this order.
#[derive(Debug)]
pub(crate) struct Gpu {
    name: String,
    architecture: String,
    max_shared_bytes: usize,
    multiprocessors: usize,
    compiler: Compiler,
    functions: Mutex<HashMap<(Program, &'static str), Pointer<sys::CUfunc_st>>>,
    modules: Mutex<HashMap<Program, Pointer<sys::CUmod_st>>>,
    blas: Blas,
    recording: AtomicBool,
    graph: Mutex<Option<Graph>>,
    /// Takes uploads while work is recorded.
    upload_stream: Stream,
    stream: Stream,
    context: Context,
}

/// A recording that can be started; destroyed when dropped.
#[derive(Debug)]
struct Graph(Pointer<sys::CUgraphExec_st>);

impl Graph {
    /// # Safety
    /// The recording is live.
    unsafe fn of(recorded: sys::CUgraph) -> Result<Self, DeviceFault> {
        // SAFETY: the caller's promise.
        let made =
            unsafe { result::graph::instantiate(recorded, sys::CUgraphInstantiate_flags(0)) };
        Ok(Self(Pointer(made.map_err(|e| fault("graph", e))?)))
    }

    /// Takes over the launches of a recording of the same form; `false` where it has another.
    ///
    /// # Safety
    /// The recording is live, and this graph is not running.
    unsafe fn update(&self, recorded: sys::CUgraph) -> bool {
        let mut told = std::mem::MaybeUninit::uninit();
        // SAFETY: the caller's promise; the driver fills in what it tells.
        unsafe { sys::cuGraphExecUpdate_v2(self.0.0, recorded, told.as_mut_ptr()) }.result().is_ok()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by `of`, destroyed once.
        let _ = unsafe { result::graph::exec_destroy(self.0.0) };
    }
}

/// A handle of the driver.
#[derive(Debug)]
struct Pointer<T>(*mut T);

impl<T> Clone for Pointer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Pointer<T> {}

// SAFETY: handles of the driver may be used from any thread with their context
// current, which every method sees to.
unsafe impl<T> Send for Pointer<T> {}
// SAFETY: as above; the driver locks.
unsafe impl<T> Sync for Pointer<T> {}

fn fault(what: &str, error: DriverError) -> DeviceFault {
    let kind = match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => FaultKind::OutOfMemory,
        _ => FaultKind::Device,
    };
    let text = error.error_string().map_or("unknown", |text| text.to_str().unwrap_or("unknown"));
    DeviceFault::new(kind, format!("CUDA, {what}: {text} ({:?})", error.0))
}

/// The primary context of a device, let go of when dropped.
#[derive(Debug)]
struct Context {
    device: sys::CUdevice,
    handle: Pointer<sys::CUctx_st>,
}

impl Context {
    /// Makes it the calling thread's, too.
    fn retain(device: sys::CUdevice) -> Result<Self, DeviceFault> {
        // SAFETY: the device exists; the context is released when dropped.
        let handle = unsafe { result::primary_ctx::retain(device) };
        let context = Self { device, handle: Pointer(handle.map_err(|e| fault("context", e))?) };
        context.enter()?;
        Ok(context)
    }

    fn enter(&self) -> Result<(), DeviceFault> {
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.handle.0) }.map_err(|e| fault("context", e))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once, and nothing of it is used after this.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

/// A stream, destroyed when dropped; its context outlives it and is current.
#[derive(Debug)]
struct Stream(Pointer<sys::CUstream_st>);

impl Stream {
    fn create() -> Result<Self, DeviceFault> {
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking);
        Ok(Self(Pointer(stream.map_err(|e| fault("stream", e))?)))
    }

    fn handle(&self) -> sys::CUstream {
        self.0.0
    }

    fn synchronise(&self) -> Result<(), DeviceFault> {
        // SAFETY: the stream is live.
        unsafe { result::stream::synchronize(self.handle()) }.map_err(|e| fault("waiting", e))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created by `create`, destroyed once.
        let _ = unsafe { result::stream::destroy(self.handle()) };
    }
}

impl Gpu {
    /// Opens a device by its number and loads the kernels that every model needs, so
    /// that what is opened can be used. `folders` are searched for libraries, `cache`
    /// keeps compiled kernels.
    pub(crate) fn open(
        ordinal: usize,
        folders: &[PathBuf],
        cache: Option<PathBuf>,
    ) -> Result<Self, DeviceFault> {
        require(Library::Driver, folders)?;
        let device = find_device(ordinal)?;
        let capability = capability(device, ordinal)?;
        let compiler = Compiler::open(folders, cache)?;
        require(Library::CublasLt, folders)?;
        let shared = Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let max_shared_bytes = usize::try_from(attribute(device, shared)?).unwrap_or(0);
        let processors = Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let multiprocessors = usize::try_from(attribute(device, processors)?).unwrap_or(1);
        let name = result::device::get_name(device).map_err(|e| fault("name of the device", e))?;
        let context = Context::retain(device)?;
        let [stream, upload_stream] = [Stream::create()?, Stream::create()?];
        let blas = Blas::new(stream.handle())?;
        let gpu = Self {
            name,
            architecture: compiler.architecture(capability),
            max_shared_bytes,
            multiprocessors,
            compiler,
            functions: Mutex::default(),
            modules: Mutex::default(),
            blas,
            recording: AtomicBool::new(false),
            graph: Mutex::default(),
            upload_stream,
            stream,
            context,
        };
        gpu.module(Program::Base)?;
        Ok(gpu)
    }

    /// Makes the context the calling thread's.
    fn enter(&self) -> Result<(), DeviceFault> {
        self.context.enter()
    }

    /// A kernel of a program, which is compiled and loaded at first use.
    fn function(&self, launch: &Launch<'_>) -> Result<sys::CUfunction, DeviceFault> {
        let key = (launch.program, launch.kernel);
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = functions.get(&key) {
            return Ok(found.0);
        }
        let module = self.module(launch.program)?;
        let name = CString::new(launch.kernel).unwrap_or_default();
        // SAFETY: the module is loaded and stays so.
        let function = unsafe { result::module::get_function(module, name) }
            .map_err(|e| fault(launch.kernel, e))?;
        self.allow_shared(launch, function)?;
        functions.insert(key, Pointer(function));
        Ok(function)
    }

    /// Lets a kernel use as much shared memory as the device has. Kernels of one
    /// program ask for the same amount every time.
    fn allow_shared(
        &self,
        launch: &Launch<'_>,
        function: sys::CUfunction,
    ) -> Result<(), DeviceFault> {
        if launch.shared_bytes <= PLAIN_SHARED_BYTES {
            return Ok(());
        }
        let bytes = i32::try_from(launch.shared_bytes).unwrap_or(i32::MAX);
        let most = Function::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is live.
        unsafe { result::function::set_function_attribute(function, most, bytes) }.map_err(|e| {
            let room = self.max_shared_bytes;
            fault(&format!("{} needs {bytes} of {room} bytes of shared memory", launch.kernel), e)
        })
    }

    fn module(&self, program: Program) -> Result<sys::CUmodule, DeviceFault> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = modules.get(&program) {
            return Ok(found.0);
        }
        let image = self.compiler.compile(program, &self.architecture)?;
        // SAFETY: the image is machine code with its length in its header, or PTX
        // that ends with a zero byte.
        let module = unsafe { result::module::load_data(image.bytes.as_ptr().cast()) };
        let module = module.map_err(|e| fault(&self.loading(), e))?;
        modules.insert(program, Pointer(module));
        Ok(module)
    }

    /// Queues a recording. The graph of the last one is used again where the two differ in
    /// numbers only, which is much cheaper than a new one.
    fn run_recorded(&self, recorded: sys::CUgraph) -> Result<(), DeviceFault> {
        let mut graph = self.graph.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the recording is live; the stream was idle when it began.
        let kept = graph.take().filter(|graph| unsafe { graph.update(recorded) });
        let next = match kept {
            Some(kept) => kept,
            // SAFETY: the recording is live.
            None => unsafe { Graph::of(recorded) }?,
        };
        let handle = graph.insert(next).0.0;
        // SAFETY: both are live.
        unsafe { result::graph::launch(handle, self.stream.handle()) }
            .map_err(|e| fault("graph", e))
    }

    /// What fails where the driver is older than the compiler.
    fn loading(&self) -> String {
        let (major, minor) = self.compiler.version();
        let driver = driver_version();
        let known = (driver / 1000, driver % 1000 / 10);
        format!(
            "loading kernels that version {major}.{minor} of the compiler made (the driver knows \
             {}.{})",
            known.0, known.1
        )
    }
}

/// The device of a number.
fn find_device(ordinal: usize) -> Result<sys::CUdevice, DeviceFault> {
    let missing = |message: String| DeviceFault::new(FaultKind::Missing, message);
    let refused = |error: DriverError| missing(fault("start of the driver", error).to_string());
    result::init().map_err(refused)?;
    let count = result::device::get_count().map_err(refused)?;
    match i32::try_from(ordinal).ok().filter(|&ordinal| ordinal < count) {
        Some(ordinal) => result::device::get(ordinal).map_err(refused),
        None => Err(missing(match count {
            0 => "no CUDA device is visible to the driver".to_owned(),
            1 => format!("there is no CUDA device {ordinal}; the only one is 0"),
            _ => format!("there is no CUDA device {ordinal}; there are 0 to {}", count - 1),
        })),
    }
}

/// Ten times major plus minor compute capability, where it suffices.
fn capability(device: sys::CUdevice, ordinal: usize) -> Result<i32, DeviceFault> {
    let major = attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    if major >= 8 {
        return Ok(10 * major + minor);
    }
    let message = format!(
        "CUDA device {ordinal} has compute capability {major}.{minor}; 8.0 or later is needed \
         (bfloat16 tensor cores)"
    );
    Err(DeviceFault::new(FaultKind::Missing, message))
}

/// A thousand times major plus ten times minor version of CUDA; 0 where it is not told.
fn driver_version() -> i32 {
    let mut version = 0;
    // SAFETY: points to a number.
    let told = unsafe { sys::cuDriverGetVersion(&raw mut version) }.result();
    told.map_or(0, |()| version)
}

fn attribute(device: sys::CUdevice, which: Attribute) -> Result<i32, DeviceFault> {
    // SAFETY: the device exists.
    unsafe { result::device::get_attribute(device, which) }.map_err(|e| fault("attribute", e))
}

impl Device for Gpu {
    fn name(&self) -> String {
        format!("{} ({})", self.name, self.architecture)
    }

    fn max_shared_bytes(&self) -> usize {
        self.max_shared_bytes
    }

    fn multiprocessors(&self) -> usize {
        self.multiprocessors
    }

    fn allocate(&self, bytes: usize) -> Result<Address, DeviceFault> {
        self.enter()?;
        // SAFETY: the memory is only used through its address, as the trait says.
        unsafe { result::malloc_sync(bytes) }.map_err(|e| fault("memory", e))
    }

    unsafe fn free(&self, address: Address) {
        if self.enter().is_ok() {
            // Work on a stream of its own is not what the driver promises to wait for.
            let _ = self.stream.synchronise();
            // SAFETY: the caller's promise, and queued work is done.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    unsafe fn set_bytes(&self, to: Address, value: u8, bytes: usize) -> Result<(), DeviceFault> {
        self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { result::memset_d8_async(to, value, bytes, self.stream.handle()) }
            .map_err(|e| fault("setting memory", e))
    }

    unsafe fn upload(&self, from: &[u8], to: Address) -> Result<(), DeviceFault> {
        if from.is_empty() {
            return Ok(());
        }
        self.enter()?;
        let recording = self.recording.load(Ordering::Relaxed);
        let stream = if recording { &self.upload_stream } else { &self.stream };
        // SAFETY: the caller's promise. From pageable memory the driver copies to a
        // buffer of its own before it returns.
        unsafe { result::memcpy_htod_async(to, from, stream.handle()) }
            .map_err(|e| fault("copying to the device", e))?;
        if recording { stream.synchronise() } else { Ok(()) }
    }

    unsafe fn download(&self, from: Address, to: &mut [u8]) -> Result<(), DeviceFault> {
        self.enter()?;
        if !to.is_empty() {
            // SAFETY: the caller's promise.
            unsafe { result::memcpy_dtoh_async(to, from, self.stream.handle()) }
                .map_err(|e| fault("copying from the device", e))?;
        }
        self.stream.synchronise()
    }

    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), DeviceFault> {
        if bytes == 0 {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.handle()) }
            .map_err(|e| fault("copying", e))
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<(), DeviceFault> {
        self.enter()?;
        let function = self.function(launch)?;
        let mut pointers: Vec<*mut c_void> =
            launch.arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
        let [x, y] = launch.grid;
        let (grid, block) = ((x, y, 1), (launch.threads, 1, 1));
        // SAFETY: the caller's promise; the driver copies the arguments.
        unsafe {
            result::launch_kernel(
                function,
                grid,
                block,
                launch.shared_bytes,
                self.stream.handle(),
                &mut pointers,
            )
        }
        .map_err(|e| fault(launch.kernel, e))
    }

    fn begin_recording(&self) -> Result<(), DeviceFault> {
        self.enter()?;
        self.stream.synchronise()?;
        // Memory may be allocated meanwhile, which other modes forbid.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is live.
        unsafe { result::stream::begin_capture(self.stream.handle(), mode) }
            .map_err(|e| fault("recording", e))?;
        self.recording.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn finish_recording(&self, run: bool) -> Result<(), DeviceFault> {
        self.recording.store(false, Ordering::Relaxed);
        self.enter()?;
        // SAFETY: the stream is live and was recording.
        let recorded = unsafe { result::stream::end_capture(self.stream.handle()) }
            .map_err(|e| fault("recording", e))?;
        let outcome = if run { self.run_recorded(recorded) } else { Ok(()) };
        // SAFETY: it is live, and what runs does not need it any more.
        let _ = unsafe { result::graph::destroy(recorded) };
        outcome
    }

    unsafe fn product(&self, product: &Product) -> Result<bool, DeviceFault> {
        self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { self.blas.multiply(product) }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        // Errors of a device that is let go of are of no use.
        let _ = self.stream.synchronise();
        self.graph.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let modules = self.modules.get_mut().unwrap_or_else(PoisonError::into_inner);
        for module in modules.values() {
            // SAFETY: no kernel of it runs or will.
            let _ = unsafe { result::module::unload(module.0) };
        }
    }
}
