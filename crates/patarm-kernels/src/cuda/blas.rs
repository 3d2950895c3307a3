//! Matrix products by cuBLASLt, with the algorithm chosen once a shape.
//!
//! The library thinks in columns: our result `[rows, columns]` is its
//! `[columns × rows]`, so its left operand is our right one.
#![expect(unsafe_code, reason = "foreign functions")]

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;
use cudarc::driver;

use super::device::{Address, DeviceFault, Element, FaultKind, Operand, Product};

/// Scratch of the library: what its documentation asks for on Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;
/// Larger alignments choose no other algorithm.
const MAX_ALIGNMENT: u32 = 256;

/// The library's handle, its scratch memory and what it chose so far.
#[derive(Debug)]
pub(crate) struct Blas {
    handle: sys::cublasLtHandle_t,
    stream: driver::sys::CUstream,
    workspace: Address,
    plans: Mutex<HashMap<Key, Option<Plan>>>,
}

// SAFETY: a handle of cuBLASLt may be used from several threads; the stream is used
// with its context current. Work on the one stream is in order, so that products
// share the scratch memory.
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

/// What an algorithm is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// Rows, columns, terms.
    size: [usize; 3],
    element: Element,
    /// Leading dimension, and whether the operand is transposed, in the library's order.
    operands: [(usize, bool); 2],
    /// Of left, right and result, in bytes.
    alignments: [u32; 3],
    add: bool,
}

/// Descriptions of the operands and the algorithm.
#[derive(Debug)]
struct Plan {
    description: sys::cublasLtMatmulDesc_t,
    /// Left, right, result.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

// SAFETY: descriptions are only read once made.
unsafe impl Send for Plan {}

fn fault(error: CublasError) -> DeviceFault {
    DeviceFault::new(FaultKind::Device, format!("CUDA's matrix library: {error}"))
}

impl Blas {
    /// Opens the library; the context of the stream is current.
    pub(crate) fn new(stream: driver::sys::CUstream) -> Result<Self, DeviceFault> {
        let handle = result::create_handle().map_err(fault)?;
        // SAFETY: the memory is only used as scratch and freed in `close`.
        let workspace = unsafe { driver::result::malloc_sync(WORKSPACE_BYTES) }.map_err(|_| {
            let message = "out of memory on the device while opening CUDA's matrix library; free \
                           memory that other programs hold";
            DeviceFault::new(FaultKind::OutOfMemory, message)
        })?;
        Ok(Self { handle, stream, workspace, plans: Mutex::default() })
    }

    /// One product; `Ok(false)` where the library has no algorithm.
    ///
    /// # Safety
    /// As for [`Device::product`](super::device::Device::product), with the context
    /// current.
    pub(crate) unsafe fn multiply(&self, product: &Product) -> Result<bool, DeviceFault> {
        let key = Key::of(product);
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = match plans.entry(key) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => new.insert(self.plan(&key)?),
        };
        let Some(plan) = plan else { return Ok(false) };
        let beta = if product.add { 1.0f32 } else { 0.0 };
        let [left, right, out] = plan.layouts;
        // SAFETY: the caller's promise; the plan describes these operands.
        unsafe {
            result::matmul(
                self.handle,
                plan.description,
                (&raw const product.scale).cast(),
                (&raw const beta).cast(),
                product.right.address as *const c_void,
                left,
                product.left.address as *const c_void,
                right,
                product.out as *const c_void,
                out,
                product.out as *mut c_void,
                out,
                &raw const plan.algorithm,
                self.workspace as *mut c_void,
                WORKSPACE_BYTES,
                self.stream.cast(),
            )
        }
        .map_err(fault)?;
        Ok(true)
    }

    /// Asks the library for its best algorithm.
    fn plan(&self, key: &Key) -> Result<Option<Plan>, DeviceFault> {
        let [rows, columns, inner] = key.size.map(|size| size as u64);
        let element = match key.element {
            Element::F32 => sys::cudaDataType_t::CUDA_R_32F,
            Element::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
        };
        let single = sys::cudaDataType_t::CUDA_R_32F;
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let description = result::create_matmul_desc(compute, single).map_err(fault)?;
        let transposes = [
            sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
            sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSB,
        ];
        for (attribute, (_, transposed)) in transposes.into_iter().zip(key.operands) {
            let value = i32::from(transposed);
            // SAFETY: the description is live and the value has the attribute's size.
            unsafe {
                result::set_matmul_desc_attribute(
                    description,
                    attribute,
                    (&raw const value).cast(),
                    size_of::<i32>(),
                )
            }
            .map_err(fault)?;
        }
        let layout = |element, (rows, columns), leading: usize| {
            result::create_matrix_layout(element, rows, columns, leading as i64).map_err(fault)
        };
        let turned = |transposed: bool, a, b| if transposed { (b, a) } else { (a, b) };
        let [left, right] = key.operands;
        let layouts = [
            layout(element, turned(left.1, columns, inner), left.0)?,
            layout(element, turned(right.1, inner, rows), right.0)?,
            layout(single, (columns, rows), key.size[1])?,
        ];
        let algorithm = self.algorithm(key, description, layouts)?;
        Ok(algorithm.map(|algorithm| Plan { description, layouts, algorithm }))
    }

    fn algorithm(
        &self,
        key: &Key,
        description: sys::cublasLtMatmulDesc_t,
        layouts: [sys::cublasLtMatrixLayout_t; 3],
    ) -> Result<Option<sys::cublasLtMatmulAlgo_t>, DeviceFault> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Preference;
        let preference = result::create_matmul_pref().map_err(fault)?;
        let set = |attribute, value: *const c_void, bytes| {
            // SAFETY: the preference is live and the value has so many bytes.
            unsafe { result::set_matmul_pref_attribute(preference, attribute, value, bytes) }
                .map_err(fault)
        };
        let workspace = WORKSPACE_BYTES;
        set(
            Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            (&raw const workspace).cast(),
            size_of::<usize>(),
        )?;
        let [left, right, out] = key.alignments;
        for (attribute, alignment) in [
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, right),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, left),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out),
        ] {
            set(attribute, (&raw const alignment).cast(), size_of::<u32>())?;
        }
        let [a, b, c] = layouts;
        // SAFETY: everything passed is live.
        let found = unsafe {
            let found =
                result::get_matmul_algo_heuristic(self.handle, description, a, b, c, c, preference);
            let _ = result::destroy_matmul_pref(preference);
            found
        };
        match found {
            Ok(found) => Ok(Some(found.algo)),
            Err(CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)) => Ok(None),
            Err(error) => Err(fault(error)),
        }
    }

    /// Lets go of everything; the context is current and all work is done.
    ///
    /// # Safety
    /// Nothing is multiplied afterwards.
    pub(crate) unsafe fn close(&mut self) {
        let plans = self.plans.get_mut().unwrap_or_else(PoisonError::into_inner);
        for plan in std::mem::take(plans).into_values().flatten() {
            for layout in plan.layouts {
                // SAFETY: made by `plan`, destroyed once.
                let _ = unsafe { result::destroy_matrix_layout(layout) };
            }
            // SAFETY: as above.
            let _ = unsafe { result::destroy_matmul_desc(plan.description) };
        }
        // SAFETY: the caller's promise.
        unsafe {
            let _ = driver::result::free_sync(self.workspace);
            let _ = result::destroy_handle(self.handle);
        }
    }
}

impl Key {
    fn of(product: &Product) -> Self {
        let Product { rows, columns, inner, element, left, right, out, add, .. } = *product;
        let alignments = [left.address, right.address, out].map(alignment);
        Self {
            size: [rows, columns, inner],
            element,
            operands: [first_operand(&right), second_operand(&left)],
            alignments,
            add,
        }
    }
}

/// Leading dimension and transposition of our right operand, the library's left one.
/// It wants columns of the result along a column; where terms are contiguous, that is
/// the transpose.
fn first_operand(right: &Operand) -> (usize, bool) {
    if right.inner == 1 { (right.outer, true) } else { (right.inner, false) }
}

/// The same of our left operand, the library's right one, which has terms along a
/// column.
fn second_operand(left: &Operand) -> (usize, bool) {
    if left.inner == 1 { (left.outer, false) } else { (left.inner, true) }
}

fn alignment(address: Address) -> u32 {
    let bits = address.trailing_zeros().min(MAX_ALIGNMENT.trailing_zeros());
    1 << bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_become_leading_dimensions() {
        // x[t, i] wᵀ[i, o]: terms are contiguous in both.
        let x = Operand { address: 0, outer: 7, inner: 1 };
        let w = Operand { address: 0, outer: 7, inner: 1 };
        assert_eq!((first_operand(&w), second_operand(&x)), ((7, true), (7, false)));
        // d_out[t, o] w[o, i]: terms of w are rows.
        let w = Operand { address: 0, outer: 1, inner: 7 };
        assert_eq!(first_operand(&w), (7, false));
        // d_outᵀ[o, t] x[t, i].
        let d_out = Operand { address: 0, outer: 1, inner: 5 };
        assert_eq!(second_operand(&d_out), (5, true));
    }

    #[test]
    fn alignments_are_powers_of_two_up_to_a_limit() {
        assert_eq!([4, 8, 12, 256, 4096].map(alignment), [4, 8, 4, 256, 256]);
    }
}
