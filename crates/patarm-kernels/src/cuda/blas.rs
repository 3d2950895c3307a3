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
/// Most plans kept: every number of tokens has its own.
const MAX_PLANS: usize = 4096;
/// Larger alignments choose no other algorithm.
const MAX_ALIGNMENT: u32 = 256;

/// The library's handle, its scratch memory and what it chose so far.
#[derive(Debug)]
pub(crate) struct Blas {
    handle: sys::cublasLtHandle_t,
    stream: driver::sys::CUstream,
    workspace: Workspace,
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
    description: Description,
    /// Left, right, result.
    layouts: [Layout; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

// SAFETY: descriptions are only read once made.
unsafe impl Send for Plan {}

/// What a product computes; destroyed when dropped.
#[derive(Debug)]
struct Description(sys::cublasLtMatmulDesc_t);

impl Description {
    /// Sums in single precision, operands transposed or not.
    fn new(transposed: [bool; 2]) -> Result<Self, DeviceFault> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let single = sys::cudaDataType_t::CUDA_R_32F;
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let new = Self(result::create_matmul_desc(compute, single).map_err(fault)?);
        let attributes =
            [Attribute::CUBLASLT_MATMUL_DESC_TRANSA, Attribute::CUBLASLT_MATMUL_DESC_TRANSB];
        for (attribute, transposed) in attributes.into_iter().zip(transposed) {
            let (value, bytes) = (i32::from(transposed), size_of::<i32>());
            let value = (&raw const value).cast();
            // SAFETY: the description is live and the value has the attribute's size.
            unsafe { result::set_matmul_desc_attribute(new.0, attribute, value, bytes) }
                .map_err(fault)?;
        }
        Ok(new)
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// How an operand lies in memory; destroyed when dropped.
#[derive(Debug)]
struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    fn new(element: Element, size: Columns) -> Result<Self, DeviceFault> {
        let element = match element {
            Element::F32 => sys::cudaDataType_t::CUDA_R_32F,
            Element::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
        };
        let Columns { rows, columns, leading } = size;
        let made =
            result::create_matrix_layout(element, rows as u64, columns as u64, leading as i64);
        Ok(Self(made.map_err(fault)?))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// What the library is asked to prefer; destroyed when dropped.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new(key: &Key) -> Result<Self, DeviceFault> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let new = Self(result::create_matmul_pref().map_err(fault)?);
        let workspace = WORKSPACE_BYTES;
        new.set(
            Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            (&raw const workspace).cast(),
            size_of::<usize>(),
        )?;
        let [left, right, out] = key.alignments;
        for (attribute, alignment) in [
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, right),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, left),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out),
        ] {
            new.set(attribute, (&raw const alignment).cast(), size_of::<u32>())?;
        }
        Ok(new)
    }

    fn set(
        &self,
        attribute: sys::cublasLtMatmulPreferenceAttributes_t,
        value: *const c_void,
        bytes: usize,
    ) -> Result<(), DeviceFault> {
        // SAFETY: the preference is live and the value has so many bytes.
        unsafe { result::set_matmul_pref_attribute(self.0, attribute, value, bytes) }.map_err(fault)
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

fn fault(error: CublasError) -> DeviceFault {
    DeviceFault::new(FaultKind::Device, format!("CUDA's matrix library: {error}"))
}

/// Scratch memory, freed when dropped.
#[derive(Debug)]
struct Workspace(Address);

impl Workspace {
    fn allocate() -> Result<Self, DeviceFault> {
        // SAFETY: the memory is only used as scratch and freed when dropped.
        let address = unsafe { driver::result::malloc_sync(WORKSPACE_BYTES) };
        address.map(Self).map_err(|error| {
            let message = format!(
                "no memory on the device for CUDA's matrix library ({:?}); free what other \
                 programs hold",
                error.0
            );
            DeviceFault::new(FaultKind::OutOfMemory, message)
        })
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // SAFETY: allocated once; the owner of the stream has waited for its work.
        let _ = unsafe { driver::result::free_sync(self.0) };
    }
}

impl Blas {
    /// Opens the library; the context of the stream is current, also when it is dropped,
    /// and then all work is done.
    pub(crate) fn new(stream: driver::sys::CUstream) -> Result<Self, DeviceFault> {
        let workspace = Workspace::allocate()?;
        let handle = result::create_handle().map_err(fault)?;
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
        if plans.len() == MAX_PLANS && !plans.contains_key(&key) {
            plans.clear();
        }
        let plan = match plans.entry(key) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => new.insert(self.plan(&key)?),
        };
        let Some(plan) = plan else { return Ok(false) };
        let beta = if product.add { 1.0f32 } else { 0.0 };
        let [left, right, out] = plan.layouts.each_ref().map(|layout| layout.0);
        // SAFETY: the caller's promise; the plan describes these operands.
        unsafe {
            result::matmul(
                self.handle,
                plan.description.0,
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
                self.workspace.0 as *mut c_void,
                WORKSPACE_BYTES,
                self.stream.cast(),
            )
        }
        .map_err(fault)?;
        Ok(true)
    }

    /// Asks the library for its best algorithm.
    fn plan(&self, key: &Key) -> Result<Option<Plan>, DeviceFault> {
        let description = Description::new(key.operands.map(|(_, transposed)| transposed))?;
        let [a, b, c] = key.layouts();
        let layouts = [
            Layout::new(key.element, a)?,
            Layout::new(key.element, b)?,
            Layout::new(Element::F32, c)?,
        ];
        let preference = Preference::new(key)?;
        let [a, b, c] = layouts.each_ref().map(|layout| layout.0);
        let (handle, asked, preferred) = (self.handle, description.0, preference.0);
        // SAFETY: everything passed is live.
        let found =
            unsafe { result::get_matmul_algo_heuristic(handle, asked, a, b, c, c, preferred) };
        match found {
            Ok(found) => Ok(Some(Plan { description, layouts, algorithm: found.algo })),
            Err(CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)) => Ok(None),
            Err(error) => Err(fault(error)),
        }
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once, and nothing is multiplied any more.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// A matrix as the library sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Columns {
    rows: usize,
    columns: usize,
    /// Elements from one column to the next.
    leading: usize,
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

    /// The operands and the result in the library's order. A matrix of one column may
    /// have any leading dimension that is not below its rows, and ours may be.
    fn layouts(&self) -> [Columns; 3] {
        let [rows, columns, inner] = self.size;
        let stored = |(leading, transposed): (usize, bool), (rows, columns)| {
            let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
            Columns { rows, columns, leading: leading.max(rows) }
        };
        let [left, right] = self.operands;
        [
            stored(left, (columns, inner)),
            stored(right, (inner, rows)),
            Columns { rows: columns, columns: rows, leading: columns },
        ]
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
    fn a_width_of_one_has_a_valid_leading_dimension() {
        let key = |size: [usize; 3], left, right| {
            let product = Product {
                rows: size[0],
                columns: size[1],
                inner: size[2],
                element: Element::F32,
                left,
                right,
                out: 0,
                scale: 1.0,
                add: false,
            };
            Key::of(&product)
        };
        let operand = |outer, inner| Operand { address: 0, outer, inner };
        let of = |rows, columns, leading| Columns { rows, columns, leading };
        // d_weight of a map to one number: d_out[t, 1]ᵀ x[t, 7] of 9 tokens.
        let found = key([1, 7, 9], operand(1, 1), operand(1, 7)).layouts();
        assert_eq!(found, [of(7, 9, 7), of(9, 1, 9), of(7, 1, 7)]);
        // d_x of a map from one number: d_out[9, 7] w[7, 1].
        let found = key([9, 1, 7], operand(7, 1), operand(1, 1)).layouts();
        assert_eq!(found, [of(7, 1, 7), of(7, 9, 7), of(1, 9, 1)]);
        // The rows of a wider matrix keep its width.
        let found = key([2, 3, 5], operand(8, 1), operand(1, 6)).layouts();
        assert_eq!(found, [of(3, 5, 6), of(5, 2, 8), of(3, 2, 3)]);
    }

    #[test]
    fn alignments_are_powers_of_two_up_to_a_limit() {
        assert_eq!([4, 8, 12, 256, 4096].map(alignment), [4, 8, 4, 256, 256]);
    }
}
