//! Against the reference's verdicts, and properties that hold of every response.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;

use flate2::read::GzDecoder;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const PROMPTS: &[u8] = include_bytes!("../../../../testdata/ifeval/prompts.jsonl.gz");
const RESPONSES: &[u8] = include_bytes!("../../../../testdata/ifeval/responses.jsonl.gz");

fn rows(gzipped: &[u8]) -> Vec<Value> {
    let mut text = String::new();
    GzDecoder::new(gzipped).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Ids and instructions by key.
fn prompts() -> HashMap<u64, Vec<(String, Instruction)>> {
    rows(PROMPTS)
        .iter()
        .map(|row| {
            let ids = row[1].as_array().unwrap().iter().map(|id| id.as_str().unwrap());
            let arguments = row[2].as_array().unwrap().iter().map(|a| a.as_object().unwrap());
            let instructions = ids
                .zip(arguments)
                .map(|(id, arguments)| (id.to_owned(), Instruction::new(id, arguments).unwrap()));
            (row[0].as_u64().unwrap(), instructions.collect())
        })
        .collect()
}

/// Verdicts that differ from columns `strict` and `loose` of the golden rows, and how many there are.
fn differences(
    parameters: &Parameters,
    columns: impl Fn(&Value) -> (String, String),
) -> (Vec<String>, usize) {
    let prompts = prompts();
    let (mut found, mut num_verdicts) = (Vec::new(), 0);
    for row in rows(RESPONSES) {
        let text = row[1].as_str().unwrap();
        let response = Response::new(text, parameters);
        let (strict, loose) = columns(&row);
        let expected = strict.bytes().zip(loose.bytes());
        for ((id, instruction), (strict, loose)) in
            prompts[&row[0].as_u64().unwrap()].iter().zip(expected)
        {
            let verdict = instruction.verify(&response);
            num_verdicts += 1;
            if verdict != (Verdict { strict: strict == b'1', loose: loose == b'1' }) {
                found.push(format!("{} {id} {verdict:?} on {text:?}", row[0]));
            }
        }
    }
    (found, num_verdicts)
}

fn bits(row: &Value, column: usize) -> String {
    row[column].as_str().unwrap().to_owned()
}

#[test]
fn every_verdict_is_the_reference_s() {
    let (found, num_verdicts) =
        differences(Parameters::english(), |row| (bits(row, 2), bits(row, 3)));
    assert_eq!(num_verdicts, 6672);
    assert!(found.is_empty(), "{} differ:\n{}", found.len(), found.join("\n"));
}

/// The whole divergence of the built-in sentence parameters from those of NLTK, as documented.
#[test]
fn with_published_parameters_the_reference_differs_in_sentence_counts_alone() {
    let (found, _) = differences(Parameters::english(), |row| {
        let published = usize::from(row.get(4).is_some()) * 2;
        (bits(row, 2 + published), bits(row, 3 + published))
    });
    assert!(found.iter().all(|line| line.contains("number_sentences")), "{found:?}");
    assert_eq!(found.len(), 16);
}

/// The same with NLTK's own parameters, for who has them: a folder `punkt_tab/english`.
#[test]
fn with_published_parameters_every_verdict_is_the_reference_s() {
    let Some(directory) = std::env::var_os("PATARM_TEST_PUNKT") else {
        eprintln!("skipped: PATARM_TEST_PUNKT is not set");
        return;
    };
    let parameters = Parameters::from_punkt_tab(directory.as_ref()).unwrap();
    let (found, _) = differences(&parameters, |row| {
        let published = usize::from(row.get(4).is_some()) * 2;
        (bits(row, 2 + published), bits(row, 3 + published))
    });
    assert!(found.is_empty(), "{} differ:\n{}", found.len(), found.join("\n"));
}

#[test]
fn goldens_decide_every_instruction_both_ways() {
    let prompts = prompts();
    let mut seen = BTreeMap::<&str, [usize; 2]>::new();
    let rows = rows(RESPONSES);
    for row in &rows {
        for (index, (id, _)) in prompts[&row[0].as_u64().unwrap()].iter().enumerate() {
            let followed = bits(row, 2).as_bytes()[index] == b'1';
            seen.entry(id).or_default()[usize::from(followed)] += 1;
        }
    }
    assert!(seen.keys().eq(IDS.iter()));
    for (id, counts) in seen {
        assert!(counts.iter().all(|&count| count >= 20), "{id} {counts:?}");
    }
}

fn verdict(id: &str, arguments: &Value, response: &str) -> Result<Verdict, InstructionError> {
    verify(id, arguments.as_object().unwrap(), "", response)
}

#[test]
fn arguments_are_checked() {
    let cases = [
        ("length_constraints:number_words", json!({"num_words": 3}), "\"relation\" is missing"),
        ("length_constraints:number_words", json!({"num_words": -1, "relation": "at least"}), "-1"),
        ("length_constraints:number_words", json!({"num_words": 1, "relation": "about"}), "about"),
        (
            "length_constraints:number_words",
            json!({"num_words": 1.5, "relation": "at least"}),
            "1.5",
        ),
        ("keywords:existence", json!({"keywords": []}), "list"),
        ("keywords:existence", json!({"keywords": ["a+"]}), "operator"),
        (
            "keywords:frequency",
            json!({"keyword": " ", "frequency": 1, "relation": "at least"}),
            "empty",
        ),
        (
            "keywords:letter_frequency",
            json!({"letter": "ab", "let_frequency": 1, "let_relation": "at least"}),
            "one character",
        ),
        (
            "length_constraints:nth_paragraph_first_word",
            json!({"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"}),
            "no paragraph 3",
        ),
        ("punctuation:no_comma", json!({"commas": 0}), "commas"),
        ("punctuation:no_dash", json!({}), "not one of the 25"),
    ];
    for (id, arguments, expected) in cases {
        let error = verdict(id, &arguments, "x").unwrap_err();
        assert!(error.to_string().contains(expected) && error.id() == id, "{error}");
    }
    // Null counts as absent, and a whole number may be written as a float.
    let arguments = json!({"num_words": 1.0, "relation": "at least", "other": null});
    assert!(verdict("length_constraints:number_words", &arguments, "x").unwrap().strict);
}

#[test]
fn hostile_responses_end() {
    let units = [
        "* ",
        "\n",
        " ",
        "[",
        "<<",
        "***",
        "\"",
        "p. ",
        "a",
        "{\"a\":[",
        ".",
        "Section 1 ",
        "I.",
        "é",
    ];
    let prompts = prompts();
    let mut all: Vec<&Instruction> = Vec::new();
    let mut ids = std::collections::HashSet::new();
    for instructions in prompts.values() {
        for (id, instruction) in instructions {
            if ids.insert(id.clone()) {
                all.push(instruction);
            }
        }
    }
    assert_eq!(all.len(), 25);
    for unit in units {
        let text = unit.repeat(20_000);
        let response = Response::new(&text, Parameters::english());
        for instruction in &all {
            _ = instruction.verify(&response);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn strict_implies_loose(text in "[\\PC\n*\"\\[\\]<>]{0,80}") {
        let response = Response::new(&text, Parameters::english());
        for instructions in prompts().values().take(40) {
            for (id, instruction) in instructions {
                let verdict = instruction.verify(&response);
                prop_assert!(!verdict.strict || verdict.loose, "{id}");
            }
        }
    }
}
