//! GGUF tensor names and the Hugging Face names of the same weights.

/// Names outside of the layers.
const OUTER: [(&str, &str); 3] = [
    ("token_embd.", "model.embed_tokens."),
    ("output_norm.", "model.norm."),
    ("output.", "lm_head."),
];

/// Names inside a layer, behind `blk.N.` and `model.layers.N.`.
const INNER: [(&str, &str); 11] = [
    ("attn_norm.", "input_layernorm."),
    ("attn_q.", "self_attn.q_proj."),
    ("attn_k.", "self_attn.k_proj."),
    ("attn_v.", "self_attn.v_proj."),
    ("attn_q_norm.", "self_attn.q_norm."),
    ("attn_k_norm.", "self_attn.k_norm."),
    ("attn_output.", "self_attn.o_proj."),
    ("ffn_norm.", "post_attention_layernorm."),
    ("ffn_gate.", "mlp.gate_proj."),
    ("ffn_up.", "mlp.up_proj."),
    ("ffn_down.", "mlp.down_proj."),
];

/// The Hugging Face name of a GGUF tensor, or its own when it has none.
pub(super) fn hugging_face_name(gguf_name: &str) -> String {
    translated(gguf_name).unwrap_or_else(|| gguf_name.to_owned())
}

fn translated(gguf_name: &str) -> Option<String> {
    if let Some(rest) = gguf_name.strip_prefix("blk.") {
        let (layer, inner) = rest.split_once('.')?;
        layer.parse::<u32>().ok()?;
        return Some(format!("model.layers.{layer}.{}", replaced(inner, &INNER)?));
    }
    replaced(gguf_name, &OUTER)
}

fn replaced(name: &str, table: &[(&str, &str)]) -> Option<String> {
    table.iter().find_map(|(from, to)| name.strip_prefix(from).map(|rest| format!("{to}{rest}")))
}
