//! The sources of the kernels, embedded in the binary, and how they are compiled.

use super::device::Element;

/// What is compiled as one: sources, joined, and definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Program {
    /// Everything but attention.
    Base,
    /// Attention for one head width and type of its products.
    Attention {
        /// Width of a head.
        head_dim: u32,
        /// Type of the operands.
        element: Element,
    },
}

const BASE: &[&str] = &[
    include_str!("common.cu"),
    include_str!("elementwise.cu"),
    include_str!("rows.cu"),
    include_str!("product.cu"),
    include_str!("statistics.cu"),
    include_str!("sampler.cu"),
];

const ATTENTION: &[&str] =
    &[include_str!("common.cu"), include_str!("tiles.cu"), include_str!("attention.cu")];

impl Program {
    /// The source.
    #[must_use]
    pub(crate) fn source(self) -> String {
        match self {
            Self::Base => BASE.concat(),
            Self::Attention { .. } => ATTENTION.concat(),
        }
    }

    /// Definitions, as options of a compiler.
    #[must_use]
    pub(crate) fn definitions(self) -> Vec<String> {
        match self {
            Self::Base => Vec::new(),
            Self::Attention { head_dim, element } => {
                let bf16 = u32::from(element == Element::Bf16);
                vec![format!("-DHEAD_DIM={head_dim}"), format!("-DBF16={bf16}")]
            }
        }
    }

    /// The kernels it defines.
    #[must_use]
    pub(crate) fn kernels(self) -> &'static [&'static str] {
        match self {
            Self::Base => &[
                "fill",
                "axpy",
                "round_to_bf16",
                "spread_bias",
                "swiglu",
                "swiglu_backward",
                "sum_of_squares",
                "add_partial_squares",
                "adamw",
                "adamw_eight_bits",
                "gather_rows",
                "scatter_rows",
                "scatter_add_rows",
                "rms_norm",
                "rms_norm_backward",
                "norm_weight_partial",
                "column_partial",
                "add_partial_rows",
                "rope",
                "rotated_norm",
                "rotated_norm_backward",
                "product_f32",
                "product_bf16",
                "statistics_begin",
                "statistics_add",
                "statistics_finish",
                "take_chosen",
                "add_chosen",
                "statistics_slopes",
                "draw_tokens",
            ],
            Self::Attention { .. } => &[
                "attention_forward",
                "attention_forward_parts",
                "attention_join_parts",
                "attention_delta",
                "attention_backward_queries",
                "attention_backward_keys",
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names after `KERNEL` (and launch bounds) and before the parenthesis.
    fn defined(source: &str) -> Vec<String> {
        let pieces = source.split("\nKERNEL ").skip(1);
        pieces
            .map(|piece| {
                let piece = match piece.strip_prefix("__launch_bounds__(") {
                    Some(rest) => rest.split_once(')').map_or("", |(_, rest)| rest),
                    None => piece,
                };
                piece.split('(').next().unwrap_or("").trim().to_owned()
            })
            .collect()
    }

    #[test]
    fn every_kernel_of_the_sources_is_listed() {
        let attention = Program::Attention { head_dim: 64, element: Element::F32 };
        for program in [Program::Base, attention] {
            let mut found = defined(&program.source());
            let mut listed = program.kernels().to_vec();
            found.sort_unstable();
            listed.sort_unstable();
            assert_eq!(found, listed);
        }
    }
}
