//! From the arguments about cohorts to their settings.

use std::path::Path;

use patarm_reward::par::ParConfig;
use patarm_reward::template::{JudgeTemplate, RubricMode};
use patarm_serve::CohortSettings;
use patarm_serve::cohort::CohortConfig;

use crate::cli::cohort::Cohort;
use crate::exit::{Code, failure};

/// Rule files beyond this are refused.
const MAX_RULE_BYTES: u64 = 64 << 10;

/// How cohorts are rewarded and how their judgements are read.
pub(super) fn settings(options: &Cohort, template: Option<&str>) -> anyhow::Result<CohortSettings> {
    let template = JudgeTemplate::load(template.unwrap_or("patarm"))?;
    let par = options.par_rule.as_deref().map(read_rule).transpose()?.unwrap_or_default();
    let config = CohortConfig {
        par,
        timeout_ms: options.cohort_timeout_s.saturating_mul(1_000),
        on_timeout: options.cohort_on_timeout.into(),
        retain_ms: options.cohort_retain_s.saturating_mul(1_000),
        ..CohortConfig::default()
    };
    config.validate().map_err(|message| failure(Code::Usage, message))?;
    Ok(CohortSettings { config, format: template.format(RubricMode::Both) })
}

fn read_rule(path: &Path) -> anyhow::Result<ParConfig> {
    let wrong = |what: String| failure(Code::Usage, format!("{}: {what}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if size > MAX_RULE_BYTES {
        return Err(wrong(format!("larger than {MAX_RULE_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    toml::from_str(&text).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::cli::cohort::OnTimeout;

    fn options(par_rule: Option<std::path::PathBuf>) -> Cohort {
        Cohort {
            par_only: true,
            par_rule,
            cohort_timeout_s: 7,
            cohort_on_timeout: OnTimeout::Partial,
            cohort_retain_s: 3,
        }
    }

    #[test]
    fn arguments_become_settings() {
        let settings = settings(&options(None), Some("patarm-short")).unwrap();
        assert_eq!((settings.config.timeout_ms, settings.config.retain_ms), (7_000, 3_000));
        assert_eq!(settings.config.on_timeout, patarm_serve::cohort::OnTimeout::Partial);
        assert_eq!(settings.config.par, ParConfig::default());
        assert_eq!(settings.format.tags.rubrics, "rule");
    }

    #[test]
    fn a_rule_file_changes_the_rule_and_is_checked() {
        let rule = |text: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            settings(&options(Some(file.path().to_owned())), None)
        };
        let constant = rule("f = { constant = { value = 1.3 } }").unwrap();
        assert_eq!(constant.config.par.f, patarm_reward::par::Grade::constant());
        assert!(rule("thresold = 2").unwrap_err().to_string().contains("thresold"));
        assert!(rule("format_bad_score = 1").unwrap_err().to_string().contains("format_bad_score"));
        assert!(settings(&options(Some("/no/such/file".into())), None).is_err());
    }
}
