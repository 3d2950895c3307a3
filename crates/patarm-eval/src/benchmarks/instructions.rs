//! IFEval and IFBench: prompts with instructions that a program checks.
//!
//! The figures are those of the reference: a prompt counts when all its instructions are followed
//! (prompt level), or every instruction counts by itself (instruction level); strictly on the
//! response as it is, or loosely on eight variants of it.

mod figures;
mod load;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    Error, Result,
    benchmark::{
        Asks, Benchmark, Evaluation, Info, ItemRecord, OfficialFile, Run, Subject, Summary,
        completions::{Asked, Responses, responses},
        load::data_files,
        summary::SCHEMA_VERSION,
    },
    ifbench,
    ifeval::{self, InstructionError, Response, Verdict},
    metrics::Outcome,
    nltk::parameters::Parameters,
};

use load::{Loaded, Prompt};

/// Longest generated response in tokens, as lm-evaluation-harness sets it.
const MAX_TOKENS: usize = 1280;

/// A checker of one instruction.
type Rule = Box<dyn Fn(&Response<'_>) -> Verdict + Send + Sync>;

/// Reads an instruction by its id and arguments.
type Reader = fn(&str, &Map<String, Value>) -> Result<Rule, InstructionError>;

/// A benchmark of verifiable instructions.
#[derive(Debug)]
pub struct Instructions {
    info: &'static Info,
    read: Reader,
    /// Prompts and instructions of the whole benchmark; why it is never whole here.
    whole: Result<(usize, usize), &'static str>,
}

const DATA: &str = "JSON lines `{key, prompt, instruction_id_list, kwargs}`";

const METRICS: &[(&str, &str)] = &[
    ("prompt_level_strict_acc", "share of prompts with every instruction followed"),
    ("prompt_level_loose_acc", "the same by the loose criterion"),
    ("inst_level_strict_acc", "share of instructions followed; interval clustered by prompt"),
    ("inst_level_loose_acc", "the same by the loose criterion"),
    ("instruction.<id>.strict_acc", "one kind of instruction, also `.loose_acc`"),
    ("group.<group>.strict_acc", "kinds with one prefix together, also `.loose_acc`"),
    ("present.<figure>", "the first four, where the data or the responses are not whole"),
    ("answered.<figure>", "the first four over prompts with a response, where some have none"),
];

const FILES: &[(&str, &str)] = &[
    ("eval_results_strict.jsonl", "verdicts as the reference writes them"),
    ("eval_results_loose.jsonl", "the same by the loose criterion"),
    ("responses.jsonl", "generated responses, kept as they come; `--responses` reads it"),
];

const HEADLINE: &[&str] = &[
    "prompt_level_strict_acc",
    "prompt_level_loose_acc",
    "inst_level_strict_acc",
    "inst_level_loose_acc",
    "present.prompt_level_strict_acc",
    "present.prompt_level_loose_acc",
    "present.inst_level_strict_acc",
    "present.inst_level_loose_acc",
];

/// IFEval (Zhou et al., 2023): 541 prompts, 25 kinds of instructions.
pub static IFEVAL: Instructions = Instructions {
    info: &Info {
        name: "ifeval",
        about: "541 prompts with instructions that a program checks",
        data: DATA,
        hub: Some("google/IFEval"),
        asks: Asks::Completions,
        metrics: METRICS,
        files: FILES,
        headline: HEADLINE,
    },
    read: |id, arguments| {
        let instruction = ifeval::Instruction::new(id, arguments)?;
        Ok(Box::new(move |response| instruction.verify(response)))
    },
    whole: Ok((541, 834)),
};

/// IFBench (Pyatkin et al., 2025): 300 prompts, 58 kinds of instructions, of which 55 are checked.
pub static IFBENCH: Instructions = Instructions {
    info: &Info {
        name: "ifbench",
        about: "300 prompts with harder instructions; 55 of the 58 kinds are checked",
        data: DATA,
        hub: Some("allenai/IFBench_test"),
        asks: Asks::Completions,
        metrics: METRICS,
        files: FILES,
        headline: HEADLINE,
    },
    read: |id, arguments| {
        let instruction = ifbench::Instruction::new(id, arguments)?;
        Ok(Box::new(move |response| instruction.verify(response)))
    },
    whole: Err("3 of the 58 kinds of instructions are not checked, nor prompts with one of them"),
};

/// What became of one prompt.
struct Checked {
    verdicts: Vec<Verdict>,
    /// Length of the response in characters; why there is none.
    response: Result<(String, usize), String>,
}

impl Checked {
    fn follows_all(&self, criterion: fn(&Verdict) -> bool) -> bool {
        self.verdicts.iter().all(criterion)
    }
}

impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checked").field("verdicts", &self.verdicts).finish_non_exhaustive()
    }
}

impl Benchmark for Instructions {
    fn info(&self) -> &'static Info {
        self.info
    }

    fn evaluate(&self, subject: &Subject<'_>, run: &Run<'_>) -> Result<Evaluation> {
        let loaded = load::prompts(&data_files(run.data)?, run.limit, self.read)?;
        let asked: Vec<Asked<'_>> = loaded.prompts.iter().map(Prompt::asked).collect();
        let answers = responses(&asked, MAX_TOKENS, (subject, run))?;
        let own;
        let parameters = match run.completions.punkt {
            Some(directory) => {
                own = Parameters::from_punkt_tab(directory)?;
                &own
            }
            None => Parameters::english(),
        };
        let checked = check(&loaded.prompts, &answers, parameters, run)?;
        Ok(self.evaluation(&loaded, &checked, &answers, (subject, run)))
    }
}

/// Checks every response; one that is not there follows nothing.
fn check(
    prompts: &[Prompt],
    answers: &Responses,
    parameters: &Parameters,
    run: &Run<'_>,
) -> Result<Vec<Checked>> {
    let nothing = Verdict { strict: false, loose: false };
    let mut checked = Vec::with_capacity(prompts.len());
    for (prompt, text) in prompts.iter().zip(&answers.texts) {
        let verdicts = match text {
            Ok(text) => {
                let response = Response::new(text, parameters);
                prompt.rules.iter().map(|rule| rule(&response)).collect()
            }
            Err(_) => vec![nothing; prompt.rules.len()],
        };
        let response = match text {
            Ok(text) => Ok((text.clone(), text.chars().count())),
            Err(why) => Err(why.clone()),
        };
        checked.push(Checked { verdicts, response });
        if run.observer.is_interrupted() {
            return Err(Error::interrupted());
        }
    }
    Ok(checked)
}

impl Instructions {
    fn evaluation(
        &self,
        loaded: &Loaded,
        checked: &[Checked],
        answers: &Responses,
        (subject, run): (&Subject<'_>, &Run<'_>),
    ) -> Evaluation {
        let prompts = &loaded.prompts;
        let num_unanswered = checked.iter().filter(|checked| checked.response.is_err()).count();
        let missing = self.missing(loaded, num_unanswered);
        let figures = figures::measure(prompts, checked, run.resampling);
        let metrics = figures.named(missing.is_empty(), num_unanswered > 0);
        let mut counts = loaded.counts();
        counts.extend(answers.counts.clone());
        counts.insert("responses_missing".to_owned(), num_unanswered as u64);
        let items =
            prompts.iter().zip(checked).map(|(prompt, checked)| record(prompt, checked)).collect();
        Evaluation {
            summary: Summary {
                schema_version: SCHEMA_VERSION,
                benchmark: self.info.name.to_owned(),
                model: subject.name(),
                settings: run.settings.clone(),
                metrics,
                counts,
                problems: loaded.report.problems.iter().chain(&answers.problems).cloned().collect(),
                missing,
                baselines: BTreeMap::new(),
                calibration: None,
                details: BTreeMap::new(),
            },
            items,
            judgements: Vec::new(),
            files: vec![
                official("eval_results_strict.jsonl", prompts, checked, |verdict| verdict.strict),
                official("eval_results_loose.jsonl", prompts, checked, |verdict| verdict.loose),
            ],
        }
    }

    /// Why the figures are not those of the whole benchmark.
    fn missing(&self, loaded: &Loaded, num_unanswered: usize) -> Vec<String> {
        let mut missing: Vec<String> =
            loaded.refused.iter().map(|(why, count)| format!("{count} prompts: {why}")).collect();
        let found = (loaded.prompts.len(), loaded.num_instructions());
        match self.whole {
            Ok(whole) if found != whole => missing.push(format!(
                "{} prompts with {} instructions are checked, the benchmark has {} with {}",
                found.0, found.1, whole.0, whole.1
            )),
            Ok(_) => {}
            Err(why) => missing.push(why.to_owned()),
        }
        if num_unanswered > 0 {
            missing.push(format!("responses to {num_unanswered} prompts"));
        }
        missing
    }
}

fn record(prompt: &Prompt, checked: &Checked) -> ItemRecord {
    let follows = checked.follows_all(|verdict| verdict.strict);
    let outcome = match (&checked.response, follows) {
        (Err(_), _) => Outcome::Fault,
        (Ok(_), true) => Outcome::Right,
        (Ok(_), false) => Outcome::Wrong,
    };
    let list = |criterion: fn(&Verdict) -> bool| {
        json!(checked.verdicts.iter().map(criterion).collect::<Vec<bool>>())
    };
    let details = BTreeMap::from([
        ("instruction_id_list".to_owned(), json!(prompt.ids)),
        ("follow_strict".to_owned(), list(|verdict| verdict.strict)),
        ("follow_loose".to_owned(), list(|verdict| verdict.loose)),
    ]);
    ItemRecord {
        id: prompt.key.clone(),
        subset: None,
        cluster: prompt.cluster,
        outcome,
        strict: f64::from(follows),
        half_credit: if outcome == Outcome::Fault { 0.5 } else { f64::from(follows) },
        lengths: checked.response.iter().map(|(_, length)| *length).collect(),
        scores: Vec::new(),
        verdicts: Vec::new(),
        right: Vec::new(),
        faults: checked.response.as_ref().err().cloned().into_iter().collect(),
        details,
    }
}

/// A row as the reference writes it, its fields in alphabetical order.
#[derive(Serialize)]
struct OfficialRow<'a> {
    follow_all_instructions: bool,
    follow_instruction_list: Vec<bool>,
    instruction_id_list: &'a [String],
    prompt: &'a str,
    response: &'a str,
}

fn official(
    path: &str,
    prompts: &[Prompt],
    checked: &[Checked],
    criterion: fn(&Verdict) -> bool,
) -> OfficialFile {
    let mut text = String::new();
    for (prompt, checked) in prompts.iter().zip(checked) {
        let Ok((response, _)) = &checked.response else { continue };
        let row = OfficialRow {
            follow_all_instructions: checked.follows_all(criterion),
            follow_instruction_list: checked.verdicts.iter().map(criterion).collect(),
            instruction_id_list: &prompt.ids,
            prompt: &prompt.prompt,
            response,
        };
        text += &json!(row).to_string();
        text.push('\n');
    }
    OfficialFile { path: path.to_owned(), text }
}

#[cfg(test)]
mod tests;
