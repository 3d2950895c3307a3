//! GGUF: header, metadata, tensors, and the configuration and tokenizer in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use patarm_files::{FileBytes, GgufFile, GgufTokenizer};

/// Tensors beyond this are not read: only memory would be tested.
const MAX_VALUES: usize = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = GgufFile::parse(FileBytes::owned(data.to_vec())) else { return };
    let _ = GgufTokenizer::read(file.metadata());
    let _ = patarm_files::ModelConfig::from_gguf(&file);
    for tensor in file.tensors() {
        if tensor.num_values <= MAX_VALUES
            && let Ok(values) = file.dequantise(&tensor.name)
        {
            assert_eq!(values.len(), tensor.num_values);
            if let Ok(Some(parts)) = file.quantised(&tensor.name) {
                let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                assert!(parts.values().iter().zip(&values).all(same));
            }
        }
    }
});
