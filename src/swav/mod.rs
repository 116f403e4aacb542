//! SwAV: swapped assignments between views (Caron et al. 2020, "Unsupervised Learning of Visual Features by Contrasting Cluster
//! Assignments"), in the paper's words.
//!
//! One step, with B images and V crops each, K prototypes, D features:
//! 1. The prototypes are scaled to unit length, in place and outside differentiation, also while they are frozen.
//! 2. Crops of one resolution go through the backbone together (batch norm sees all of them), groups in order; the pooled features of
//!    all crops go through the projection head at once, are scaled to unit length (embeddings z), and meet the prototypes: scores
//!    s = z Wᵀ, (V·B, K), rows crop by crop.
//! 3. For each crop in `crops_for_assign` Sinkhorn turns its scores, below those of the queue once that is full, into codes q (eq. 3). No
//!    derivative. The embeddings then enter the queue.
//! 4. Every crop predicts the codes of every other assigned crop at temperature τ (eqs. 2 and 6):
//!    `loss = mean over assigned crops c, over crops v ≠ c, over images of −Σ_k q_c[k] · log softmax(s_v / τ)[k]`.
//! 5. Backward; the optimiser moves everything but frozen prototypes.
//!
//! The backbone may compute in f16 ([`Precision`]): the loss is then scaled, and a step whose gradients overflow is skipped.
//!
//! A batch can be computed in micro-batches ([`StepSettings::micro_batches`]): the codes then still see all of it, batch norm does not.
//!
//! [`deepcluster`] is the same network trained on clusters of the whole data set instead of codes.

pub mod deepcluster;
mod model;
mod record;
mod runner;
mod step;

pub use model::{Forward, SwavModel};
pub use record::{Part, StepPart, StepVariables, crops_name, forward_pass, record};
pub use runner::StepRunner;
pub use step::{Crops, Precision, QueueUse, SinkhornScope, StepInputs, StepSettings};
