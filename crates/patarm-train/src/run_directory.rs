//! A run is a directory: recipe, state, metrics, samples, checkpoints.
//!
//! Everything that matters is written beside its place and renamed, so that a
//! crash at any instant leaves the previous version whole. Metrics are appended
//! line by line; on resume, lines of steps after the checkpoint are dropped.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::recipe::Recipe;
use crate::tfevents::EventWriter;

/// Version of `run.json`.
pub const RUN_VERSION: u32 = 1;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Started, not finished.
    Running,
    /// Stopped by the user; resumable.
    Interrupted,
    /// Done.
    Finished,
}

/// What `run.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunInfo {
    /// [`RUN_VERSION`].
    pub version: u32,
    /// Version of the program.
    pub program: String,
    /// Label of the method; runs stay "PaTaRM-style" until the paper's details are confirmed.
    pub method: String,
    /// Seed.
    pub seed: u64,
    /// SHA-256 of the model's weights, where a file was hashed.
    pub model_sha256: Option<String>,
    /// SHA-256 of the training comparisons.
    pub data_sha256: String,
    /// Device and instruction set.
    #[serde(default)]
    pub device: String,
    /// Arithmetic of products with weights: `f32` or `bf16`.
    #[serde(default)]
    pub precision: String,
    /// Training pairs after filtering.
    pub num_pairs: usize,
    /// Held-out pairs.
    pub num_held_out: usize,
    /// State.
    pub state: RunState,
}

impl RunInfo {
    /// Refuses to go on with the run in `path` as something that it is not: what comes
    /// out would be no run that could be repeated.
    ///
    /// # Errors
    /// When the run there was described otherwise, or its description cannot be read.
    pub fn check_continues(&self, path: &Path) -> Result<(), Error> {
        let place = path.join("run.json");
        if !place.exists() {
            return Ok(());
        }
        let text = fs::read_to_string(&place).map_err(|error| Error::run(&place, error))?;
        let before: Self = serde_json::from_str(&text).map_err(|error| {
            Error::run(&place, format!("not the description of a run: {error}"))
        })?;
        match self.difference(&before) {
            Some(message) => Err(Error::run(path, format!("cannot be resumed: {message}"))),
            None => Ok(()),
        }
    }

    fn difference(&self, before: &Self) -> Option<String> {
        if self.method != before.method {
            Some(format!("it is a run of {}, not of {}", before.method, self.method))
        } else if self.precision != before.precision && !before.precision.is_empty() {
            let precision = &before.precision;
            Some(format!("it computes in {precision}; give --precision {precision}"))
        } else if self.data_sha256 != before.data_sha256 {
            Some("it trains on other data; give the data and the seed it began with".into())
        } else if self.seed != before.seed {
            Some(format!("its seed is {}", before.seed))
        } else {
            None
        }
    }
}

/// A stage of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Supervised cold start.
    ColdStart,
    /// Preference-aware reinforcement.
    Grpo,
    /// A scalar reward model on pairs.
    BradleyTerry,
    /// Ratings from the model's own digits, on pairs.
    Oprm,
    /// A token-level reward model on pairs.
    QRm,
    /// A scalar reward model on pairs of pass and fail labels.
    SoliReward,
    /// An energy network on a frozen reward model.
    Ebrm,
    /// A process reward model on solutions in steps.
    ProcessReward,
}

impl Phase {
    /// Name in metrics and folder names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ColdStart => "cold_start",
            Self::Grpo => "grpo",
            Self::BradleyTerry => "bradley_terry",
            Self::Oprm => "oprm",
            Self::QRm => "q_rm",
            Self::SoliReward => "soli_reward",
            Self::Ebrm => "ebrm",
            Self::ProcessReward => "process_reward",
        }
    }
}

/// Writes one run's files.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    events: EventWriter,
    seconds: fn() -> f64,
}

impl RunDirectory {
    /// Creates the directory with its recipe, or opens one to resume.
    ///
    /// # Errors
    /// When it cannot be created, or holds another run and is not resumed.
    pub fn open(
        path: &Path,
        recipe: &Recipe,
        is_resume: Resume,
        seconds: fn() -> f64,
    ) -> Result<Self, Error> {
        let recipe_path = path.join("recipe.toml");
        if is_resume == Resume::No && recipe_path.exists() {
            return Err(Error::run(
                path,
                "a run is here already; choose another --out or use --resume",
            ));
        }
        for folder in ["samples", "checkpoints", "evaluations"] {
            fs::create_dir_all(path.join(folder)).map_err(|error| Error::run(path, error))?;
        }
        let text = recipe.to_toml().map_err(|message| Error::run(&recipe_path, message))?;
        write_atomically(&recipe_path, text.as_bytes())?;
        let events_path = path.join("events.out.tfevents.0.patarm");
        let events =
            EventWriter::open(&events_path).map_err(|error| Error::run(&events_path, error))?;
        Ok(Self { path: path.to_path_buf(), events, seconds })
    }

    /// Where the run lives.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `run.json`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_info(&self, info: &RunInfo) -> Result<(), Error> {
        write_json(&self.path.join("run.json"), info)
    }

    /// Appends one line of metrics, and the same numbers to the event file.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn metrics(
        &mut self,
        phase: Phase,
        step: u64,
        values: &[(String, f64)],
    ) -> Result<(), Error> {
        let mut line = serde_json::Map::new();
        line.insert("phase".into(), phase.name().into());
        line.insert("step".into(), step.into());
        for (name, value) in values {
            let value =
                serde_json::Number::from_f64(*value).map_or(serde_json::Value::Null, Into::into);
            line.insert(name.clone(), value);
        }
        let text = serde_json::Value::Object(line).to_string();
        append_line(&self.path.join("metrics.jsonl"), &text)?;
        let tagged: Vec<(String, f64)> = values
            .iter()
            .map(|(name, value)| (format!("{}/{name}", phase.name()), *value))
            .collect();
        let wall_time_s = (self.seconds)();
        self.events
            .scalars(step, wall_time_s, &tagged)
            .map_err(|error| Error::run(&self.path, error))
    }

    /// Appends one record to `NAME.jsonl`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&self, name: &str, record: &impl Serialize) -> Result<(), Error> {
        let path = self.path.join(format!("{name}.jsonl"));
        let text = serde_json::to_string(record).map_err(|error| Error::run(&path, error))?;
        append_line(&path, &text)
    }

    /// Drops metrics after the given point, so that a resumed run repeats no line.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn truncate_metrics(&self, phase: Phase, step: u64) -> Result<(), Error> {
        let path = self.path.join("metrics.jsonl");
        let Ok(text) = fs::read_to_string(&path) else {
            return Ok(());
        };
        let keeps = |line: &&str| {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else {
                return false;
            };
            let at = value["step"].as_u64().unwrap_or(u64::MAX);
            value["phase"] == phase.name() && at <= step
                || value["phase"] == Phase::ColdStart.name() && phase == Phase::Grpo
        };
        let kept: String = text.lines().filter(keeps).flat_map(|line| [line, "\n"]).collect();
        write_atomically(&path, kept.as_bytes())
    }
}

/// Whether a run goes on where an earlier one stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Start anew.
    No,
    /// Go on.
    Yes,
}

/// Writes a value as pretty JSON, atomically.
///
/// # Errors
/// When it cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::run(path, error))?;
    write_atomically(path, format!("{text}\n").as_bytes())
}

/// Writes beside, syncs, renames.
///
/// # Errors
/// When it cannot be written; the previous file stays.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error| Error::run(path, error))
}

fn append_line(path: &Path, text: &str) -> Result<(), Error> {
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::options().create(true).append(true).open(path)?;
        file.write_all(format!("{text}\n").as_bytes())
    };
    write().map_err(|error| Error::run(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe::parse("version = 1\nmodel = \"m\"\n[data]\ntrain = \"x\"\n", &[]).expect("valid")
    }

    #[test]
    fn resuming_drops_the_metrics_of_lost_steps() {
        let folder = tempfile::tempdir().expect("folder");
        let mut run =
            RunDirectory::open(folder.path(), &recipe(), Resume::No, || 0.0).expect("open");
        for step in 1..=3 {
            run.metrics(Phase::ColdStart, step, &[("loss".into(), 1.0)]).expect("write");
        }
        for step in 1..=4 {
            run.metrics(Phase::Grpo, step, &[("loss".into(), f64::NAN)]).expect("write");
        }
        run.truncate_metrics(Phase::Grpo, 2).expect("truncate");
        let text = fs::read_to_string(folder.path().join("metrics.jsonl")).expect("read");
        assert_eq!(text.lines().count(), 5);
        assert!(text.lines().last().expect("line").contains("\"loss\":null"));
    }

    #[test]
    fn a_run_goes_on_as_what_it_was() {
        let folder = tempfile::tempdir().expect("folder");
        let info = RunInfo {
            version: RUN_VERSION,
            program: "patarm".into(),
            method: "OPRM".into(),
            seed: 3,
            model_sha256: None,
            data_sha256: "aa".into(),
            device: "cpu-avx2".into(),
            precision: "f32".into(),
            num_pairs: 1,
            num_held_out: 1,
            state: RunState::Running,
        };
        let check = |info: &RunInfo| info.check_continues(folder.path());
        assert!(check(&info).is_ok(), "there is nothing yet");
        write_json(&folder.path().join("run.json"), &info).expect("write");
        let elsewhere = RunInfo { device: "cpu-avx512f".into(), num_pairs: 2, ..info.clone() };
        assert!(check(&elsewhere).is_ok());
        for (changed, named) in [
            (RunInfo { precision: "bf16".into(), ..info.clone() }, "give --precision f32"),
            (RunInfo { data_sha256: "bb".into(), ..info.clone() }, "other data"),
            (RunInfo { method: "EBRM".into(), ..info.clone() }, "a run of OPRM, not of EBRM"),
            (RunInfo { seed: 4, ..info.clone() }, "its seed is 3"),
        ] {
            let message = check(&changed).expect_err("refused").to_string();
            assert!(message.contains(named), "{message}");
        }
        fs::write(folder.path().join("run.json"), "{").expect("write");
        assert!(check(&info).expect_err("refused").to_string().contains("not the description"));
    }

    #[test]
    fn a_second_run_does_not_overwrite_the_first() {
        let folder = tempfile::tempdir().expect("folder");
        RunDirectory::open(folder.path(), &recipe(), Resume::No, || 0.0).expect("open");
        assert!(RunDirectory::open(folder.path(), &recipe(), Resume::No, || 0.0).is_err());
        assert!(RunDirectory::open(folder.path(), &recipe(), Resume::Yes, || 0.0).is_ok());
    }
}
