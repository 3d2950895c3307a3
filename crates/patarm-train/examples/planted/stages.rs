//! What do fine-tuning on a teacher and reinforcement each contribute?
//!
//! The teacher is right about 80 % of the pairs, and its scores of the two sides
//! overlap. Kept are its judgements of pairs where its means agree with the label.
//! Arms: fine-tuning alone, reinforcement alone (from judgements without label
//! information), fine-tuning and then reinforcement.

use std::error::Error;

use patarm_models::kernels::random;
use patarm_reward::cold_start::teacher::{TeacherConfig, TeacherPair, ask_teacher, select};
use patarm_reward::judgement::Judgement;
use patarm_reward::model::{ItemFault, JudgeRequest, PointwiseJudge};
use patarm_reward::verdict::TextEnd;
use patarm_text::Comparison;

use crate::common::Setting;
use crate::support::World;

/// Share of pairs the teacher is right about.
const RIGHT: f64 = 0.8;
/// Judgements of each response.
const VOTES: usize = 2;

pub(crate) fn run(setting: &Setting, seed: u64) -> Result<(), Box<dyn Error>> {
    let world = &setting.world;
    let teacher = ScriptedTeacher { world, seed };
    let answers = ask_teacher(&teacher, &world.comparisons, VOTES);
    let pairs: Vec<TeacherPair> = answers.into_iter().collect::<Result<_, _>>()?;
    let (kept, counts) = select(&pairs, &TeacherConfig { seed, ..TeacherConfig::default() });
    if counts.pairs_agreeing == counts.pairs {
        return Err("the teacher was never wrong".into());
    }
    let label_free = world.records(seed);
    let form = setting.fine_tune(("cold", seed), &label_free)?;
    let taught = setting.fine_tune(("sft", seed), &kept)?;
    setting.reinforce(("rl", seed), (&form, &label_free), &[])?;
    setting.reinforce(("sft-rl", seed), (&taught, &kept), &[])
}

/// Knows the chosen word, and is wrong on purpose about one pair in five.
struct ScriptedTeacher<'a> {
    world: &'a World,
    seed: u64,
}

impl ScriptedTeacher<'_> {
    fn score(&self, pair: usize, (comparison, side): (&Comparison, u64), vote: u64) -> usize {
        let is_right = random::uniform(self.seed, &[0x7eac, pair as u64]) < RIGHT;
        let (chosen, _) = comparison.chosen_rejected().expect("planted pairs are labelled");
        let item = [&comparison.first, &comparison.second][side as usize];
        let is_high = std::ptr::eq(chosen, item) == is_right;
        // 2 to 5 against 1 to 4: single scores overlap, means mostly do not.
        let draw = random::below(4, self.seed, &[0x5c0e, pair as u64, side, vote]);
        draw + if is_high { 2 } else { 1 }
    }

    fn judgement(&self, score: usize) -> Judgement {
        let text = format!("<r>a b c d a b</r><s>{score}</s>");
        let parsed = self.world.text.format().parse(&text, TextEnd::Stopped);
        parsed.into_judgement(text, 0, None)
    }
}

impl PointwiseJudge for ScriptedTeacher<'_> {
    /// Requests come as `ask_teacher` makes them: two a pair, in the order of the pairs.
    fn judge(
        &self,
        requests: &[JudgeRequest],
        votes: usize,
    ) -> Vec<Result<Vec<Judgement>, ItemFault>> {
        let one = |index: usize| {
            let (pair, side) = (index / 2, (index % 2) as u64);
            let comparison = &self.world.comparisons[pair];
            (0..votes as u64)
                .map(|vote| self.judgement(self.score(pair, (comparison, side), vote)))
                .collect()
        };
        (0..requests.len()).map(|index| Ok(one(index))).collect()
    }

    fn name(&self) -> String {
        "scripted".into()
    }
}
