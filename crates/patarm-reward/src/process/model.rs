//! A process reward model on a decoder.

use std::collections::HashMap;

use patarm_models::files::RewardConfig;
use patarm_models::{Decoder, Forest, SegmentId, TreeBuilder};
use patarm_text::{Item, Solution};

use super::{EncodedSolution, StepReader, StepText, trajectory_score};
use crate::model::{ItemFault, Reward, RewardModel, StepScores};
use crate::observer::Observer;
use crate::scalar::normalised;

/// A decoder that gives every step a number.
pub struct ProcessRewardModel<'a> {
    /// The decoder.
    pub decoder: &'a Decoder,
    /// What is read off it.
    pub reader: StepReader,
    /// Its texts.
    pub text: &'a StepText,
    /// Mean and deviation of its rewards, where known.
    pub config: &'a RewardConfig,
    /// Tokens of one forward; solutions are never split.
    pub batch_tokens: usize,
    /// Who watches.
    pub observer: &'a dyn Observer,
    /// Name for reports.
    pub name: String,
}

impl std::fmt::Debug for ProcessRewardModel<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessRewardModel").field("name", &self.name).finish_non_exhaustive()
    }
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

impl ProcessRewardModel<'_> {
    /// Scores of encoded solutions; a failure of the engine is a fault of its batch.
    fn scores(
        &self,
        encoded: &[Result<EncodedSolution, ItemFault>],
    ) -> Vec<Result<Scores, ItemFault>> {
        let unread = ItemFault::Engine("interrupted before this item".to_owned());
        let mut results: Vec<Result<Scores, ItemFault>> =
            encoded.iter().map(|one| Err(one.as_ref().err().unwrap_or(&unread).clone())).collect();
        self.observer.begin("scoring", encoded.len() as u64);
        let mut done = 0;
        for batch in batches(encoded, self.batch_tokens) {
            if self.observer.is_interrupted() {
                break;
            }
            done += batch.len() as u64;
            let scored = self.batch(&batch);
            for (place, (index, _)) in batch.iter().enumerate() {
                results[*index] = match &scored {
                    Ok(scores) => Ok(scores[place].clone()),
                    Err(error) => Err(ItemFault::Engine(error.to_string())),
                };
            }
            self.observer.advance(done, "");
        }
        self.observer.end();
        results
    }

    fn batch(&self, batch: &[Placed<'_>]) -> Result<Vec<Scores>, patarm_models::Error> {
        let trajectory = match self.text.config().trajectory_weight == 0.0 {
            true => Trajectory::Skip,
            false => Trajectory::Read,
        };
        let (forest, rows) = step_rows(batch.iter().map(|(_, solution)| *solution), trajectory);
        let (hidden, _) = self.decoder.infer(&forest, &[])?;
        let numbers = self.reader.read(self.decoder, &hidden, &rows.rows.concat());
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
        let limit = self.decoder.shape.max_positions;
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
        self.name.clone()
    }
}

/// A solution of a batch with its place among all.
type Placed<'s> = (usize, &'s EncodedSolution);

/// Batches of at most `budget` tokens (a longer solution alone), solutions of one prompt
/// side by side.
fn batches(encoded: &[Result<EncodedSolution, ItemFault>], budget: usize) -> Vec<Vec<Placed<'_>>> {
    let mut first_of: HashMap<&[u32], usize> = HashMap::new();
    let mut order: Vec<(usize, usize, &EncodedSolution)> = Vec::with_capacity(encoded.len());
    for (index, solution) in encoded.iter().enumerate() {
        if let Ok(solution) = solution {
            let first = *first_of.entry(solution.prompt.as_slice()).or_insert(index);
            order.push((first, index, solution));
        }
    }
    order.sort_by_key(|(first, index, _)| (*first, *index));
    let mut batches: Vec<Vec<Placed<'_>>> = Vec::new();
    let (mut tokens, mut prompt) = (0, None);
    for (first, index, solution) in order {
        let shared = if prompt == Some(first) { solution.prompt.len() } else { 0 };
        let more = solution.len() - shared;
        match batches.last_mut() {
            Some(batch) if tokens + more <= budget => {
                batch.push((index, solution));
                tokens += more;
            }
            _ => {
                batches.push(vec![(index, solution)]);
                tokens = solution.len();
            }
        }
        prompt = Some(first);
    }
    batches
}
