//! Rows of `--scores` files: scores of responses, and answers about steps.
#![no_main]

use libfuzzer_sys::fuzz_target;
use patarm_eval::scores::ScoreTable;
use patarm_eval::steps::answers::AnswerTable;

fuzz_target!(|data: &[u8]| {
    let _ = ScoreTable::parse(data);
    let _ = AnswerTable::parse(data);
});
