//! A process reward model on a decoder.

use patarm_models::files::RewardConfig;
use patarm_models::{Forest, SegmentId, TreeBuilder};
use patarm_text::{Item, Solution};

use super::{EncodedSolution, StepReader, StepText, trajectory_score};
use crate::model::{ItemFault, Reward, RewardModel, StepScores};
use crate::scalar::{Encoded, Placed, Scoring, normalised, score_encoded};

/// A decoder that gives every step a number.
#[derive(Debug)]
pub struct ProcessRewardModel<'a> {
    /// Decoder and batches; solutions are never split.
    pub scoring: Scoring<'a>,
    /// What is read off the decoder.
    pub reader: StepReader,
    /// Its texts.
    pub text: &'a StepText,
    /// Mean and deviation of its rewards, where known.
    pub config: &'a RewardConfig,
}

/// The scores of a solution.
#[derive(Clone, Debug, Default, PartialEq)]
struct Scores {
    steps: Vec<f64>,
    trajectory: Option<f64>,
}

/// Where a forest's numbers are read, solution by solution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepRows {
    /// The rows of each solution: the ends of its steps and, where the trajectory is
    /// read, the end of its turn.
    pub rows: Vec<Vec<usize>>,
}

/// A forest of solutions and the rows at the ends of their steps; with `trajectory` also
/// the end of the turn of each. Solutions that begin alike share their beginnings.
pub fn step_rows<'s>(
    solutions: impl Iterator<Item = &'s EncodedSolution>,
    trajectory: Trajectory,
) -> (Forest, StepRows) {
    let mut tree = TreeBuilder::default();
    let mut ends: Vec<Vec<SegmentId>> = Vec::new();
    for solution in solutions {
        let mut last = tree.child(None, &solution.prompt);
        let mut own = Vec::with_capacity(solution.steps.len() + 1);
        for step in &solution.steps {
            last = tree.child(Some(last), step);
            own.push(last);
        }
        if trajectory == Trajectory::Read {
            own.push(match solution.ending.is_empty() {
                true => last,
                false => tree.child(Some(last), &solution.ending),
            });
        }
        ends.push(own);
    }
    let (forest, _) = tree.finish();
    let of_solution = |own: Vec<SegmentId>| own.into_iter().map(|id| forest.last_row(id)).collect();
    let rows = ends.into_iter().map(of_solution).collect();
    (forest, StepRows { rows })
}

/// Whether the number of the whole is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trajectory {
    /// Read, as the last row of each solution.
    Read,
    /// Not computed.
    Skip,
}

impl Encoded for EncodedSolution {
    fn prompt(&self) -> &[u32] {
        &self.prompt
    }

    fn num_tokens(&self) -> usize {
        self.len()
    }
}

impl ProcessRewardModel<'_> {
    /// Scores of encoded solutions.
    fn scores(
        &self,
        encoded: &[Result<EncodedSolution, ItemFault>],
    ) -> Vec<Result<Scores, ItemFault>> {
        score_encoded(encoded, &self.scoring, &|batch| self.batch(batch))
    }

    fn batch(
        &self,
        batch: &[Placed<'_, EncodedSolution>],
    ) -> Result<Vec<Scores>, patarm_models::Error> {
        let trajectory = match self.text.config().trajectory_weight == 0.0 {
            true => Trajectory::Skip,
            false => Trajectory::Read,
        };
        let (forest, rows) = step_rows(batch.iter().map(|(_, solution)| *solution), trajectory);
        let (hidden, _) = self.scoring.decoder.infer(&forest, &[])?;
        let numbers = self.reader.read(self.scoring.decoder, &hidden, &rows.rows.concat());
        let link = self.reader.link();
        let mut rest = numbers.u.iter().map(|u| link.score(*u));
        let of_solution = |rows: &Vec<usize>| {
            let mut steps: Vec<f64> = rest.by_ref().take(rows.len()).collect();
            let trajectory = (trajectory == Trajectory::Read).then(|| steps.pop()).flatten();
            Scores { steps, trajectory }
        };
        Ok(rows.rows.iter().map(of_solution).collect())
    }

    fn encode(&self, solution: &Solution) -> Result<EncodedSolution, ItemFault> {
        let limit = self.scoring.decoder.shape.max_positions;
        let encoded = self.text.encode(solution);
        match encoded.map_err(|error| ItemFault::Engine(error.to_string()))? {
            encoded if encoded.len() > limit => {
                Err(ItemFault::Overlong { tokens: encoded.len(), limit })
            }
            encoded => Ok(encoded),
        }
    }

    fn reward(&self, scores: Scores, step_spans: Vec<(usize, usize)>) -> Reward {
        let steps = self.text.config();
        let value = trajectory_score(
            &scores.steps,
            steps.aggregation,
            (scores.trajectory, steps.trajectory_weight),
        );
        Reward {
            normalised: normalised(value, self.config),
            step_values: scores.steps,
            step_spans,
            ..Reward::of(value)
        }
    }
}

impl RewardModel for ProcessRewardModel<'_> {
    fn score(&self, items: &[Item]) -> Vec<Result<Reward, ItemFault>> {
        let mut spans = Vec::with_capacity(items.len());
        let cut = |item: &Item| {
            let cut = self.text.cut(item).map_err(|error| ItemFault::Engine(error.to_string()));
            let (solution, own) = cut.inspect_err(|_| spans.push(Vec::new()))?;
            spans.push(own);
            self.encode(&solution)
        };
        let encoded: Vec<_> = items.iter().map(cut).collect();
        let scores = self.scores(&encoded).into_iter().zip(spans);
        scores.map(|(scores, spans)| Ok(self.reward(scores?, spans))).collect()
    }

    fn score_steps(&self, solutions: &[Solution]) -> Option<Vec<StepScores>> {
        let encoded: Vec<_> = solutions.iter().map(|solution| self.encode(solution)).collect();
        let steps = |scores: Result<Scores, ItemFault>| scores.map(|scores| scores.steps);
        Some(self.scores(&encoded).into_iter().map(steps).collect())
    }

    fn name(&self) -> String {
        self.scoring.name.clone()
    }
}
