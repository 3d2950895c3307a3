//! Judgements as the reward rule sees them.

use patarm_reward::embedded::{JudgeText, RawJudgement};
use patarm_reward::judgement::FormatFault;
use patarm_reward::par::ParScore;

/// Reads the score of a judgement, or the fault it enters the reward with.
///
/// With `ends_before_score` the judgement stops at its opening score tag: it is
/// completed with the lowest score to see whether the text so far is sound.
#[must_use]
pub fn read_judgement(raw: &RawJudgement, text: &JudgeText, ends_before_score: bool) -> ParScore {
    if raw.is_truncated {
        return ParScore::fault(FormatFault::Truncated);
    }
    if !raw.is_complete {
        return ParScore::fault(FormatFault::MissingTag);
    }
    if !ends_before_score {
        let parsed = text.parse(&raw.text, false);
        return ParScore { score: parsed.score, readable: parsed.readable_score };
    }
    let (_, close) = text.score_tags();
    let completed = format!("{}{}{close}", raw.text.trim_end(), text.format().scale.min);
    ParScore { score: text.parse(&completed, false).score, readable: None }
}
