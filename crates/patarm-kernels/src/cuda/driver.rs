//! A real device, through the driver: context, one stream, memory, launches.
#![expect(unsafe_code, reason = "foreign functions")]

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::path::PathBuf;
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

/// A device, its primary context and one stream.
#[derive(Debug)]
pub(crate) struct Gpu {
    name: String,
    architecture: String,
    max_shared_bytes: usize,
    device: sys::CUdevice,
    context: Pointer<sys::CUctx_st>,
    stream: Pointer<sys::CUstream_st>,
    compiler: Compiler,
    blas: Blas,
    functions: Mutex<HashMap<(Program, &'static str), Pointer<sys::CUfunc_st>>>,
    modules: Mutex<HashMap<Program, Pointer<sys::CUmod_st>>>,
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

impl Gpu {
    /// Opens a device by its number. `folders` are searched for libraries, `cache`
    /// keeps compiled kernels.
    pub(crate) fn open(
        ordinal: usize,
        folders: &[PathBuf],
        cache: Option<PathBuf>,
    ) -> Result<Self, DeviceFault> {
        require(Library::Driver, folders)?;
        let (device, count) = find_device(ordinal)?;
        let Some(device) = device else {
            let message = match count {
                0 => "no CUDA device is visible to the driver".to_owned(),
                1 => format!("there is no CUDA device {ordinal}; the only one is 0"),
                _ => format!("there is no CUDA device {ordinal}; there are 0 to {}", count - 1),
            };
            return Err(DeviceFault::new(FaultKind::Missing, message));
        };
        let compiler = Compiler::open(folders, cache)?;
        require(Library::CublasLt, folders)?;
        let capability = 10
            * attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?
            + attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        if capability < 80 {
            let message = format!(
                "CUDA device {ordinal} has compute capability {}.{}; 8.0 or later is needed \
                 (bfloat16 tensor cores)",
                capability / 10,
                capability % 10
            );
            return Err(DeviceFault::new(FaultKind::Missing, message));
        }
        let shared = Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let max_shared_bytes = usize::try_from(attribute(device, shared)?).unwrap_or(0);
        let name = result::device::get_name(device).map_err(|e| fault("name of the device", e))?;
        // SAFETY: the device exists; the context is released when dropped.
        let context = unsafe { result::primary_ctx::retain(device) };
        let context = Pointer(context.map_err(|e| fault("context", e))?);
        // SAFETY: the context was just retained.
        unsafe { result::ctx::set_current(context.0) }.map_err(|e| fault("context", e))?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking);
        let stream = Pointer(stream.map_err(|e| fault("stream", e))?);
        let blas = Blas::new(stream.0)?;
        Ok(Self {
            name,
            architecture: compiler.architecture(capability),
            max_shared_bytes,
            device,
            context,
            stream,
            compiler,
            blas,
            functions: Mutex::default(),
            modules: Mutex::default(),
        })
    }

    /// Makes the context the calling thread's.
    fn enter(&self) -> Result<(), DeviceFault> {
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.context.0) }.map_err(|e| fault("context", e))
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
        let module = module.map_err(|e| fault("loading the kernels", e))?;
        modules.insert(program, Pointer(module));
        Ok(module)
    }
}

/// The device of a number, if there is one, and how many there are.
fn find_device(ordinal: usize) -> Result<(Option<sys::CUdevice>, i32), DeviceFault> {
    let missing = |error: DriverError| {
        let text = fault("start of the driver", error).to_string();
        DeviceFault::new(FaultKind::Missing, format!("no CUDA device can be used here: {text}"))
    };
    result::init().map_err(missing)?;
    let count = result::device::get_count().map_err(missing)?;
    let ordinal = i32::try_from(ordinal).ok().filter(|&ordinal| ordinal < count);
    let device = ordinal.map(result::device::get).transpose();
    Ok((device.map_err(missing)?, count))
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

    fn allocate(&self, bytes: usize) -> Result<Address, DeviceFault> {
        self.enter()?;
        // SAFETY: the memory is only used through its address, as the trait says.
        unsafe { result::malloc_sync(bytes) }.map_err(|e| fault("memory", e))
    }

    unsafe fn free(&self, address: Address) {
        if self.enter().is_ok() {
            // SAFETY: the caller's promise; the driver waits for queued work.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    unsafe fn set_bytes(&self, to: Address, value: u8, bytes: usize) -> Result<(), DeviceFault> {
        self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { result::memset_d8_async(to, value, bytes, self.stream.0) }
            .map_err(|e| fault("setting memory", e))
    }

    unsafe fn upload(&self, from: &[u8], to: Address) -> Result<(), DeviceFault> {
        if from.is_empty() {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: the caller's promise. From pageable memory the driver copies to a
        // buffer of its own before it returns.
        unsafe { result::memcpy_htod_async(to, from, self.stream.0) }
            .map_err(|e| fault("copying to the device", e))
    }

    unsafe fn download(&self, from: Address, to: &mut [u8]) -> Result<(), DeviceFault> {
        self.enter()?;
        if !to.is_empty() {
            // SAFETY: the caller's promise.
            unsafe { result::memcpy_dtoh_async(to, from, self.stream.0) }
                .map_err(|e| fault("copying from the device", e))?;
        }
        // SAFETY: the stream is live.
        unsafe { result::stream::synchronize(self.stream.0) }.map_err(|e| fault("waiting", e))
    }

    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), DeviceFault> {
        if bytes == 0 {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.0) }
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
                self.stream.0,
                &mut pointers,
            )
        }
        .map_err(|e| fault(launch.kernel, e))
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
        // SAFETY: nothing uses stream, modules and context after this; errors of a
        // process that ends are of no use.
        unsafe {
            let _ = result::stream::synchronize(self.stream.0);
            self.blas.close();
            let modules = self.modules.get_mut().unwrap_or_else(PoisonError::into_inner);
            for module in modules.values() {
                let _ = result::module::unload(module.0);
            }
            let _ = result::stream::destroy(self.stream.0);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}
