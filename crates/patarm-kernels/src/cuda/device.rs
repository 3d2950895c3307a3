//! What the operations ask of a device: memory, copies, launches, products.
//!
//! Two things implement it: [`Gpu`](super::driver::Gpu), a real one, and
//! [`Emulator`](super::emulator::Emulator), which runs the same kernels on the CPU
//! for tests. Work is queued in order on one stream.

use std::fmt::Debug;

use super::program::Program;

/// Address of device memory.
pub(crate) type Address = u64;

/// What went wrong on a device, in a sentence. Operations of a backend return
/// nothing, so they unwind with this as the payload
/// ([`std::panic::resume_unwind`]); the binary turns it into a message and a code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DeviceFault {
    message: String,
    kind: FaultKind,
}

/// Kinds of [`DeviceFault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A driver, library or device is missing.
    Missing,
    /// The device has not enough memory.
    OutOfMemory,
    /// The device refused something.
    Device,
}

impl DeviceFault {
    /// A fault of a kind, in one sentence.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { message: message.into(), kind }
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> FaultKind {
        self.kind
    }

    /// Unwinds with the fault, without the report of a panic.
    pub(crate) fn unwind(self) -> ! {
        std::panic::resume_unwind(Box::new(self))
    }
}

/// An argument of a kernel, in the layout the kernel declares.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Argument<'a> {
    /// A pointer to device memory; 0 is null.
    Pointer(Address),
    /// An unsigned 32-bit number.
    U32(u32),
    /// An unsigned 64-bit number.
    U64(u64),
    /// A single-precision number.
    F32(f32),
    /// A structure, as its bytes.
    Bytes(&'a [u8]),
}

impl Argument<'_> {
    /// The value's bytes.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Pointer(value) | Self::U64(value) => value.to_ne_bytes().to_vec(),
            Self::U32(value) => value.to_ne_bytes().to_vec(),
            Self::F32(value) => value.to_ne_bytes().to_vec(),
            Self::Bytes(bytes) => bytes.to_vec(),
        }
    }

    /// Where the value lies in host memory.
    #[must_use]
    pub(crate) fn as_ptr(&self) -> *const std::ffi::c_void {
        match self {
            Self::Pointer(value) | Self::U64(value) => std::ptr::from_ref(value).cast(),
            Self::U32(value) => std::ptr::from_ref(value).cast(),
            Self::F32(value) => std::ptr::from_ref(value).cast(),
            Self::Bytes(bytes) => bytes.as_ptr().cast(),
        }
    }
}

/// One launch of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch<'a> {
    /// The program the kernel is part of.
    pub(crate) program: Program,
    /// Name of the kernel.
    pub(crate) kernel: &'static str,
    /// Blocks, in x and y.
    pub(crate) grid: [u32; 2],
    /// Threads of a block.
    pub(crate) threads: u32,
    /// Bytes of shared memory whose size the launch decides.
    pub(crate) shared_bytes: u32,
    /// The arguments, in order.
    pub(crate) arguments: &'a [Argument<'a>],
}

/// Type of the operands of a product; results and sums are `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Element {
    /// Single precision.
    F32,
    /// bfloat16.
    Bf16,
}

/// A matrix operand: `outer` counts its rows (of the left) or columns (of the right),
/// `inner` runs along the sum; one of the two strides is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operand {
    /// First element.
    pub(crate) address: Address,
    /// Elements from one row (column) to the next.
    pub(crate) outer: usize,
    /// Elements from one term of the sum to the next.
    pub(crate) inner: usize,
}

/// `out[rows, columns] = scale · left · right (+ out)`, rows of `out` contiguous.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Product {
    /// Rows of the result.
    pub(crate) rows: usize,
    /// Columns of the result.
    pub(crate) columns: usize,
    /// Terms of each sum.
    pub(crate) inner: usize,
    /// Type of both operands.
    pub(crate) element: Element,
    /// Left operand.
    pub(crate) left: Operand,
    /// Right operand.
    pub(crate) right: Operand,
    /// Result, `f32`.
    pub(crate) out: Address,
    /// Factor of the product.
    pub(crate) scale: f32,
    /// Whether the product is added to what is there.
    pub(crate) add: bool,
}

/// A device. Methods queue work and return; [`Device::download`] waits.
///
/// # Safety of the unsafe methods
///
/// Addresses come from [`Device::allocate`] of the same device, and every range read
/// or written lies within one allocation that is not freed before the work is done.
#[expect(unsafe_code, reason = "addresses of device memory are not checked by the compiler")]
pub(crate) trait Device: Debug + Send + Sync {
    /// Name and architecture, such as `NVIDIA H100 (sm_90a)`.
    fn name(&self) -> String;

    /// Most bytes of shared memory a block may ask for.
    fn max_shared_bytes(&self) -> usize;

    /// Streaming multiprocessors: that many blocks run at a time, or a few times as many.
    fn multiprocessors(&self) -> usize;

    /// Device memory of `bytes` bytes with unspecified contents, aligned to 256.
    ///
    /// # Errors
    /// [`FaultKind::OutOfMemory`] where there is not enough.
    fn allocate(&self, bytes: usize) -> Result<Address, DeviceFault>;

    /// Gives memory back, after everything queued.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn free(&self, address: Address);

    /// Sets bytes.
    ///
    /// # Errors
    /// What the device reports.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn set_bytes(&self, to: Address, value: u8, bytes: usize) -> Result<(), DeviceFault>;

    /// Copies from the host; the source may be reused on return.
    ///
    /// # Errors
    /// What the device reports.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn upload(&self, from: &[u8], to: Address) -> Result<(), DeviceFault>;

    /// Copies to the host, and waits for everything queued.
    ///
    /// # Errors
    /// What the device reports, also of earlier work.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn download(&self, from: Address, to: &mut [u8]) -> Result<(), DeviceFault>;

    /// Copies within the device; the ranges do not overlap.
    ///
    /// # Errors
    /// What the device reports.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), DeviceFault>;

    /// Runs a kernel.
    ///
    /// # Errors
    /// Where the program does not compile or the launch is refused.
    ///
    /// # Safety
    /// See the trait; the arguments are what the kernel declares.
    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<(), DeviceFault>;

    /// Finishes everything queued, then keeps the work that follows instead of doing it, until
    /// [`Device::finish_recording`]. Uploads alone are done at once, and nothing is
    /// downloaded.
    ///
    /// # Errors
    /// Where the device cannot record; work is then done as before.
    fn begin_recording(&self) -> Result<(), DeviceFault>;

    /// Queues what was kept as one piece of work, or forgets it (`false`).
    ///
    /// # Errors
    /// What the device reports; nothing of it was done.
    fn finish_recording(&self, run: bool) -> Result<(), DeviceFault>;

    /// A product by the vendor's library; `Ok(false)` where it has none for this shape.
    ///
    /// # Errors
    /// What the library reports.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn product(&self, product: &Product) -> Result<bool, DeviceFault>;
}
