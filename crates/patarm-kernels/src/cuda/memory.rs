//! Device memory that is reused: fresh allocations make a device wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::device::{Address, Device, DeviceFault, FaultKind};
use crate::buffer::size_class;

/// Bytes a block is a multiple of.
const UNIT: usize = 256;

/// Blocks by size class. Work is queued in order on one stream, so a block may be
/// lent again while the work of its last owner is still queued.
#[derive(Debug)]
pub(crate) struct Allocator {
    device: Arc<dyn Device>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    free: HashMap<usize, Vec<Address>>,
    free_bytes: usize,
    lent_bytes: usize,
}

/// Device memory, given back when dropped.
#[derive(Debug)]
pub(crate) struct Block {
    address: Address,
    bytes: usize,
    allocator: Arc<Allocator>,
}

impl Block {
    pub(crate) fn address(&self) -> Address {
        self.address
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut state = self.allocator.state();
        state.lent_bytes -= self.bytes;
        state.free_bytes += self.bytes;
        state.free.entry(self.bytes).or_default().push(self.address);
    }
}

impl Allocator {
    pub(crate) fn new(device: Arc<dyn Device>) -> Self {
        Self { device, state: Mutex::default() }
    }

    /// A block of at least `bytes` bytes with unspecified contents: NaN in debug
    /// builds, so that a read before the first write is seen.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<Block, DeviceFault> {
        let class = size_class(bytes.div_ceil(size_of::<f32>())) * size_of::<f32>();
        let class = class.next_multiple_of(UNIT);
        let address = self.find(class)?;
        self.state().lent_bytes += class;
        let block = Block { address, bytes: class, allocator: Arc::clone(self) };
        if cfg!(debug_assertions) {
            poison(self.device.as_ref(), &block)?;
        }
        Ok(block)
    }

    fn find(&self, class: usize) -> Result<Address, DeviceFault> {
        let reused = {
            let mut state = self.state();
            let found = state.free.get_mut(&class).and_then(Vec::pop);
            if found.is_some() {
                state.free_bytes -= class;
            }
            found
        };
        if let Some(address) = reused {
            return Ok(address);
        }
        let first = match self.device.allocate(class) {
            Err(fault) if fault.kind() == FaultKind::OutOfMemory => fault,
            other => return other,
        };
        // Blocks of other sizes may be in the way.
        if self.release() == 0 {
            return Err(self.explain(&first, class));
        }
        self.device.allocate(class).map_err(|fault| match fault.kind() {
            FaultKind::OutOfMemory => self.explain(&fault, class),
            _ => fault,
        })
    }

    /// Gives everything that is free back to the device; returns its bytes.
    fn release(&self) -> usize {
        let (free, bytes) = {
            let mut state = self.state();
            (std::mem::take(&mut state.free), std::mem::take(&mut state.free_bytes))
        };
        for address in free.into_values().flatten() {
            free_block(self.device.as_ref(), address);
        }
        bytes
    }

    fn explain(&self, fault: &DeviceFault, class: usize) -> DeviceFault {
        let mib = |bytes: usize| bytes >> 20;
        DeviceFault::new(
            fault.kind(),
            format!(
                "out of memory on {}: {} MiB asked for, {} MiB in use; lower the batch (rows, pairs \
                 or responses a step), the lengths or the cache of the engine, or train an adapter \
                 (LoRA)",
                self.device.name(),
                mib(class),
                mib(self.state().lent_bytes),
            ),
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Allocator {
    fn drop(&mut self) {
        self.release();
    }
}

#[expect(unsafe_code, reason = "device memory")]
fn free_block(device: &dyn Device, address: Address) {
    // SAFETY: the address came from this device's `allocate`, is in no list any more
    // and lent to nobody; the device frees it after everything queued.
    unsafe { device.free(address) }
}

#[expect(unsafe_code, reason = "device memory")]
fn poison(device: &dyn Device, block: &Block) -> Result<(), DeviceFault> {
    // SAFETY: the block is this device's and has so many bytes. Every bit set is NaN.
    unsafe { device.set_bytes(block.address, 0xff, block.bytes) }
}
