//! How should the score enter the gradient?
//!
//! Six arms from one cold start a seed: sampled, sampled with the loss on the score's
//! tokens only, and marginal, each with and without division by the group's deviation.

use std::error::Error;

use crate::common::Setting;

const ESTIMATORS: [&str; 3] = ["marginal", "sampled", "sampled_score_only"];

pub(crate) fn run(setting: &Setting, seed: u64) -> Result<(), Box<dyn Error>> {
    let records = setting.world.records(seed);
    let start = setting.fine_tune(("cold", seed), &records)?;
    for estimator in ESTIMATORS {
        for (kind, normalise) in [("std", true), ("plain", false)] {
            let arm =
                [format!("grpo.estimator={estimator}"), format!("grpo.std_normalise={normalise}")];
            let name = format!("{estimator}-{kind}");
            setting.reinforce((&name, seed), (&start, &records), &arm)?;
        }
    }
    Ok(())
}
