//! Tensors in supervised training, and their steps.

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{DType, Graph, Program, Store, Tensor, Variants, pad_rows};
use crate::nn::architecture::{TensorKind, TensorSpec};
use crate::nn::{Parameters, Values};
use crate::optim::{Optimizer, OptimizerKind, Treatment};
use crate::train::config::{LinearConfig, LinearOptimizerKind};
use crate::train::diagnosis::first_nonfinite;
use crate::train::knn::Accuracy;
use crate::tune::BestGuess;

/// Everything that is trained, and the programs that train it. The classifier (`fc`) follows the second learning rate of a step.
pub(crate) struct Trainer {
    pub(crate) parameters: Parameters,
    store: Store,
    optimizer: Optimizer,
    classes: usize,
    /// Programs by number of rows: whole batches and the last one of an epoch.
    steps: Vec<(usize, Program)>,
    inference: Option<Program>,
    /// What training began with, until a step was fine.
    first: Option<Values>,
}

/// Records class scores of so many rows (or images) of the input [`INPUT`].
pub(crate) type Forward<'a> = &'a dyn Fn(&Parameters, &Graph, usize) -> Tensor;

/// Name of what is classified, in graphs.
pub(crate) const INPUT: &str = "input";

/// Learning rates of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) backbone: f64,
    pub(crate) head: f64,
}

/// Specifications of the classifier.
pub(crate) fn classifier_specs(features: usize, classes: usize) -> [TensorSpec; 2] {
    let spec = |name: &str, shape: Vec<usize>, kind| TensorSpec { name: name.into(), shape, kind };
    [spec("fc.weight", vec![classes, features], TensorKind::LinearWeight), spec("fc.bias", vec![classes], TensorKind::LinearBias)]
}

/// Scores of pooled features.
pub(crate) fn classify(parameters: &Parameters, features: &Tensor) -> Tensor {
    let tensor = |name| parameters.tensor(features.graph(), name);
    features.linear(&tensor("fc.weight"), Some(&tensor("fc.bias")))
}

impl Trainer {
    /// Takes `values` of `specs`, the classifier among them, to the device.
    #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
    pub(crate) fn new(gpu: &Gpu, config: &LinearConfig, specs: &[TensorSpec], values: &Values) -> Result<Self> {
        let parameters = Parameters::new(specs, |_| true, gpu.caps().max_binding_bytes);
        let store = parameters.allocate(gpu)?;
        parameters.write(gpu, &store, values)?;
        let o = &config.optimizer;
        let kind = match (o.kind, o.nesterov) {
            (LinearOptimizerKind::Sgd, false) => OptimizerKind::Sgd,
            (LinearOptimizerKind::Sgd, true) => OptimizerKind::Nesterov,
            (LinearOptimizerKind::Lars, _) => OptimizerKind::Lars,
        };
        let optimizer = Optimizer { kind, momentum: o.momentum as f32, weight_decay: o.weight_decay as f32, trust: 0.001, eps: 1e-8 };
        let classes = parameters.spec("fc.bias").elements();
        Ok(Self { parameters, store, optimizer, classes, steps: Vec::new(), inference: None, first: Some(values.clone()) })
    }

    /// Every tensor as it is now.
    pub(crate) fn values(&self, gpu: &Gpu) -> Result<Values> {
        self.parameters.read(gpu, &self.store)
    }

    /// One update on inputs, as many as labels; returns the loss before it. [`Error::NonFinite`]
    /// with the layer that spoilt it where that is the first step's.
    #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
    pub(crate) fn step(
        &mut self,
        gpu: &Gpu,
        variants: &dyn Variants,
        forward: Forward<'_>,
        input: &[u8],
        labels: &[u32],
        rates: Rates,
    ) -> Result<f64> {
        let rows = labels.len();
        let place = match self.steps.iter().position(|(n, _)| *n == rows) {
            Some(place) => place,
            None => {
                self.steps.push((rows, self.record(gpu, variants, forward, rows)?));
                self.steps.len() - 1
            }
        };
        let targets = pad_rows(labels, &[rows]);
        let step = [rates.backbone as f32, 0.0, rates.head as f32, 0.0];
        let inputs: [(&str, &[u8]); 3] = [(INPUT, input), ("labels", bytemuck::cast_slice(&targets)), ("step", bytemuck::cast_slice(&step))];
        let loss = f64::from(self.steps[place].1.call(gpu, &inputs)?.scalar("loss"));
        // Later the weights that spoilt it are gone.
        let first = self.first.take();
        if let (false, Some(values)) = (loss.is_finite(), first) {
            self.parameters.write(gpu, &self.store, &values)?;
            if let Some(layer) = self.spoilt_layer(gpu, forward, rows, input) {
                return Err(Error::NonFinite { what: format!("the output of {layer}"), step: 0 });
            }
        }
        Ok(loss)
    }

    /// The first layer whose output is not finite for `rows` inputs.
    fn spoilt_layer(&self, gpu: &Gpu, forward: Forward<'_>, rows: usize, input: &[u8]) -> Option<String> {
        let graph = Graph::new();
        let _ = forward(&self.parameters, &graph, rows);
        let layer = first_nonfinite(gpu, &self.store, &graph, &BestGuess, &[(INPUT, input)]);
        layer.inspect_err(|e| tracing::debug!("looking for the layer: {e}")).ok().flatten()
    }

    fn record(&self, gpu: &Gpu, variants: &dyn Variants, forward: Forward<'_>, rows: usize) -> Result<Program> {
        let graph = Graph::new();
        let targets = graph.input("labels", &[rows], DType::U32);
        let loss = forward(&self.parameters, &graph, rows).cross_entropy(&targets);
        self.parameters.record_gradients(&loss, None);
        let step = graph.input("step", &[4], DType::F32);
        let treatment = |name: &str| Treatment { freezable: false, second_rate: name.starts_with("fc.") };
        self.optimizer.record_with(&graph, &self.parameters, &step, treatment);
        Program::new(gpu, &self.store, &graph, &[("loss", &loss)], variants)
    }

    /// Scores inputs, as many as labels and at most `most`, which is the same in every call, and counts the right ones.
    /// [`Error::NonFiniteOutput`] when a score is not finite; `named` names an input by its number.
    pub(crate) fn judge(
        &mut self,
        gpu: &Gpu,
        variants: &dyn Variants,
        forward: Forward<'_>,
        (input, most): (&[u8], usize),
        (labels, named): (&[u32], &dyn Fn(usize) -> String),
        accuracy: &mut Accuracy,
    ) -> Result<()> {
        let program = match &mut self.inference {
            Some(program) => program,
            empty => {
                let graph = Graph::new();
                let scores = forward(&self.parameters, &graph, most);
                empty.insert(Program::new(gpu, &self.store, &graph, &[("scores", &scores)], variants)?)
            }
        };
        // Rows do not see each other here: the rest of the batch may be anything.
        let mut whole = input.to_vec();
        whole.resize(input.len() / labels.len() * most, 0);
        let scores = program.call(gpu, &[(INPUT, &whole)])?.f32("scores");
        let judged = &scores[..labels.len() * self.classes];
        if let Some(at) = judged.iter().position(|v| !v.is_finite()) {
            let layer = self.spoilt_layer(gpu, forward, most, &whole).unwrap_or_else(|| "fc".into());
            return Err(Error::NonFiniteOutput { layer, image: named(at / self.classes) });
        }
        for (row, label) in scores.chunks_exact(self.classes).zip(labels) {
            accuracy.add(&row.iter().map(|s| f64::from(*s)).collect::<Vec<_>>(), *label as usize);
        }
        Ok(())
    }
}
