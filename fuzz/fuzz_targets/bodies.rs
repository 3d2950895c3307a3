//! Bodies of every route that takes one: a line with the route, then the body.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let Ok(path) = std::str::from_utf8(&data[..end]) else { return };
    // `None`: no such route.
    if let Some(Err(fault)) = patarm_serve::parse_body(path, &data[end + 1..]) {
        assert!(fault.code.status().is_client_error(), "{path}: {fault:?}");
    }
});
