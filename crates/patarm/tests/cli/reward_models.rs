//! Reward models that are no judges, from labelled responses to refined scores.

use std::path::Path;

use serde_json::{Value, json};

use crate::serve::served_scores;
use crate::support::{fail, report, rows, succeed, text, write};
use crate::training::tiny_judge;

const SOLI_REWARD: &str = r#"
version = 1
model = "MODEL"
[data]
train = "train.jsonl"
held_out = "held_out.jsonl"
[soli_reward]
head = { kind = "hpqa", layers = [1, 2], heads = 4 }
output = { kind = "normal", std = 0.5 }
schedule = { steps = 2, batch = 4 }
[evaluation]
every = 1
[checkpoint]
every = 1
"#;

const EBRM: &str = r#"
version = 1
model = "MODEL"
[data]
train = "pairs.jsonl"
held_out = "pairs.jsonl"
[ebrm]
size = { kind = "custom", branch = [4], joint = [8] }
noise = { sigmas = [3.5], beta = 0.1, negatives = 6 }
schedule = { epochs = 2, batch = 8, micro_batch_rows = 64 }
"#;

fn labelled(count: usize) -> String {
    let row = |n: usize| {
        let word = if n.is_multiple_of(2) { "yes" } else { "no" };
        let response = format!("{word} {n}");
        let label = if n.is_multiple_of(2) { "pass" } else { "fail" };
        format!(
            "{}\n",
            json!({"prompt": format!("q{}", n / 2), "response": response, "label": label})
        )
    };
    (0..count).map(row).collect()
}

/// Pairs in both orders, so that a base agrees with one half of the labels.
fn pairs() -> String {
    let row = |n: usize| {
        let sides = if n.is_multiple_of(2) { ["yes", "no"] } else { ["no", "yes"] };
        format!(
            "{}\n",
            json!({"prompt": format!("q{n}"), "chosen": sides[0], "rejected": sides[1]})
        )
    };
    (0..16).map(row).collect()
}

fn values(path: &str) -> Vec<f64> {
    let rows = rows(&std::fs::read_to_string(path).expect("scores"));
    rows.iter().map(|row| row["score"].as_f64().expect("a number")).collect()
}

#[test]
fn from_labels_to_a_model_to_its_refinement() {
    let folder = tempfile::tempdir().expect("folder");
    let at = |name: &str| text(&folder.path().join(name));
    let model = tiny_judge(folder.path());
    let file = write(folder.path(), "labelled.jsonl", labelled(60));
    let (train, held_out) = (at("train.jsonl"), at("held_out.jsonl"));
    let made = report(&[
        "data",
        "pass-fail",
        &file,
        "--out",
        &train,
        "--held-out",
        &held_out,
        "--wins",
        "20",
        "--ties",
        "10",
        "--held-out-share",
        "0.3",
    ]);
    assert_eq!((&made["passes"], &made["fails"]), (&json!(30), &json!(30)));
    assert_eq!((&made["train"]["wins"], &made["train"]["ties"]), (&json!(20), &json!(10)));
    assert!(made["held_out"]["wins"].as_u64() > Some(0), "{made}");

    let recipe = write(folder.path(), "soli.toml", SOLI_REWARD.replace("MODEL", &model));
    let foreseen = report(&["train", &recipe, "--dry-run"]);
    assert_eq!(foreseen["training_pairs"], 30, "ties are examples too");
    let base = at("soli");
    let trained = report(&["train", &recipe, "--out", &base]);
    assert!(trained["result"]["accuracy"]["half_credit"]["value"].is_number(), "{trained}");
    let metrics = rows(&std::fs::read_to_string(at("soli/metrics.jsonl")).expect("metrics"));
    for name in ["pass_variance", "group_top_advantage", "pass_fail_auc", "tie_share"] {
        assert!(metrics.iter().any(|row| row[name].is_number()), "{name} is not reported");
    }
    let kept = rows(&std::fs::read_to_string(at("soli/samples/trained.jsonl")).expect("samples"));
    assert!(kept.iter().all(|row| row["score"].is_number()), "{kept:?}");
    let page = at("report.html");
    succeed(&["report", &base, "--out", &page]);
    assert!(std::fs::read_to_string(&page).expect("page").contains("badge c0"), "scores are shown");
    let input = write(folder.path(), "pairs.jsonl", pairs());
    let scores = at("scores.jsonl");
    succeed(&["score", "--model", &base, "--input", &input, "--out", &scores]);
    let raw = values(&scores);
    assert!(raw.iter().any(|value| *value != raw[0]), "{raw:?}");

    let recipe = write(folder.path(), "ebrm.toml", EBRM.replace("MODEL", &base));
    assert_eq!(report(&["train", &recipe, "--dry-run"])["training_pairs"], 16);
    let refined = at("ebrm");
    report(&["train", &recipe, "--out", &refined]);
    for name in ["base", "trained"] {
        assert!(folder.path().join("ebrm/evaluations").join(name).is_dir(), "{name}");
    }
    let metrics = rows(&std::fs::read_to_string(at("ebrm/metrics.jsonl")).expect("metrics"));
    assert!(metrics.iter().any(|row| row["base_accuracy"].is_number()), "{metrics:?}");
    let (first, second) = (at("first.jsonl"), at("second.jsonl"));
    for out in [&first, &second] {
        succeed(&["score", "--model", &refined, "--input", &input, "--out", out]);
    }
    assert_eq!(values(&first), values(&second), "a fixed seed gives the same scores");
    assert_eq!(values(&first).len(), raw.len());
    are_served((&base, &raw), (&refined, &values(&first)), folder.path());
    let result =
        report(&["eval", "pairs", "--model", &refined, "--data", &input, "--out", &at("result")]);
    assert_eq!(result["result"]["counts"]["items"], 16);
    refusals(folder.path(), (&base, &refined, &model));
}

/// A refinement and an ensemble of both answer behind a server as they do offline.
fn are_served((base, raw): (&str, &[f64]), (refined, offline): (&str, &[f64]), folder: &Path) {
    let items: Vec<Value> = rows(&pairs())
        .iter()
        .flat_map(|row| ["chosen", "rejected"].map(|side| (row, side)))
        .map(|(row, side)| json!({ "prompt": row["prompt"], "response": row[side] }))
        .collect();
    assert_eq!(items.len(), offline.len());
    let served = |model: &str| -> Vec<f64> {
        let results = served_scores(model, &items);
        results.iter().map(|result| result["score"].as_f64().expect("a number")).collect()
    };
    assert_eq!(served(refined), offline, "a refinement, to the last bit");
    let members = format!("version = 1\nmembers = [{base:?}, {refined:?}]\n");
    let mean: Vec<f64> = raw.iter().zip(offline).map(|(a, b)| (a + b) / 2.0).collect();
    assert_eq!(served(&write(folder, "both.toml", members)), mean, "an ensemble");
}

fn refusals(folder: &Path, (base, refined, model): (&str, &str, &str)) {
    let input = text(&folder.join("pairs.jsonl"));
    let out = text(&folder.join("never"));
    fail(
        4,
        &["energy refinement", "score"],
        &["judge", "--model", refined, "--input", &input, "--out", &out],
    );
    let on = |base: &str| write(folder, "again.toml", EBRM.replace("MODEL", base));
    fail(4, &["refined again"], &["train", &on(refined), "--out", &out]);
    fail(4, &["no scalar reward model"], &["train", &on(model), "--out", &out]);

    let described = folder.join("ebrm/checkpoints/final/energy.json");
    let text = std::fs::read_to_string(&described).expect("described");
    let score = ["score", "--model", refined, "--input", &input, "--out", &out];
    let damage = |change: &dyn Fn(&mut Value), words: &[&str]| {
        let mut object: Value = serde_json::from_str(&text).expect("json");
        change(&mut object);
        std::fs::write(&described, object.to_string()).expect("written");
        fail(4, words, &score);
    };
    damage(&|object| object["version"] = json!(7), &["energy.json", "version is 7"]);
    damage(&|object| object["refinement"]["starts"] = json!(0), &["energy.json", "starts"]);
    damage(&|object| object["shape"]["joint"] = json!([9]), &["joint"]);
    damage(&|object| object["base_head_sha256"] = json!("x"), &["has changed", base_name(base)]);
    damage(&|object| object["extra"] = json!(1), &["energy.json", "extra"]);
    std::fs::write(&described, "{").expect("written");
    fail(4, &["energy.json"], &score);
}

/// The last part of a path.
fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[test]
fn labelled_rows_that_cannot_be_paired_are_told() {
    let folder = tempfile::tempdir().expect("folder");
    let out = text(&folder.path().join("out.jsonl"));
    let bad = labelled(2) + "{\"prompt\": \"q\", \"response\": \"r\", \"label\": \"good\"}\n";
    let bad = write(folder.path(), "bad.jsonl", bad);
    fail(3, &["line 3", "label", "pass"], &["data", "pass-fail", &bad, "--out", &out]);
    let one_sided = labelled(20).lines().step_by(2).collect::<Vec<_>>().join("\n");
    let one_sided = write(folder.path(), "one.jsonl", one_sided);
    fail(3, &["no response fails"], &["data", "pass-fail", &one_sided, "--out", &out]);
    let file = write(folder.path(), "good.jsonl", labelled(8));
    fail(
        2,
        &["--held-out-share"],
        &["data", "pass-fail", &file, "--out", &out, "--held-out", &out, "--held-out-share", "1.5"],
    );
}
