//! Against the reference's verdicts.

use std::collections::BTreeMap;
use std::io::Read as _;

use flate2::read::GzDecoder;
use serde_json::json;

use super::*;

const CASES: &[u8] = include_bytes!("../../../../testdata/ifbench/cases.jsonl.gz");

fn cases() -> Vec<Value> {
    let mut text = String::new();
    GzDecoder::new(CASES).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_verdict_is_the_reference_s() {
    let mut differ = Vec::new();
    let mut seen = BTreeMap::<String, [usize; 2]>::new();
    for case in cases() {
        let (id, arguments) = (case[0].as_str().unwrap(), case[1].as_object().unwrap());
        let response = case[2].as_str().unwrap();
        let verdict = verify(id, arguments, "", response).unwrap();
        let expected = Verdict { strict: case[3] == 1, loose: case[4] == 1 };
        seen.entry(id.to_owned()).or_default()[usize::from(expected.strict)] += 1;
        if verdict != expected {
            differ.push(format!("{id} {} {verdict:?} on {response:?}", case[1]));
        }
    }
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
    assert!(seen.keys().eq(IDS.iter()));
    for (id, counts) in seen {
        assert!(counts.iter().all(|&count| count >= 1), "{id} {counts:?}");
    }
}

#[test]
fn what_needs_a_resource_is_refused_by_name() {
    let arguments = json!({});
    for (id, _) in REFUSED {
        let error = Instruction::new(id, arguments.as_object().unwrap()).unwrap_err().to_string();
        assert!(error.contains(id) && error.contains("depends on"), "{error}");
    }
    let error = Instruction::new("words:x", arguments.as_object().unwrap()).unwrap_err();
    assert!(error.to_string().contains("not an instruction of IFBench"));
    assert!(IDS.is_sorted());
}

#[test]
fn hostile_responses_end() {
    let mut rules = BTreeMap::new();
    for case in cases() {
        let id = case[0].as_str().unwrap().to_owned();
        rules
            .entry(id.clone())
            .or_insert_with(|| Instruction::new(&id, case[1].as_object().unwrap()).unwrap());
    }
    assert_eq!(rules.len(), IDS.len());
    for unit in ["a. ", "\n", "(", "\"'", "Question 1", ".", "<i>", "* ", "A.B. ", "\"\n"] {
        let text = unit.repeat(20_000);
        let response = Response::new(&text, Parameters::english());
        for rule in rules.values() {
            _ = rule.verify(&response);
        }
    }
}
