//! Which examples an update uses: a pure function of seed, stream and step.

use patarm_models::kernels::random;

/// Indices of the examples of update `step` (from 1): consecutive places in an
/// endless sequence of seeded permutations, one an epoch.
#[must_use]
pub fn batch_indices(
    num_examples: usize,
    batch: usize,
    step: u64,
    (seed, stream): (u64, u64),
) -> Vec<usize> {
    if num_examples == 0 {
        return Vec::new();
    }
    let first = (step - 1) * batch as u64;
    let mut current = (u64::MAX, Vec::new());
    let each = (first..first + batch as u64).map(|place| {
        let epoch = place / num_examples as u64;
        if current.0 != epoch {
            let mut order: Vec<usize> = (0..num_examples).collect();
            random::shuffle(&mut order, seed, random::mix(stream, epoch));
            current = (epoch, order);
        }
        current.1[(place % num_examples as u64) as usize]
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_sees_every_example_once() {
        let mut seen: Vec<usize> =
            (1..=5).flat_map(|step| batch_indices(10, 2, step, (3, 1))).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert_ne!(batch_indices(10, 10, 1, (3, 1)), batch_indices(10, 10, 2, (3, 1)));
        // A batch may straddle epochs and is the same however often it is asked for.
        assert_eq!(batch_indices(3, 5, 2, (0, 0)), batch_indices(3, 5, 2, (0, 0)));
    }
}
