//! Backbone, projection head and prototypes.

use crate::graph::{DType, Graph, Tensor};
use crate::nn::architecture::{Backbone, Head, TensorSpec};
use crate::nn::{Parameters, Recompute, ResNet};
use crate::ops::{BatchNormMode, concat_rows};

/// A SwAV network: its shape and its tensors.
#[derive(Clone, Debug)]
pub struct SwavModel {
    /// The ResNet.
    pub backbone: Backbone,
    /// Projection head and prototypes.
    pub head: Head,
    /// All tensors.
    pub parameters: Parameters,
}

/// Results of the forward pass.
pub struct Forward {
    /// Pooled backbone features (N, C).
    pub features: Tensor,
    /// Unit-length embeddings z (N, D).
    pub embeddings: Tensor,
    /// Scores z Wᵀ of the first prototype head (N, K).
    pub scores: Tensor,
}

impl SwavModel {
    /// A network whose parameters are all trained. No arena exceeds `max_binding_bytes`.
    pub fn new(backbone: Backbone, head: Head, max_binding_bytes: u64) -> Self {
        let parameters = Parameters::new(&Self::specs(&backbone, &head), |_| true, max_binding_bytes);
        Self { backbone, head, parameters }
    }

    /// Every tensor of such a network, in `state_dict` order.
    pub fn specs(backbone: &Backbone, head: &Head) -> Vec<TensorSpec> {
        let mut specs = backbone.tensors();
        specs.extend(head.tensors(backbone.features()));
        specs
    }

    /// Forward pass of groups of crops of one resolution each, (n·B, S, S, 3). The backbone's activations are of type `activations`; all that
    /// is returned is f32.
    pub fn forward(&self, groups: &[Tensor], activations: DType, mode: BatchNormMode, recompute: Recompute) -> Forward {
        let resnet = ResNet { backbone: &self.backbone, parameters: &self.parameters, mode, recompute };
        let graph = groups[0].graph();
        let working = resnet.working(graph, activations);
        let pool = |(i, images): (usize, &Tensor)| graph.scope(&format!("group{i}"), || resnet.forward_with(images, &working).global_avg_pool2d());
        let pooled: Vec<Tensor> = groups.iter().enumerate().map(pool).collect();
        let features = concat_rows(&pooled.iter().collect::<Vec<_>>());
        graph.scope("head", || self.head(graph, features, mode))
    }

    /// Embeddings and scores of pooled features (N, C).
    pub fn head(&self, graph: &Graph, features: Tensor, mode: BatchNormMode) -> Forward {
        let tensor = |name: &str| self.parameters.tensor(graph, name);
        let linear = |x: &Tensor, name: &str| x.linear(&tensor(&format!("{name}.weight")), Some(&tensor(&format!("{name}.bias"))));
        let projected = if self.head.hidden == 0 {
            linear(&features, "projection_head")
        } else {
            let hidden = linear(&features, "projection_head.0");
            let hidden = hidden.batch_norm(&self.parameters.batch_norm(graph, "projection_head.1"), mode).relu();
            linear(&hidden, "projection_head.3")
        };
        let embeddings = projected.normalize();
        let scores = self.scores(&embeddings, 0);
        Forward { features, embeddings, scores }
    }

    /// Scores of embeddings (N, D) against the prototypes of `head`, counted from 0: (N, K).
    pub fn scores(&self, embeddings: &Tensor, head: usize) -> Tensor {
        embeddings.linear(&self.parameters.tensor(embeddings.graph(), &self.head.prototypes_name(head)), None)
    }
}
