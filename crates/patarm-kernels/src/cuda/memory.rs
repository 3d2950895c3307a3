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
    /// Most bytes that the device had given at one time.
    peak_bytes: usize,
    /// While work is recorded: what was given back, by size. The recorded work will still
    /// use it, so that it may be lent to more of that work, but not written at once.
    set_aside: Option<HashMap<usize, Vec<Address>>>,
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
        let State { free, set_aside, .. } = &mut *state;
        let list = set_aside.as_mut().unwrap_or(free);
        list.entry(self.bytes).or_default().push(self.address);
    }
}

/// Bytes of the block that is lent for so many.
fn class_of(bytes: usize) -> usize {
    let class = size_class(bytes.div_ceil(size_of::<f32>())) * size_of::<f32>();
    class.next_multiple_of(UNIT)
}

impl State {
    fn take_set_aside(&mut self, class: usize) -> Option<Address> {
        let found = self.set_aside.as_mut()?.get_mut(&class)?.pop();
        if found.is_some() {
            self.free_bytes -= class;
        }
        found
    }
}

impl Allocator {
    pub(crate) fn new(device: Arc<dyn Device>) -> Self {
        Self { device, state: Mutex::default() }
    }

    /// A block of at least `bytes` bytes with unspecified contents: NaN in debug
    /// builds, so that a read before the first write is seen.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<Block, DeviceFault> {
        let class = class_of(bytes);
        let set_aside = self.state().take_set_aside(class);
        let block = match set_aside {
            Some(address) => self.lend(address, class),
            None => self.take_unused(bytes)?,
        };
        if cfg!(debug_assertions) {
            poison(self.device.as_ref(), &block)?;
        }
        Ok(block)
    }

    /// A block that recorded work does not use, which may be written at once.
    pub(crate) fn take_unused(self: &Arc<Self>, bytes: usize) -> Result<Block, DeviceFault> {
        let class = class_of(bytes);
        let address = self.find(class)?;
        Ok(self.lend(address, class))
    }

    /// Most bytes that the device had given at one time, lent or kept for later.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.state().peak_bytes as u64
    }

    fn lend(self: &Arc<Self>, address: Address, class: usize) -> Block {
        let mut state = self.state();
        state.lent_bytes += class;
        state.peak_bytes = state.peak_bytes.max(state.lent_bytes + state.free_bytes);
        drop(state);
        Block { address, bytes: class, allocator: Arc::clone(self) }
    }

    /// From now on, until the end of the recording, memory given back is set aside.
    pub(crate) fn begin_recording(&self) {
        self.state().set_aside = Some(HashMap::new());
    }

    /// The recorded work is queued, or forgotten: what it used is as free as anything.
    pub(crate) fn end_recording(&self) {
        let mut state = self.state();
        for (class, addresses) in state.set_aside.take().into_iter().flatten() {
            state.free.entry(class).or_default().extend(addresses);
        }
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

    /// Gives everything that is free back to the device; returns its bytes. Nothing while
    /// work is recorded: a device would have to wait for work that has not begun.
    fn release(&self) -> usize {
        let (free, bytes) = {
            let mut state = self.state();
            if state.set_aside.is_some() {
                return 0;
            }
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
