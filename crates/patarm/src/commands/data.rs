//! `patarm data …`: look at preference data, bring it into other shapes, mix it,
//! keep it apart from evaluation data.

mod pass_fail;
mod step_labels;
mod step_quality;
mod step_targets;
mod steps;
mod tasks;
mod tool_pairs;
mod traces;

use std::path::{Path, PathBuf};

use patarm_eval::tools::BuildOptions;
use patarm_text::dataset::{
    ComparisonReader, Format, OnError, OutputFormat, ReadError, ReadOptions, Skipped,
    write_comparisons,
};
use patarm_text::decontaminate::{DecontaminationReport, References, decontaminate};
use patarm_text::hub::{HubFile, fetch};
use patarm_text::inspect::{Inspection, Inspector};
use patarm_text::mix::{MixRecipe, MixedSource, mix_sources};
use patarm_text::{Comparison, Error, ErrorKind};
use serde::Serialize;

use crate::cli::{DataCommand, Global};
use crate::exit::{Code, failure};
use crate::{datasets, output};

/// Runs one of the data commands.
pub(crate) fn run(command: &DataCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        DataCommand::Inspect { file, format } => inspect(file, format.as_deref(), global),
        DataCommand::Convert { file, format, to, out, tasks } => {
            convert((file, format.as_deref()), (to, out), tasks.as_deref(), global)
        }
        DataCommand::Mix { recipe, out } => mix(recipe, out, global),
        DataCommand::ToolPairs { tasks, out, per_task, seed } => {
            let options = BuildOptions { per_task: *per_task, seed: *seed };
            tool_pairs::run(tasks, out, options, global)
        }
        DataCommand::PassFail(options) => pass_fail::run(options, global),
        DataCommand::Steps(options) => steps::run(options, global),
        DataCommand::StepLabels(options) => step_labels::run(options, global),
        DataCommand::StepQuality(options) => step_quality::run(options, global),
        DataCommand::StepTargets(options) => step_targets::run(options, global),
        DataCommand::Decontaminate { file, against, out, ngram } => {
            separate(file, against, (out, *ngram), global)
        }
    }
}

#[derive(Debug, Serialize)]
struct InspectReport<'a> {
    version: u32,
    file: &'a str,
    format: Option<&'static str>,
    rows: u64,
    skipped_rows: u64,
    /// The first few problems.
    problems: Vec<String>,
    data: Inspection,
}

/// Rows that cannot be used are counted, not fatal: finding them is the point.
fn inspect(file: &str, format: Option<&str>, global: &Global) -> anyhow::Result<()> {
    let mut reader = open(file, format, OnError::Skip)?;
    let mut inspector = Inspector::new();
    for comparison in reader.by_ref() {
        inspector.add(&comparison.map_err(|error| refused(&error))?);
    }
    let data = inspector.finish();
    let Skipped { count, examples } = reader.skipped();
    let problems: Vec<String> = examples.iter().map(ToString::to_string).collect();
    if data.comparisons == 0 {
        let reason = problems.first().map_or("the file is empty", String::as_str);
        return Err(failure(Code::Data, format!("{file}: no comparison can be used: {reason}")));
    }
    let format = reader.format().map(Format::name);
    let (rows, skipped_rows) = (reader.num_rows(), *count);
    if global.json {
        let report = InspectReport { version: 1, file, format, rows, skipped_rows, problems, data };
        return output::json(&report);
    }
    output::line(&format!("{file}: format {}", format.unwrap_or("unknown")))?;
    output::line(data.to_string().trim_end())?;
    if skipped_rows > 0 {
        output::line(&format!("{skipped_rows} of {rows} rows cannot be used, for example"))?;
    }
    problems.iter().try_for_each(|problem| output::line(&format!("  {problem}")))
}

#[derive(Debug, Serialize)]
struct ConvertReport<'a> {
    version: u32,
    out: &'a Path,
    from: Option<&'static str>,
    to: &'static str,
    comparisons: u64,
    /// Ties and unlabelled comparisons that the format cannot express.
    left_out: u64,
}

fn convert(
    (file, format): (&str, Option<&str>),
    (to, out): (&str, &Path),
    tasks: Option<&str>,
    global: &Global,
) -> anyhow::Result<()> {
    let to: OutputFormat = to.parse().map_err(|problem| usage("--to", problem))?;
    let (mut comparisons, from) = match datasets::read_bundled(file)? {
        Some(comparisons) => (comparisons, None),
        None => {
            let mut reader = open(file, format, OnError::Fail)?;
            (collect(&mut reader)?, reader.format().map(Format::name))
        }
    };
    if let Some(by) = tasks {
        tasks::fill_in(&mut comparisons, by, global)?;
    }
    let written = write_comparisons(out, to, &comparisons).map_err(|error| coded(&error))?;
    let report = ConvertReport {
        version: 1,
        out,
        from,
        to: to.name(),
        comparisons: written.comparisons,
        left_out: written.left_out,
    };
    if global.json {
        return output::json(&report);
    }
    if report.left_out > 0 {
        let left_out = report.left_out;
        output::remark(&format!(
            "{left_out} ties or unlabelled comparisons left out: only `--to native` keeps them"
        ));
    }
    output::line(&format!("{}: {} comparisons", out.display(), report.comparisons))
}

#[derive(Debug, Serialize)]
struct MixReport<'a> {
    version: u32,
    out: &'a Path,
    comparisons: u64,
    sources: Vec<MixedSource>,
}

fn mix(recipe: &Path, out: &Path, global: &Global) -> anyhow::Result<()> {
    let folder = recipe.parent().unwrap_or(Path::new(""));
    let parsed = MixRecipe::from_file(recipe).map_err(|error| coded(&error))?;
    let (comparisons, sources) =
        mix_sources(&parsed, folder, OnError::Fail).map_err(|error| coded(&error))?;
    let written = write_comparisons(out, OutputFormat::Native, &comparisons)
        .map_err(|error| coded(&error))?;
    let report = MixReport { version: 1, out, comparisons: written.comparisons, sources };
    if global.json {
        return output::json(&report);
    }
    for MixedSource { name, available, taken, .. } in &report.sources {
        output::line(&format!("{name}: {taken} of {available}"))?;
    }
    output::line(&format!("{}: {} comparisons", out.display(), report.comparisons))
}

#[derive(Debug, Serialize)]
struct DecontaminateReport<'a> {
    version: u32,
    out: &'a Path,
    /// Texts of the files that were compared with.
    reference_texts: u64,
    result: DecontaminationReport,
}

fn separate(
    file: &str,
    against: &[String],
    (out, ngram): (&Path, usize),
    global: &Global,
) -> anyhow::Result<()> {
    let mut references = References::new(ngram).map_err(|error| usage("--ngram", error))?;
    for reference in against {
        references
            .add_file(&local(reference)?, &ReadOptions::default())
            .map_err(|error| coded(&error))?;
    }
    let comparisons = collect(&mut open(file, None, OnError::Fail)?)?;
    let (kept, result) = decontaminate(comparisons, &references);
    write_comparisons(out, OutputFormat::Native, &kept).map_err(|error| coded(&error))?;
    let reference_texts = references.num_texts();
    let report = DecontaminateReport { version: 1, out, reference_texts, result };
    if global.json {
        return output::json(&report);
    }
    let DecontaminationReport { checked, kept, examples, .. } = &report.result;
    output::line(&format!("{}: {kept} of {checked} comparisons kept", out.display()))?;
    if !examples.is_empty() {
        output::line(&format!("removed, for example: {}", examples.join(", ")))?;
    }
    Ok(())
}

fn open(file: &str, format: Option<&str>, on_error: OnError) -> anyhow::Result<ComparisonReader> {
    let format = format.map(str::parse::<Format>).transpose();
    let format = format.map_err(|problem| usage("--format", problem))?;
    let options = ReadOptions { format, on_error, ..ReadOptions::default() };
    ComparisonReader::open(&local(file)?, &options).map_err(|error| refused(&error))
}

fn collect(reader: &mut ComparisonReader) -> anyhow::Result<Vec<Comparison>> {
    reader.collect::<Result<_, _>>().map_err(|error| refused(&error))
}

/// The file itself, or its copy from the hub.
fn local(source: &str) -> anyhow::Result<PathBuf> {
    match HubFile::parse(source).map_err(|error| usage("data", error))? {
        Some(address) => fetch(&address).map_err(|error| coded(&error)),
        None => Ok(PathBuf::from(source)),
    }
}

fn usage(what: &str, problem: impl std::fmt::Display) -> anyhow::Error {
    failure(Code::Usage, format!("{what}: {problem}"))
}

fn refused(error: &ReadError) -> anyhow::Error {
    failure(Code::Data, error.to_string())
}

/// A recipe that makes no sense is wrong usage, a hub that does not answer a
/// remote failure; everything else is about the data.
fn coded(error: &Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::Recipe => failure(Code::Usage, error.to_string()),
        ErrorKind::Hub => failure(Code::Remote, error.to_string()),
        _ => failure(Code::Data, error.to_string()),
    }
}
