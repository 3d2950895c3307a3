//! Files of comparisons: JSON lines, JSON arrays, gzip and Parquet, of every format. The
//! first byte chooses the format that is asked for.
#![no_main]

use std::io::{Seek, Write};

use libfuzzer_sys::fuzz_target;
use patarm_text::dataset::Limits;
use patarm_text::{ComparisonReader, Format, ReadOptions};

/// The reader of Parquet files turns panics of the library below it into errors of the
/// file; only others are findings.
fn let_guarded_panics_pass() {
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or("", |location| location.file());
        if !place.contains("/parquet-") {
            abort(panic);
        }
    }));
}

fuzz_target!(init: let_guarded_panics_pass(), |data: &[u8]| {
    let Some((format, bytes)) = data.split_first() else { return };
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("written");
    file.rewind().expect("rewound");
    let options = ReadOptions {
        // One past the last: found from the first row.
        format: Format::ALL.get(usize::from(*format) % (Format::ALL.len() + 1)).copied(),
        limits: Limits { max_row_bytes: 1 << 16, max_rows: Some(1_000) },
        ..ReadOptions::default()
    };
    let Ok(reader) = ComparisonReader::open(file.path(), &options) else { return };
    // An error of the file ends it, an error of a row does not.
    assert!(reader.count() <= 100_000);
});
