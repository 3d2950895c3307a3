//! Named parameters and their gradients.

use std::collections::HashMap;

use patarm_kernels::{Backend, Buffer};

/// Index of a parameter within its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParameterId(usize);

impl ParameterId {
    /// Position in the set.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// One parameter.
#[derive(Debug)]
pub struct Parameter {
    /// Name in the checkpoint, as Hugging Face spells it.
    pub name: String,
    /// Shape, outermost first.
    pub shape: Vec<usize>,
    /// The value, row-major.
    pub value: Buffer,
    /// Whether a gradient is wanted.
    pub trainable: bool,
    /// Whether AdamW decays it: matrices yes, norms and biases no.
    pub decays: bool,
    /// Whether it was prepared as the weight of linear maps.
    is_weight: bool,
    /// Whether it belongs to a head on top of the decoder: an adapter trains and saves
    /// it too.
    pub is_head: bool,
}

/// All parameters of a model, in a fixed order.
#[derive(Debug, Default)]
pub struct ParameterSet {
    entries: Vec<Parameter>,
    by_name: HashMap<String, ParameterId>,
}

impl ParameterSet {
    /// Adds a parameter: trainable, unless its value is a quantised weight, which has no
    /// gradient.
    ///
    /// # Panics
    /// When the value does not have the shape's size or the name exists.
    pub fn add(&mut self, name: impl Into<String>, shape: &[usize], value: Buffer) -> ParameterId {
        let name = name.into();
        assert_eq!(value.len(), shape.iter().product::<usize>(), "size of {name}");
        let id = ParameterId(self.entries.len());
        let previous = self.by_name.insert(name.clone(), id);
        assert!(previous.is_none(), "parameter {name} exists");
        let (decays, trainable) = (shape.len() > 1, !value.is_quantised());
        self.entries.push(Parameter {
            name,
            shape: shape.to_vec(),
            value,
            trainable,
            decays,
            is_weight: false,
            is_head: false,
        });
        id
    }

    /// The parameter of an id.
    #[must_use]
    pub fn get(&self, id: ParameterId) -> &Parameter {
        &self.entries[id.0]
    }

    /// The parameter of an id, mutably.
    #[must_use]
    pub fn get_mut(&mut self, id: ParameterId) -> &mut Parameter {
        &mut self.entries[id.0]
    }

    /// Makes a matrix the weight of linear maps on a device
    /// ([`Backend::prepare_weight`]); adapters, norms and heads are not.
    ///
    /// # Panics
    /// When the parameter is not a matrix.
    pub fn prepare_weight(&mut self, backend: &dyn Backend, id: ParameterId) {
        let entry = &mut self.entries[id.0];
        assert_eq!(entry.shape.len(), 2, "{} is a matrix", entry.name);
        backend.prepare_weight(&mut entry.value, entry.shape[0], entry.shape[1]);
        entry.is_weight = true;
    }

    /// Puts another value of the same size in place of a parameter's.
    ///
    /// # Panics
    /// When the size differs.
    pub fn replace(&mut self, backend: &dyn Backend, id: ParameterId, value: Buffer) {
        let entry = &mut self.entries[id.0];
        assert_eq!(value.len(), entry.value.len(), "size of {}", entry.name);
        entry.value = value;
        if entry.is_weight {
            self.prepare_weight(backend, id);
        }
    }

    /// The value of an id.
    #[must_use]
    pub fn value(&self, id: ParameterId) -> &Buffer {
        &self.entries[id.0].value
    }

    /// Looks a parameter up by its checkpoint name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<ParameterId> {
        self.by_name.get(name).copied()
    }

    /// Every parameter with its id, in order.
    pub fn iter(&self) -> impl Iterator<Item = (ParameterId, &Parameter)> {
        self.entries.iter().enumerate().map(|(index, parameter)| (ParameterId(index), parameter))
    }

    /// Every parameter, mutably.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ParameterId, &mut Parameter)> {
        self.entries
            .iter_mut()
            .enumerate()
            .map(|(index, parameter)| (ParameterId(index), parameter))
    }

    /// Number of parameters (tensors).
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of trainable elements.
    #[must_use]
    pub fn num_trainable(&self) -> usize {
        self.entries.iter().filter(|entry| entry.trainable).map(|entry| entry.value.len()).sum()
    }

    /// Whether there is a weight that stays quantised.
    #[must_use]
    pub fn has_quantised(&self) -> bool {
        self.entries.iter().any(|entry| entry.value.is_quantised())
    }

    /// Number of elements.
    #[must_use]
    pub fn num_elements(&self) -> usize {
        self.entries.iter().map(|entry| entry.value.len()).sum()
    }
}

/// A gradient for every trainable parameter, zero at first.
#[derive(Debug)]
pub struct Gradients {
    entries: Vec<Option<Buffer>>,
}

impl Gradients {
    /// Zero gradients of the trainable parameters.
    #[must_use]
    pub fn zeros(backend: &dyn Backend, parameters: &ParameterSet) -> Self {
        let each = parameters.entries.iter();
        let entries =
            each.map(|entry| entry.trainable.then(|| backend.zeros(entry.value.len()))).collect();
        Self { entries }
    }

    /// No gradient of any parameter: for those by inputs alone.
    #[must_use]
    pub fn none(parameters: &ParameterSet) -> Self {
        Self { entries: parameters.entries.iter().map(|_| None).collect() }
    }

    /// Sets every gradient to zero, keeping the memory.
    pub fn clear(&mut self, backend: &dyn Backend) {
        for gradient in self.entries.iter_mut().flatten() {
            backend.fill(gradient, 0.0);
        }
    }

    /// The gradient of a parameter; `None` where it is frozen.
    #[must_use]
    pub fn get(&self, id: ParameterId) -> Option<&Buffer> {
        self.entries[id.0].as_ref()
    }

    /// The gradient of a parameter, mutably; `None` where it is frozen.
    pub fn get_mut(&mut self, id: ParameterId) -> Option<&mut Buffer> {
        self.entries[id.0].as_mut()
    }
}
