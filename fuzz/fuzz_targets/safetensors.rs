//! Safetensors: header and tensors.
#![no_main]

use libfuzzer_sys::fuzz_target;
use patarm_files::{FileBytes, SafetensorsFile};

/// Tensors beyond this are not read: only memory would be tested.
const MAX_VALUES: usize = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = SafetensorsFile::parse(FileBytes::owned(data.to_vec())) else { return };
    for (name, tensor) in file.tensors() {
        if tensor.num_values <= MAX_VALUES
            && let Ok(values) = file.read(name)
        {
            assert_eq!(values.len(), tensor.num_values);
        }
    }
});
