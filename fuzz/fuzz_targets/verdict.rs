//! What a judge wrote: pointwise, pairwise, and under every verdict policy.
#![no_main]

use libfuzzer_sys::fuzz_target;
use patarm_reward::verdict::policy::VerdictPolicy;
use patarm_reward::verdict::{
    JudgementTags, ScoreScale, TextEnd, parse_comparison, parse_judgement, rubric_lines,
};

fuzz_target!(|text: &str| {
    let (tags, scale) = (JudgementTags::default(), ScoreScale::default());
    for end in [TextEnd::Stopped, TextEnd::Truncated] {
        let parsed = parse_judgement(text, &tags, &scale, end);
        if let Ok(score) = parsed.score {
            assert!((scale.min..=scale.max).contains(&score), "{score}");
            let answer = parsed.spans.answer.clone().expect("a score stands somewhere");
            assert_eq!(scale.parse(&text[answer]), Ok(score));
        }
        for span in [parsed.spans.rubrics, parsed.spans.evaluation].into_iter().flatten() {
            assert!(text.get(span).is_some());
        }
        let compared = parse_comparison(text, &tags, end);
        assert!(compared.verdict.is_err() || compared.spans.answer.is_some());
    }
    let (rubric, _) = rubric_lines::parse(text);
    for criterion in &rubric.criteria {
        let _ = rubric_lines::format(criterion);
    }
    let labels = ["A", "B", "C"];
    for policy in [
        VerdictPolicy::think_rm(&labels),
        VerdictPolicy::rm_r1_tail(100),
        VerdictPolicy::rm_r1_evaluation(),
        VerdictPolicy::toolrm_training(),
        VerdictPolicy::toolrm_evaluation(),
    ] {
        if let Some(label) = policy.parse(text) {
            assert!(label < policy.labels.len());
        }
    }
});
