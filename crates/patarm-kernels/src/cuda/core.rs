//! What the operations share: launching, scratch memory, small uploads.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::device::{Address, Argument, Device, DeviceFault, FaultKind, Launch};
use super::memory::{Allocator, Block};
use super::program::Program;
use super::recording::Turns;
use crate::buffer::Buffer;

/// Threads of a block where nothing else decides.
pub(crate) const THREADS: u32 = 256;
/// Lanes of a warp.
pub(crate) const WARP: u32 = 32;
/// Most blocks of a launch whose threads walk over an array.
const MAX_BLOCKS: u64 = 4096;
/// Uploaded arrays that are kept: every layer of a model uses the same positions.
const KEPT_UPLOADS: usize = 16;

/// Blocks and threads of a launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) blocks: [u32; 2],
    pub(crate) threads: u32,
    pub(crate) shared_bytes: u32,
}

impl Grid {
    /// Threads that together walk over `len` elements.
    pub(crate) fn over(len: usize) -> Self {
        let blocks = (len as u64).div_ceil(u64::from(THREADS)).min(MAX_BLOCKS);
        Self::blocks(blocks as usize)
    }

    /// A block for each of `count`.
    pub(crate) fn blocks(count: usize) -> Self {
        Self { blocks: [number(count), 1], threads: THREADS, shared_bytes: 0 }
    }

    /// A warp for each of `count`.
    pub(crate) fn warps(count: usize) -> Self {
        Self::blocks(count.div_ceil((THREADS / WARP) as usize))
    }

    fn is_empty(&self) -> bool {
        self.blocks.contains(&0)
    }
}

/// Sizes are 32-bit numbers on the device, below 2³¹: a grid has no more blocks, and
/// kernels may add two of them. Beyond, it unwinds with a fault.
pub(crate) fn number(count: usize) -> u32 {
    match i32::try_from(count) {
        Ok(count) => count.unsigned_abs(),
        Err(_) => {
            let message = format!(
                "{count} rows or blocks at one time are more than a CUDA device counts; lower the \
                 batch or the lengths"
            );
            DeviceFault::new(FaultKind::Device, message).unwind()
        }
    }
}

/// Device, memory, the uploads that are kept, and whose turn it is.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) device: Arc<dyn Device>,
    pub(super) memory: Arc<Allocator>,
    pub(super) turns: Turns,
    uploads: Mutex<VecDeque<(Vec<u32>, Arc<Block>)>>,
}

fn must<T>(result: Result<T, DeviceFault>) -> T {
    result.unwrap_or_else(|fault| fault.unwind())
}

#[expect(unsafe_code, reason = "device memory")]
impl Core {
    pub(crate) fn new(device: Arc<dyn Device>) -> Self {
        let memory = Arc::new(Allocator::new(Arc::clone(&device)));
        Self { device, memory, turns: Turns::default(), uploads: Mutex::default() }
    }

    /// Scratch memory of `bytes` bytes.
    pub(crate) fn take(&self, bytes: usize) -> Block {
        let _turn = self.turns.wait();
        must(self.memory.take(bytes))
    }

    /// Scratch memory of `len` elements of `f32`.
    pub(crate) fn take_f32(&self, len: usize) -> Block {
        self.take(len * size_of::<f32>())
    }

    /// A buffer of `len` elements.
    pub(crate) fn buffer(&self, len: usize) -> Buffer {
        Buffer::on_device(self.take_f32(len), len)
    }

    /// Runs a kernel of the base program.
    pub(crate) fn launch(&self, kernel: &'static str, grid: Grid, arguments: &[Argument<'_>]) {
        self.launch_of(Program::Base, kernel, grid, arguments);
    }

    /// Runs a kernel; nothing where the grid is empty.
    pub(crate) fn launch_of(
        &self,
        program: Program,
        kernel: &'static str,
        grid: Grid,
        arguments: &[Argument<'_>],
    ) {
        if grid.is_empty() {
            return;
        }
        let launch = Launch {
            program,
            kernel,
            grid: grid.blocks,
            threads: grid.threads,
            shared_bytes: grid.shared_bytes,
            arguments,
        };
        let _turn = self.turns.wait();
        // SAFETY: the backend checks the length of every buffer against the shape
        // before it comes here, the operations of this module pass what their kernel
        // declares, and memory that is dropped is only lent again to later work on the
        // same stream.
        must(unsafe { self.device.launch(&launch) });
    }

    /// Copies bytes to the device, to memory that no recorded work uses.
    fn upload_to(&self, bytes: &[u8], block: &Block) {
        assert!(bytes.len() <= block.bytes(), "an upload fits its memory");
        let _turn = self.turns.wait();
        // SAFETY: checked; the block is this device's.
        must(unsafe { self.device.upload(bytes, block.address()) });
    }

    /// Copies bytes to new memory.
    pub(crate) fn upload_bytes(&self, bytes: &[u8]) -> Block {
        let block = {
            let _turn = self.turns.wait();
            must(self.memory.take_unused(bytes.len()))
        };
        self.upload_to(bytes, &block);
        block
    }

    /// Numbers on the device; equal ones are uploaded once and kept for a while.
    pub(crate) fn upload_u32(&self, numbers: Vec<u32>) -> Arc<Block> {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = uploads.iter().position(|(known, _)| *known == numbers)
            && let Some(found) = uploads.remove(index)
        {
            let block = Arc::clone(&found.1);
            uploads.push_back(found);
            return block;
        }
        let block = Arc::new(self.upload_bytes(&bytes_of_u32(&numbers)));
        if uploads.len() == KEPT_UPLOADS {
            uploads.pop_front();
        }
        uploads.push_back((numbers, Arc::clone(&block)));
        block
    }

    /// Brings elements to the host, after everything queued.
    pub(crate) fn download(&self, block: &Block, data: &mut [f32]) {
        let bytes = size_of_val(data);
        assert!(bytes <= block.bytes(), "a download fits its memory");
        assert!(!self.turns.is_recording_here(), "recorded work brings nothing to the host");
        let _turn = self.turns.wait();
        // SAFETY: every pattern of bits is an `f32`, and the lengths agree.
        let bytes = unsafe { std::slice::from_raw_parts_mut(data.as_mut_ptr().cast(), bytes) };
        // SAFETY: checked.
        must(unsafe { self.device.download(block.address(), bytes) });
    }

    /// Copies elements between blocks of the device that do not overlap.
    pub(crate) fn copy(&self, from: (&Block, usize), to: (&Block, usize), len: usize) {
        let bytes = |elements: usize| elements * size_of::<f32>();
        let fits = |(block, start): (&Block, usize)| bytes(start + len) <= block.bytes();
        assert!(fits(from) && fits(to), "a copy fits its memory");
        let address = |(block, start): (&Block, usize)| block.address() + bytes(start) as u64;
        let _turn = self.turns.wait();
        // SAFETY: checked; two buffers never share memory.
        must(unsafe { self.device.copy(address(from), address(to), bytes(len)) });
    }

    /// A product, by the vendor's library or the plain kernel.
    pub(crate) fn product(&self, product: &super::device::Product) {
        let multiplied = {
            let _turn = self.turns.wait();
            // SAFETY: as for `launch_of`.
            must(unsafe { self.device.product(product) })
        };
        if !multiplied {
            super::linear::plain_product(self, product);
        }
    }
}

/// The elements of a host array, as bytes.
pub(crate) fn bytes_of_f32(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

/// The same of whole numbers.
pub(crate) fn bytes_of_u32(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

/// A structure of pointers or 64-bit numbers.
pub(crate) fn bytes_of_u64(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

/// The argument that points to a buffer to read.
pub(crate) fn input(buffer: &Buffer) -> Argument<'static> {
    Argument::Pointer(buffer.device().address())
}

/// The argument that points to a buffer to write.
pub(crate) fn output(buffer: &mut Buffer) -> Argument<'static> {
    Argument::Pointer(buffer.device_mut().address())
}

/// The argument that points to scratch memory.
pub(crate) fn scratch(block: &Block) -> Argument<'static> {
    Argument::Pointer(block.address())
}

/// Address of element `start` of elements of `bytes` bytes.
pub(crate) fn offset(address: Address, start: usize, bytes: usize) -> Address {
    address + (start * bytes) as u64
}
