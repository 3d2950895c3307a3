//! The grammar, fault by fault, and hostile text.

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> ParsedJudgement {
    parse_judgement(text, &JudgementTags::default(), &ScoreScale::default(), TextEnd::Stopped)
}

fn score(text: &str) -> std::result::Result<f64, FormatFault> {
    parse(text).score
}

const HEAD: &str = "<rubrics>\nAccuracy (60%): facts hold\nTone (40%): polite\n</rubrics>\n\
    <evaluation>\nAccuracy: 8, all facts hold.\nTone: 6, curt.\n</evaluation>\n";

fn with_answer(answer: &str) -> String {
    format!("{HEAD}{answer}")
}

#[test]
fn a_whole_judgement() {
    let text = format!("<think>I guess <score>1</score></think>\n{HEAD}<score> 7 </score>");
    let parsed = parse(&text);
    assert_eq!(parsed.score, Ok(7.0));
    assert_eq!(parsed.readable_score, None);
    let names: Vec<&str> = parsed.rubric.criteria.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["Accuracy", "Tone"]);
    assert!(parsed.evaluation.starts_with("Accuracy: 8") && parsed.evaluation.ends_with("curt."));
    assert_eq!(&text[parsed.spans.answer.clone().unwrap()], " 7 ");
    assert_eq!(parsed.spans.answer_start, Some(parsed.spans.answer.unwrap().start));
    let log = parsed.diagnostics;
    assert_eq!(log.weight_sum, Some(100.0));
    assert_eq!(log.weights_sum_to_100, Some(true));
    assert!((log.weighted_mean.unwrap() - 7.2).abs() < 1e-9);
    assert_eq!(log.weighted_mean_is_score, Some(true));
    assert!(log.other_tags.is_empty());
}

#[test]
fn the_score_table() {
    for (answer, expected) in [
        ("<score>10</score>", Ok(10.0)),
        ("<score>3</score> no: <score>8</score>", Ok(8.0)),
        ("<score><score>8</score></score>", Ok(8.0)),
        ("<score>7<score>8</score>", Ok(8.0)),
        ("<score>8</score><score>", Ok(8.0)),
        ("<score>8</score> and <score>5", Ok(8.0)),
        ("<score>8</score></score>", Ok(8.0)),
        ("<score>8</score><score>11</score>", Err(FormatFault::ScoreOutOfRange)),
        ("<score>11</score>", Err(FormatFault::ScoreOutOfRange)),
        ("<score>0</score>", Err(FormatFault::ScoreOutOfRange)),
        ("<score>ten</score>", Err(FormatFault::ScoreNotNumber)),
        ("<score>NaN</score>", Err(FormatFault::ScoreNotNumber)),
        ("<score></score>", Err(FormatFault::ScoreAbsent)),
        ("<score> \n</score>", Err(FormatFault::ScoreAbsent)),
        ("<score>8", Err(FormatFault::ScoreAbsent)),
        ("<score>8<score>", Err(FormatFault::ScoreAbsent)),
        ("8", Err(FormatFault::MissingTag)),
        ("8</score>", Err(FormatFault::MissingTag)),
        ("<Score>8</Score>", Err(FormatFault::MissingTag)),
    ] {
        assert_eq!(score(&with_answer(answer)), expected, "{answer}");
    }
}

#[test]
fn missing_and_misplaced_sections() {
    let r = "<rubrics>A (100%): x</rubrics>";
    let e = "<evaluation>fine</evaluation>";
    let s = "<score>7</score>";
    for (text, expected) in [
        (format!("{r}{e}{s}"), Ok(7.0)),
        (format!("{s}{r}{e}"), Err(FormatFault::TagOrder)),
        (format!("{r}{s}{e}"), Err(FormatFault::TagOrder)),
        (format!("{e}{r}{s}"), Err(FormatFault::TagOrder)),
        (format!("{e}{r}{e}{s}"), Ok(7.0)),
        (format!("{e}{s}"), Err(FormatFault::MissingTag)),
        (format!("{r}{s}"), Err(FormatFault::MissingTag)),
        (format!("{r}{e}"), Err(FormatFault::MissingTag)),
        (s.to_owned(), Err(FormatFault::MissingTag)),
        (String::new(), Err(FormatFault::MissingTag)),
        (format!("<rubrics>A: x{e}{s}"), Err(FormatFault::MissingTag)),
        (format!("{r}<evaluation>fine{s}"), Err(FormatFault::MissingTag)),
        (format!("</rubrics><rubrics>{e}{s}"), Err(FormatFault::TagOrder)),
        (format!("<rubrics>{e}</rubrics>{s}"), Err(FormatFault::TagOrder)),
        (format!("{r}<evaluation>{s}</evaluation>"), Err(FormatFault::TagOrder)),
        (format!("{r}{e}{s}</think>"), Err(FormatFault::MissingTag)),
        (format!("{s}</think>{r}{e}{s}"), Ok(7.0)),
    ] {
        assert_eq!(score(&text), expected, "{text}");
    }
}

#[test]
fn a_readable_number_behind_broken_tags_is_kept_apart() {
    let parsed = parse("<score>7</score><rubrics>A: x</rubrics><evaluation>y</evaluation>");
    assert_eq!((parsed.score, parsed.readable_score), (Err(FormatFault::TagOrder), Some(7.0)));
    let parsed = parse("<score>70</score>");
    assert_eq!((parsed.score, parsed.readable_score), (Err(FormatFault::MissingTag), None));
    let parsed = parse(&with_answer("<score>11</score>"));
    assert_eq!(parsed.readable_score, None, "a bad score is not a broken tag");
}

#[test]
fn a_cut_text_is_reported_as_cut() {
    let cut = |text: &str| {
        let (tags, scale) = (JudgementTags::default(), ScoreScale::default());
        parse_judgement(text, &tags, &scale, TextEnd::Truncated).score
    };
    assert_eq!(cut(HEAD), Err(FormatFault::Truncated));
    assert_eq!(cut(&with_answer("<score>1")), Err(FormatFault::Truncated));
    assert_eq!(cut(&with_answer("<score>1</score> and then")), Ok(1.0));
    assert_eq!(cut(&with_answer("<score>x</score>")), Err(FormatFault::ScoreNotNumber));
}

#[test]
fn sections_a_template_does_not_ask_for_are_not_required() {
    let tags = JudgementTags { rubrics: String::new(), ..JudgementTags::default() };
    let scale = ScoreScale::integers(1, 9);
    let text = "<evaluation>good</evaluation><score>9</score>";
    assert_eq!(parse_judgement(text, &tags, &scale, TextEnd::Stopped).score, Ok(9.0));
    let tags = JudgementTags { evaluation: String::new(), score: "grade".into(), ..tags };
    assert_eq!(parse_judgement("<grade>9</grade>", &tags, &scale, TextEnd::Stopped).score, Ok(9.0));
    assert!(tags.validate().is_ok());
}

#[test]
fn tag_names_are_checked() {
    let with = |name: &str| JudgementTags { score: name.into(), ..JudgementTags::default() };
    for name in ["", "a b", "score>", "rubrics", "é"] {
        assert!(with(name).validate().is_err(), "{name}");
    }
}

#[test]
fn pairwise_verdicts() {
    let verdict = |answer: &str| {
        parse_comparison(&with_answer(answer), &JudgementTags::default(), TextEnd::Stopped).verdict
    };
    assert_eq!(verdict("<verdict>A</verdict>"), Ok(Preference::First));
    assert_eq!(verdict("<verdict>A</verdict><verdict> B\n</verdict>"), Ok(Preference::Second));
    assert_eq!(verdict("<verdict>Tie</verdict>"), Ok(Preference::Tie));
    assert_eq!(verdict("<verdict>a</verdict>"), Err(FormatFault::ScoreNotNumber));
    assert_eq!(verdict("<verdict></verdict>"), Err(FormatFault::ScoreAbsent));
    assert_eq!(verdict("A"), Err(FormatFault::MissingTag));
}

#[test]
fn diagnostics_of_odd_judgements() {
    let text = "<rubrics>A (70%): x\nB (70%): y\nwords</rubrics><plan>p</plan>\
        <evaluation>B: 3\nnothing on the first</evaluation><score>3</score>";
    let log = parse(text).diagnostics;
    assert_eq!(log.weights_sum_to_100, Some(false));
    assert_eq!((log.weighted_mean, log.unparsed_lines), (None, 1));
    assert_eq!(log.other_tags, ["plan"]);
}

/// Quadratic time would take minutes at this size; linear time takes milliseconds.
#[test]
fn hostile_text_takes_linear_time() {
    let pieces =
        ["<score>", "</score>", "<rubrics>", "</rubrics>", "<", "</think>", "<evaluation>"];
    for piece in pieces {
        let huge = piece.repeat(2 * MAX_JUDGEMENT_BYTES / piece.len());
        assert_eq!(parse(&huge).score, Err(FormatFault::MissingTag));
        assert!(parse(&with_answer(&huge)).score.is_err());
    }
}

#[test]
fn text_beyond_the_limit_is_not_read() {
    let filler = "é".repeat(MAX_JUDGEMENT_BYTES);
    let text = with_answer(&format!("{filler}<score>7</score>"));
    assert_eq!(score(&text), Err(FormatFault::MissingTag));
}

proptest! {
    #[test]
    fn never_panics_and_keeps_to_the_scale(
        text in "(<(/)?(rubrics|evaluation|score|verdict|think|x)>|[0-9.:()% \n-]|[a-zé<>/]){0,60}",
    ) {
        for end in [TextEnd::Stopped, TextEnd::Truncated] {
            let parsed = parse_judgement(&text, &JudgementTags::default(), &ScoreScale::default(), end);
            if let Ok(score) = parsed.score {
                prop_assert!((1.0..=10.0).contains(&score));
                prop_assert!(parsed.spans.answer.is_some());
            }
            let _ = parse_comparison(&text, &JudgementTags::default(), end);
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = parse(&text);
        let _ = parse(&with_answer(&text));
    }

    /// Whatever precedes and follows, the last well-formed score after the sections is it.
    #[test]
    fn last_score_wins(noise in "[a-z <0-9]{0,20}", first in 1u8..=10, last in 1u8..=10) {
        let answer = format!("<score>{first}</score>{noise}<score>{last}</score>{noise}");
        prop_assert_eq!(score(&with_answer(&answer)), Ok(f64::from(last)));
    }
}
