//! Gradients by finite differences, dropout, and files.

use patarm_kernels::Cpu;

use super::*;

fn net() -> EnergyNet {
    let shape = EnergyShape { embedding: 5, branch: vec![3, 4, 6], joint: vec![8, 7] };
    EnergyNet::fresh(Arc::new(Cpu::new(1)), shape, 3)
}

const ITEMS: [u32; 5] = [0, 1, 1, 0, 1];
const REWARDS: [f32; 5] = [0.3, -1.2, 2.0, 0.0, 0.7];

fn embeddings(net: &EnergyNet) -> Buffer {
    let values: Vec<f32> = (0..10).map(|n| ((n * n) as f32 * 0.7).sin()).collect();
    net.backend.upload(&values)
}

/// Σ sin(f · (n + 1)) and its gradient by the energies.
fn loss_of(values: &[f32]) -> (f64, Vec<f32>) {
    let weighted = |n: usize| f64::from(values[n]) * (n + 1) as f64;
    let loss = (0..values.len()).map(|n| weighted(n).sin()).sum();
    (loss, (0..values.len()).map(|n| (weighted(n).cos() * (n + 1) as f64) as f32).collect())
}

fn loss(net: &EnergyNet, rewards: &[f32], dropout: Dropout) -> f64 {
    let embeddings = embeddings(net);
    let candidates = Candidates { embeddings: &embeddings, items: &ITEMS, rewards };
    loss_of(&net.forward(candidates, dropout).values).0
}

fn close(numeric: f64, exact: f32, what: &str) {
    let exact = f64::from(exact);
    let difference = (numeric - exact).abs();
    assert!(difference <= 1e-2 * exact.abs().max(0.1), "{what}: {exact} against {numeric}");
}

#[test]
fn gradients_are_finite_differences_with_and_without_dropout() {
    let on = Dropout::On { share: 0.5, draw: (7, 2), first_row: 11 };
    for dropout in [Dropout::Off, on] {
        let mut net = net();
        let embeddings = embeddings(&net);
        let candidates = Candidates { embeddings: &embeddings, items: &ITEMS, rewards: &REWARDS };
        let saved = net.forward(candidates, dropout);
        let (_, d_values) = loss_of(&saved.values);
        let mut gradients = Gradients::zeros(net.backend.as_ref(), &net.parameters);
        let d_rewards = net.backward((candidates, &saved), &d_values, &mut gradients);
        let h = 1e-2f32;
        for row in 0..REWARDS.len() {
            let at = |by: f32| {
                let mut moved = REWARDS;
                moved[row] += by;
                loss(&net, &moved, dropout)
            };
            let numeric = (at(h) - at(-h)) / f64::from(2.0 * h);
            close(numeric, d_rewards[row], "a reward");
        }
        let mut num_checked = 0;
        let ids: Vec<ParameterId> = net.parameters.iter().map(|(id, _)| id).collect();
        for id in ids {
            let gradient = gradients.get(id).expect("trainable").host().to_vec();
            let largest = (0..gradient.len())
                .max_by(|a, b| gradient[*a].abs().total_cmp(&gradient[*b].abs()))
                .expect("elements");
            let mut moved = |by: f32| {
                net.parameters.get_mut(id).value.host_mut()[largest] += by;
                let value = loss(&net, &REWARDS, dropout);
                net.parameters.get_mut(id).value.host_mut()[largest] -= by;
                value
            };
            let numeric = (moved(h) - moved(-h)) / f64::from(2.0 * h);
            close(numeric, gradient[largest], &net.parameters.get(id).name.clone());
            num_checked += usize::from(gradient[largest] != 0.0);
        }
        assert!(num_checked >= 10, "{num_checked} parameters have a gradient");
    }
}

#[test]
fn dropout_keeps_the_mean_and_follows_the_row_not_the_batch() {
    let net = net();
    let on = |first_row| Dropout::On { share: 0.5, draw: (7, 2), first_row };
    let mask = net.mask(3, 4000, on(0)).expect("the first joint layer drops");
    let mean = f64::from(mask.iter().sum::<f32>()) / mask.len() as f64;
    assert!((mean - 1.0).abs() < 0.03, "{mean}");
    assert_eq!(net.mask(3, 10, on(30)).expect("drops"), mask[30 * 8..40 * 8]);
    assert!(net.mask(2, 4, on(0)).is_none(), "not after the branch's last layer");
    assert!(net.mask(3, 4, Dropout::Off).is_none());
}

#[test]
fn an_energy_does_not_depend_on_what_else_is_judged() {
    let net = net();
    let embeddings = embeddings(&net);
    let all = Candidates { embeddings: &embeddings, items: &ITEMS, rewards: &REWARDS };
    let together = net.forward(all, Dropout::Off).values;
    for row in 0..ITEMS.len() {
        let one = Candidates {
            items: &ITEMS[row..=row],
            rewards: &REWARDS[row..=row],
            embeddings: &embeddings,
        };
        let alone = net.forward(one, Dropout::Off).values[0];
        assert_eq!(alone.to_bits(), together[row].to_bits());
    }
}

#[test]
fn a_network_survives_its_file_and_another_shape_is_refused() {
    let (first, mut second) = (net(), net());
    let folder = tempfile::tempdir().expect("folder");
    let expected = loss(&first, &REWARDS, Dropout::Off);
    first.save(folder.path()).expect("saves");
    let changed = second.parameters.iter().next().expect("a parameter").0;
    second.parameters.get_mut(changed).value.host_mut().fill(0.5);
    assert_ne!(loss(&second, &REWARDS, Dropout::Off), expected);
    second.load(folder.path()).expect("loads");
    assert_eq!(loss(&second, &REWARDS, Dropout::Off), expected);
    let shape = EnergyShape { joint: vec![9, 7], ..first.shape.clone() };
    let mut other = EnergyNet::fresh(Arc::clone(&first.backend), shape, 3);
    let message = other.load(folder.path()).expect_err("another shape").to_string();
    assert!(message.contains("joint"), "{message}");
}

#[test]
fn the_authors_networks_and_impossible_shapes() {
    let small = EnergyNet::fresh(Arc::new(Cpu::new(1)), EnergyShape::small(512), 0);
    let layers = [(1, 16), (16, 32), (32, 64), (512 + 64, 1024), (1024, 512), (512, 1)];
    let count: usize = layers.iter().map(|(input, output)| input * output + output).sum();
    assert_eq!(small.parameters.num_elements(), count);
    assert_eq!(small.shape.num_parameters(), count);
    assert!(EnergyShape::large(2048).check().is_ok());
    for shape in [
        EnergyShape { embedding: 0, ..EnergyShape::small(4) },
        EnergyShape { branch: Vec::new(), ..EnergyShape::small(4) },
        EnergyShape { joint: vec![1 << 20], ..EnergyShape::small(4) },
    ] {
        assert!(shape.check().is_err(), "{shape:?}");
    }
}
