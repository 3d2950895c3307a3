//! The largest values accepted from a file, far above any real model and far
//! below what would hurt the machine that reads it.

/// Largest number of key-value pairs in a GGUF header.
pub const MAX_METADATA_ENTRIES: u64 = 1 << 16;
/// Largest number of tensors in one file (GGUF or safetensors).
pub const MAX_TENSORS: usize = 1 << 17;
/// Longest metadata key or tensor name, in bytes.
pub const MAX_NAME_BYTES: u64 = 65_535;
/// Longest string value in GGUF metadata, in bytes; chat templates are the longest real ones.
pub const MAX_STRING_BYTES: u64 = 16 << 20;
/// Largest number of items in one GGUF metadata array; vocabularies are the longest real ones.
pub const MAX_ARRAY_ITEMS: u64 = 1 << 23;
/// Deepest nesting of arrays in arrays in GGUF metadata.
pub const MAX_ARRAY_DEPTH: usize = 4;
/// Largest number of dimensions of a GGUF tensor, as in the format itself.
pub const MAX_DIMENSIONS: u32 = 4;
/// Largest alignment of GGUF tensor data, in bytes.
pub const MAX_ALIGNMENT: u64 = 1 << 20;
/// Largest safetensors header, in bytes.
pub const MAX_SAFETENSORS_HEADER_BYTES: u64 = 8 << 20;
/// Largest number of files that a sharded safetensors model may name.
pub const MAX_SHARDS: usize = 4_096;
/// Largest `config.json`, `generation_config.json` or the like, in bytes.
pub const MAX_JSON_BYTES: u64 = 4 << 20;
/// Largest `model.safetensors.index.json`, in bytes.
pub const MAX_INDEX_BYTES: u64 = 8 << 20;

/// Largest number of decoder layers of a model.
pub const MAX_LAYERS: usize = 1_024;
/// Largest number of attention heads of a model.
pub const MAX_HEADS: usize = 1_024;
/// Largest width of one attention head.
pub const MAX_HEAD_DIM: usize = 1_024;
/// Largest hidden or intermediate width of a model.
pub const MAX_WIDTH: usize = 1 << 18;
/// Largest vocabulary of a model.
pub const MAX_VOCABULARY: usize = 1 << 23;
/// Longest context a model may declare, in tokens.
pub const MAX_CONTEXT: usize = 1 << 28;
