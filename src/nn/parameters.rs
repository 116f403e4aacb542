//! A network's tensors as variables of the engine: parameters side by side in arenas (so that one kernel updates them all), their gradients
//! and momentum in arenas of the same layout, running statistics in another.

use super::architecture::{TensorKind, TensorSpec};
use super::layout::{device_shape, from_device, to_device};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::{DType, Graph, Store, Tensor, VariableId, Variables};
use crate::ops::{BatchNormParameters, gradients, gradients_from};
use std::collections::BTreeMap;

/// Tensor values by name, in PyTorch's layout.
pub type Values = BTreeMap<String, Vec<f32>>;

/// Parameters that are updated together.
#[derive(Clone, Debug)]
pub struct Arena {
    /// All weights.
    pub weights: VariableId,
    /// All gradients.
    pub gradients: VariableId,
    /// All momentum buffers.
    pub momentum: VariableId,
    /// Names of the members, in order.
    pub members: Vec<String>,
}

#[derive(Clone, Debug)]
struct Entry {
    spec: TensorSpec,
    value: VariableId,
    /// Gradient and momentum of a trained parameter.
    training: Option<(VariableId, VariableId)>,
}

/// Every tensor of a network and where it lives.
#[derive(Clone, Debug)]
pub struct Parameters {
    variables: Variables,
    entries: BTreeMap<String, Entry>,
    order: Vec<String>,
    arenas: Vec<Arena>,
}

impl Parameters {
    /// Variables for `specs` (counters aside). Parameters for which `trained` holds get a gradient and a momentum. No arena exceeds
    /// `max_binding_bytes`.
    pub fn new(specs: &[TensorSpec], trained: impl Fn(&TensorSpec) -> bool, max_binding_bytes: u64) -> Self {
        let mut this = Self { variables: Variables::new(), entries: BTreeMap::new(), order: Vec::new(), arenas: Vec::new() };
        let specs: Vec<&TensorSpec> = specs.iter().filter(|s| s.kind != TensorKind::NumBatchesTracked).collect();
        this.order = specs.iter().map(|s| s.name.clone()).collect();
        let (trained, fixed): (Vec<_>, Vec<_>) = specs.into_iter().partition(|s| s.kind.is_parameter() && trained(s));
        for group in split(&trained, max_binding_bytes) {
            this.add_trained(&group);
        }
        for (i, group) in split(&fixed, max_binding_bytes).iter().enumerate() {
            let members: Vec<_> = group.iter().map(|s| (s.name.clone(), device_shape(s))).collect();
            let (_, ids) = this.variables.add_arena(&format!("fixed tensors {i}"), &members);
            for (spec, value) in group.iter().zip(ids) {
                this.entries.insert(spec.name.clone(), Entry { spec: (*spec).clone(), value, training: None });
            }
        }
        this
    }

    fn add_trained(&mut self, group: &[&TensorSpec]) {
        let number = self.arenas.len();
        let mut arena = |what: &str, prefix: &str| {
            let members: Vec<_> = group.iter().map(|s| (format!("{prefix}{}", s.name), device_shape(s))).collect();
            self.variables.add_arena(&format!("{what} {number}"), &members)
        };
        let (weights, values) = arena("parameters", "");
        let (gradients, gradient_of) = arena("gradients", "gradient of ");
        let (momentum, momentum_of) = arena("momentum", "momentum of ");
        for (((spec, value), gradient), momentum) in group.iter().zip(values).zip(gradient_of).zip(momentum_of) {
            let entry = Entry { spec: (*spec).clone(), value, training: Some((gradient, momentum)) };
            self.entries.insert(spec.name.clone(), entry);
        }
        let members = group.iter().map(|s| s.name.clone()).collect();
        self.arenas.push(Arena { weights, gradients, momentum, members });
    }

    /// The variables, to which a model may add its own.
    pub fn variables_mut(&mut self) -> &mut Variables {
        &mut self.variables
    }

    /// The variables.
    pub fn variables(&self) -> &Variables {
        &self.variables
    }

    /// Groups of trained parameters.
    pub fn arenas(&self) -> &[Arena] {
        &self.arenas
    }

    /// Names of all tensors, in `state_dict` order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(String::as_str)
    }

    /// Description of `name`.
    ///
    /// # Panics
    /// When there is no such tensor.
    #[track_caller]
    pub fn spec(&self, name: &str) -> &TensorSpec {
        &self.entry(name).spec
    }

    #[track_caller]
    fn entry(&self, name: &str) -> &Entry {
        self.entries.get(name).unwrap_or_else(|| panic!("the network has no tensor {name}"))
    }

    /// Number of parameters (running statistics are none).
    pub fn count(&self) -> u64 {
        self.entries.values().filter(|e| e.spec.kind.is_parameter()).map(|e| e.spec.elements() as u64).sum()
    }

    /// The tensor `name` in `graph`.
    ///
    /// # Panics
    /// When there is no such tensor.
    #[track_caller]
    pub fn tensor(&self, graph: &Graph, name: &str) -> Tensor {
        let Entry { spec, value, .. } = self.entry(name);
        let tensor = graph.variable(&self.variables, *value);
        if let (TensorKind::ConvWeight | TensorKind::LinearWeight, Some(inputs)) = (spec.kind, spec.shape.get(1)) {
            graph.note_inputs(&tensor, *inputs);
        }
        tensor
    }

    /// The batch norm `name` in `graph`.
    #[track_caller]
    pub fn batch_norm(&self, graph: &Graph, name: &str) -> BatchNormParameters {
        let tensor = |part: &str| self.tensor(graph, &format!("{name}.{part}"));
        BatchNormParameters {
            weight: tensor("weight"),
            bias: tensor("bias"),
            running_mean: tensor("running_mean"),
            running_var: tensor("running_var"),
        }
    }

    /// The trained parameters in `graph`, and for each where its gradient belongs.
    pub fn trained(&self, graph: &Graph) -> Vec<(Tensor, VariableId)> {
        let members = self.arenas.iter().flat_map(|a| &a.members);
        members.filter_map(|name| Some((self.tensor(graph, name), self.entries[name].training?.0))).collect()
    }

    /// Records the reverse pass of the scalar `loss`, times the first element of `scale` where there is one: the gradient of every trained
    /// parameter goes where the optimiser looks for it.
    pub fn record_gradients(&self, loss: &Tensor, scale: Option<&Tensor>) {
        self.reverse(loss, scale, |gradient, place| loss.graph().place(gradient, &self.variables, place));
    }

    /// The same, but gradients are added to what is there.
    pub fn accumulate_gradients(&self, loss: &Tensor, scale: Option<&Tensor>) {
        self.reverse(loss, scale, |gradient, place| gradient.accumulate_into(&loss.graph().variable(&self.variables, place)));
    }

    fn reverse(&self, loss: &Tensor, scale: Option<&Tensor>, put: impl Fn(&Tensor, VariableId)) {
        let (wrt, places): (Vec<Tensor>, Vec<VariableId>) = self.trained(loss.graph()).into_iter().unzip();
        let all = match scale {
            Some(scale) => gradients_from(loss, scale.clone(), &wrt),
            None => gradients(loss, &wrt),
        };
        for (gradient, place) in all.iter().zip(places) {
            if let Some(gradient) = gradient {
                put(gradient, place);
            }
        }
    }

    /// The value of `name` as a variable.
    #[track_caller]
    pub fn variable(&self, name: &str) -> VariableId {
        self.entry(name).value
    }

    /// Variables of a new store that hold nothing yet.
    pub fn allocate(&self, gpu: &Gpu) -> Result<Store> {
        Store::new(gpu, self.variables.clone())
    }

    /// Writes `values` (PyTorch layout) into the tensors of those names.
    ///
    /// # Panics
    /// When a name or a length is wrong.
    pub fn write(&self, gpu: &Gpu, store: &Store, values: &Values) -> Result<()> {
        for (name, value) in values {
            let entry = self.entry(name);
            store.write(gpu, entry.value, &to_device(&entry.spec, value))?;
        }
        gpu.wait()
    }

    /// Writes momentum buffers, as [`write`](Self::write).
    pub fn write_momentum(&self, gpu: &Gpu, store: &Store, values: &Values) -> Result<()> {
        for (name, value) in values {
            let entry = self.entry(name);
            if let Some((_, momentum)) = entry.training {
                store.write(gpu, momentum, &to_device(&entry.spec, value))?;
            }
        }
        gpu.wait()
    }

    /// Reads every tensor, PyTorch layout.
    pub fn read(&self, gpu: &Gpu, store: &Store) -> Result<Values> {
        self.collect(gpu, store, |e| Some(e.value))
    }

    /// Reads the gradients of the last step.
    pub fn read_gradients(&self, gpu: &Gpu, store: &Store) -> Result<Values> {
        self.collect(gpu, store, |e| e.training.map(|t| t.0))
    }

    /// Reads the momentum buffers.
    pub fn read_momentum(&self, gpu: &Gpu, store: &Store) -> Result<Values> {
        self.collect(gpu, store, |e| e.training.map(|t| t.1))
    }

    fn collect(&self, gpu: &Gpu, store: &Store, which: impl Fn(&Entry) -> Option<VariableId>) -> Result<Values> {
        let wanted = self.entries.iter().filter_map(|(name, entry)| Some((name, entry, which(entry)?)));
        wanted.map(|(name, entry, id)| Ok((name.clone(), from_device(&entry.spec, &store.read(gpu, id)?)))).collect()
    }

    /// Bytes of weights (and running statistics), and of gradients and momentum.
    pub fn bytes(&self) -> (u64, u64) {
        let size = |id: VariableId| self.variables.info(id).bytes();
        let training: u64 = self.arenas.iter().map(|a| size(a.gradients) + size(a.momentum)).sum();
        (self.variables.bytes() - training, training)
    }

    /// First element and stored length of each member of `arena`.
    pub fn arena_layout(&self, arena: &Arena) -> Vec<(String, usize, usize)> {
        let place = |name: &String| {
            let id = self.entries[name].value;
            let stored = self.variables.info(id).bytes() / DType::F32.bytes() as u64;
            (name.clone(), self.variables.arena_element(id), usize::try_from(stored).expect("a tensor fits the address space"))
        };
        arena.members.iter().map(place).collect()
    }
}

/// Cuts a list into runs that fit one arena.
fn split<'a>(specs: &[&'a TensorSpec], max_bytes: u64) -> Vec<Vec<&'a TensorSpec>> {
    let mut groups: Vec<Vec<&TensorSpec>> = Vec::new();
    let mut used = 0;
    for spec in specs {
        let bytes = Variables::arena_bytes([device_shape(spec).as_slice()]);
        if groups.is_empty() || used + bytes > max_bytes {
            groups.push(Vec::new());
            used = 0;
        }
        used += bytes;
        groups.last_mut().expect("a group was begun").push(spec);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::architecture::{Backbone, Head};

    #[test]
    fn resnet50_has_the_published_parameters_in_arenas_that_fit() {
        let backbone = Backbone::resnet(50).unwrap();
        let mut specs = backbone.tensors();
        specs.extend(Head { hidden: 2048, feat_dim: 128, prototypes: 3000, heads: None }.tensors(2048));
        let whole = Parameters::new(&specs, |_| true, u64::MAX);
        assert_eq!((whole.count(), whole.arenas().len()), (28_354_752, 1));
        let limit = 32 << 20;
        let cut = Parameters::new(&specs, |_| true, limit);
        assert!(cut.arenas().len() > 3 && cut.arenas().iter().all(|a| cut.variables().info(a.weights).bytes() <= limit));
        assert_eq!(cut.arenas().iter().map(|a| a.members.len()).sum::<usize>(), 166);
    }
}
