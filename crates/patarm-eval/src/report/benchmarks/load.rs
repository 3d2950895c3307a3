//! Reading the folder of an evaluation.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use super::{BenchmarkRun, worst::worst};
use crate::{
    Error, Result,
    benchmark::{
        output::{ITEMS_FILE, JUDGEMENTS_FILE, SUMMARY_FILE, read_items, read_summary},
        summary::JudgementRecord,
    },
    lines::read_lines,
};

/// Most judgements kept of an item.
const MAX_JUDGEMENTS: usize = 8;

/// Whether a folder is the result of an evaluation on a benchmark.
pub(in crate::report) fn is_evaluation(dir: &Path) -> bool {
    dir.join(SUMMARY_FILE).is_file()
}

/// Reads figures and items, and the judgements of the worst items only: a judge may have
/// written more than fits into memory.
///
/// # Errors
/// Names the file, and the line where there is one.
pub(in crate::report) fn load_evaluation(dir: &Path, name: &str) -> Result<BenchmarkRun> {
    let summary = read_summary(dir)?;
    let items = if dir.join(ITEMS_FILE).is_file() { read_items(dir)? } else { Vec::new() };
    let wanted: HashSet<&str> = worst(&items).into_iter().map(|item| item.id.as_str()).collect();
    let judgements = judgements(&dir.join(JUDGEMENTS_FILE), &wanted)?;
    Ok(BenchmarkRun { name: name.to_owned(), summary, items, judgements })
}

fn judgements(path: &Path, wanted: &HashSet<&str>) -> Result<Vec<JudgementRecord>> {
    let mut kept = Vec::new();
    if !path.is_file() || wanted.is_empty() {
        return Ok(kept);
    }
    let mut counts: HashMap<String, usize> = HashMap::new();
    read_lines(path, |line| {
        let record: JudgementRecord = serde_json::from_slice(line.bytes)
            .map_err(|e| Error::bad_input(format!("not a judgement record: {e}")))?;
        if wanted.contains(record.item.as_str()) {
            let count = counts.entry(record.item.clone()).or_default();
            *count += 1;
            if *count <= MAX_JUDGEMENTS {
                kept.push(record);
            }
        }
        Ok(())
    })?;
    Ok(kept)
}
