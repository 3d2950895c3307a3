//! Cold-start judgements from a teacher.

use patarm_reward::cold_start::ColdStartRecord;
use patarm_reward::cold_start::teacher::{TeacherConfig, TeacherPair, ask_teacher, select};
use patarm_reward::judge::{CompleterJudge, CompleterJudgeConfig};
use patarm_reward::template::JudgeTemplate;
use patarm_text::Comparison;
use patarm_train::Recipe;

use crate::exit::{Code, failure};
use crate::judging::remote_completer;
use crate::output::remark;

/// Requests in flight to the teacher.
const CONCURRENCY: usize = 8;

/// Asks the teacher about both sides of every comparison and keeps judgements that
/// agree with the label.
pub(crate) fn records(
    recipe: &Recipe,
    train: &[Comparison],
    (model, judgements, balance_scores): (&str, usize, bool),
) -> anyhow::Result<Vec<ColdStartRecord>> {
    let config = CompleterJudgeConfig {
        mode: recipe.judge.rubric_mode,
        seed: recipe.seed,
        max_tokens: recipe.judge.max_judgement_tokens,
        ..CompleterJudgeConfig::default()
    };
    let template = JudgeTemplate::load(&recipe.judge.template)?;
    let teacher = CompleterJudge::new(remote_completer(model, CONCURRENCY)?, template, config);
    let answers = ask_teacher(&teacher, train, judgements);
    let (mut pairs, mut failures) = (Vec::<TeacherPair>::new(), Vec::new());
    for answer in answers {
        match answer {
            Ok(pair) => pairs.push(pair),
            Err(fault) => failures.push(fault),
        }
    }
    if pairs.is_empty() {
        let reason = failures.first().map_or_else(String::new, |fault| format!(": {fault}"));
        return Err(failure(Code::Remote, format!("the teacher judged no pair{reason}")));
    }
    let selection = TeacherConfig { balance_scores, seed: recipe.seed, ..TeacherConfig::default() };
    let (records, counts) = select(&pairs, &selection);
    remark(&format!(
        "teacher: {} pairs, {} agree with the label, {} judgements kept, {} unparsed, {} pairs failed",
        counts.pairs,
        counts.pairs_agreeing,
        counts.kept,
        counts.unparsed,
        failures.len()
    ));
    Ok(records)
}
