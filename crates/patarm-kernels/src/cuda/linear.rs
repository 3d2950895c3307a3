//! Linear maps and their gradients, in the arithmetic of the weight.

use super::core::{Core, Grid, bytes_of_u64, input, number, offset, output, scratch};
use super::device::{Address, Argument, Element, Operand, Product};
use super::memory::Block;
use crate::backend::{LinearShape, Update};
use crate::buffer::Buffer;
use crate::cpu::Precision;

/// Side of the square of results that a block of the plain kernel computes.
const SIDE: usize = 16;
const BF16_BYTES: usize = 2;

impl Element {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::Bf16 => BF16_BYTES,
        }
    }
}

/// Type of the operands of products with a weight.
pub(crate) fn element_with(precision: Precision, weight: &Buffer) -> Element {
    match (weight.weight(), precision) {
        (Some(_), Precision::Bf16) => Element::Bf16,
        _ => Element::F32,
    }
}

/// Numbers in the type a product wants: as they are, or rounded into scratch memory.
pub(crate) enum Operands {
    AsTheyAre(Address),
    Rounded(Block),
}

impl Operands {
    /// `len` numbers from `address` on.
    pub(crate) fn new(core: &Core, address: Address, len: usize, element: Element) -> Self {
        match element {
            Element::F32 => Self::AsTheyAre(address),
            Element::Bf16 => Self::Rounded(round(core, address, len)),
        }
    }

    /// Numbers of a buffer.
    pub(crate) fn of(core: &Core, buffer: &Buffer, element: Element) -> Self {
        Self::new(core, buffer.device().address(), buffer.len(), element)
    }

    pub(crate) fn address(&self) -> Address {
        match self {
            Self::AsTheyAre(address) => *address,
            Self::Rounded(block) => block.address(),
        }
    }
}

/// Address of a weight in the type of its products. Rounded ones are kept beside the
/// values until those change.
pub(crate) fn weight_address(core: &Core, weight: &Buffer, element: Element) -> Address {
    let values = weight.device().address();
    match (element, weight.weight()) {
        (Element::Bf16, Some(prepared)) => {
            let panels = prepared.panels.get_or_init(|| {
                let len = weight.len();
                Buffer::on_device(round(core, values, len), len.div_ceil(2))
            });
            panels.device().address()
        }
        _ => values,
    }
}

fn round(core: &Core, address: Address, len: usize) -> Block {
    let block = core.take(len * BF16_BYTES);
    let arguments = [Argument::Pointer(address), scratch(&block), Argument::U64(len as u64)];
    core.launch("round_to_bf16", Grid::over(len), &arguments);
    block
}

/// `out (+)= scale · x · wᵀ + bias`.
pub(crate) struct Forward<'a> {
    pub(crate) x: &'a Buffer,
    pub(crate) weight: &'a Buffer,
    pub(crate) bias: Option<&'a Buffer>,
    pub(crate) shape: LinearShape,
    pub(crate) scale: f32,
}

impl Forward<'_> {
    pub(crate) fn compute(
        &self,
        core: &Core,
        precision: Precision,
        (out, update): (&mut Buffer, Update),
    ) {
        let mut add = update == Update::Add;
        if let Some(bias) = self.bias {
            spread_bias(core, bias, out, add);
            add = true;
        }
        let element = element_with(precision, self.weight);
        let x = Operands::of(core, self.x, element);
        let weight = weight_address(core, self.weight, element);
        let addresses = [x.address(), weight, out.device_mut().address()];
        let plain = x_by_weight(element, addresses, self.shape);
        multiply(core, &Product { scale: self.scale, add, ..plain });
    }
}

/// `out = x · wᵀ`.
fn x_by_weight(
    element: Element,
    [x, weight, out]: [Address; 3],
    LinearShape { tokens, input, output }: LinearShape,
) -> Product {
    Product {
        rows: tokens,
        columns: output,
        inner: input,
        element,
        left: Operand { address: x, outer: input, inner: 1 },
        right: Operand { address: weight, outer: input, inner: 1 },
        out,
        scale: 1.0,
        add: false,
    }
}

fn spread_bias(core: &Core, bias: &Buffer, out: &mut Buffer, add: bool) {
    let len = out.len();
    let (width, len_argument) = (number(bias.len()), Argument::U64(len as u64));
    let add = Argument::U32(u32::from(add));
    let arguments = [input(bias), Argument::U32(width), output(out), len_argument, add];
    core.launch("spread_bias", Grid::over(len), &arguments);
}

/// `d_x (+)= scale · d_out · w`.
pub(crate) fn backward_input(
    core: &Core,
    precision: Precision,
    (d_out, weight): (&Buffer, &Buffer),
    (shape, scale): (LinearShape, f32),
    (d_x, update): (&mut Buffer, Update),
) {
    let LinearShape { tokens, input, output } = shape;
    let element = element_with(precision, weight);
    let left = Operands::of(core, d_out, element);
    multiply(
        core,
        &Product {
            rows: tokens,
            columns: input,
            inner: output,
            element,
            left: Operand { address: left.address(), outer: output, inner: 1 },
            right: Operand {
                address: weight_address(core, weight, element),
                outer: 1,
                inner: input,
            },
            out: d_x.device_mut().address(),
            scale,
            add: update == Update::Add,
        },
    );
}

/// `d_weight += scale · d_outᵀ · x`.
pub(crate) fn backward_weight(
    core: &Core,
    element: Element,
    (d_out, x): (&Buffer, &Buffer),
    (shape, scale): (LinearShape, f32),
    d_weight: &mut Buffer,
) {
    let LinearShape { tokens, input, output } = shape;
    let left = Operands::of(core, d_out, element);
    let right = Operands::of(core, x, element);
    multiply(
        core,
        &Product {
            rows: output,
            columns: input,
            inner: tokens,
            element,
            left: Operand { address: left.address(), outer: 1, inner: output },
            right: Operand { address: right.address(), outer: 1, inner: input },
            out: d_weight.device_mut().address(),
            scale,
            add: true,
        },
    );
}

/// `out = x · wᵀ`: logits, of rows in the type of the weight's products.
pub(crate) fn logits(core: &Core, element: Element, addresses: [Address; 3], shape: LinearShape) {
    multiply(core, &x_by_weight(element, addresses, shape));
}

/// A product of any size, also none.
pub(crate) fn multiply(core: &Core, product: &Product) {
    let len = product.rows * product.columns;
    if len == 0 || (product.inner == 0 && product.add) {
        return;
    }
    if product.inner == 0 {
        fill(core, product.out, 0.0, len);
        return;
    }
    core.product(product);
}

/// Sets `len` elements from an address on.
pub(crate) fn fill(core: &Core, address: Address, value: f32, len: usize) {
    let arguments = [Argument::Pointer(address), Argument::F32(value), Argument::U64(len as u64)];
    core.launch("fill", Grid::over(len), &arguments);
}

/// A product by our own kernel, for shapes the vendor's library refuses.
pub(crate) fn plain_product(core: &Core, product: &Product) {
    let Product { rows, columns, inner, element, left, right, out, scale, add } = *product;
    let kernel = match element {
        Element::F32 => "product_f32",
        Element::Bf16 => "product_bf16",
    };
    let strides = |operand: Operand| bytes_of_u64(&[operand.outer as u64, operand.inner as u64]);
    let (by_row, by_column) = (strides(left), strides(right));
    let grid = Grid::blocks(columns.div_ceil(SIDE) * rows.div_ceil(SIDE));
    let arguments = [
        Argument::Pointer(left.address),
        Argument::Bytes(&by_row),
        Argument::Pointer(right.address),
        Argument::Bytes(&by_column),
        Argument::Pointer(out),
        Argument::U32(number(rows)),
        Argument::U32(number(columns)),
        Argument::U32(number(inner)),
        Argument::F32(scale),
        Argument::U32(u32::from(add)),
    ];
    core.launch(kernel, grid, &arguments);
}

/// Address of a row of a matrix.
pub(crate) fn row(address: Address, row: usize, width: usize, element: Element) -> Address {
    offset(address, row * width, element.bytes())
}
