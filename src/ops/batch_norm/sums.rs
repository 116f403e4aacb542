//! Sums over the batch: made per chunk of rows, here or by the convolution that writes the rows, then over the chunks.

use super::EPS;
use crate::gpu::{DeviceKind, KernelSpec, Params, Specialization};
use crate::graph::{Lowering, TensorId, Window};
use crate::ops::conv2d::Tallied;
use crate::ops::groups;

/// Column quads of a tensor with these channels last.
pub(super) fn quads(cx: &Lowering<'_>, channels: TensorId) -> usize {
    cx.shape(channels)[0].div_ceil(4)
}

/// Parameters of a launch over `part` of the rows, cut into chunks of `chunk` rows.
pub(super) fn params(cx: &Lowering<'_>, quads: usize, part: Window, chunk: usize) -> Params {
    let (chunks, first_chunk) = (part.count.div_ceil(chunk), part.first / chunk);
    of([part.count, part.of, quads, chunk, chunks, first_chunk, chunks, span(cx)], 0.0)
}

fn of([rows, batch_rows, quads, chunk, chunks, first_chunk, window_chunks, span]: [usize; 8], momentum: f32) -> Params {
    Params::default()
        .u32("rows", rows)
        .u32("batch_rows", batch_rows)
        .u32("quads", quads)
        .u32("chunk", chunk)
        .u32("chunks", chunks)
        .u32("first_chunk", first_chunk)
        .u32("window_chunks", window_chunks)
        .u32("span", span)
        .f32("momentum", momentum)
        .f32("eps", EPS)
}

/// Parameters of a launch over all chunks.
fn over(cx: &Lowering<'_>, t: &Tallied, quads: usize, momentum: f32) -> Params {
    of([t.window_rows, t.rows, quads, t.chunk, t.chunks, 0, t.window_chunks, span(cx)], momentum)
}

/// From the chunks' `partials` to moments and running statistics (`outputs`).
pub(in crate::ops) fn finalize_statistics(cx: &mut Lowering<'_>, momentum: f32, t: &Tallied, partials: TensorId, outputs: &[TensorId]) {
    let quads = quads(cx, outputs[1]);
    let params = over(cx, t, quads, momentum);
    // In f16 a step that overflows is skipped and the run goes on; in f32 what is not finite stays,
    // as in PyTorch.
    let constants = Specialization::default().bool("SKIPS", cx.has_halves());
    let (kernel, launched) = over_chunks(cx, "finalize", constants, quads, t.chunks);
    cx.launch(kernel, params, launched, &[partials], outputs);
}

/// From the chunks' partial sums, moments and weight (`inputs`, perhaps with other gradients of weight and bias to add) to the gradients of weight and
/// bias, and what the gradient of the input is made from (`outputs`).
pub(super) fn finalize_gradients(cx: &mut Lowering<'_>, t: &Tallied, inputs: &[TensorId], outputs: &[TensorId; 3]) {
    let quads = quads(cx, inputs[2]);
    let params = over(cx, t, quads, 0.0);
    let (kernel, launched) =
        over_chunks(cx, if inputs.len() == 3 { "backward_finalize" } else { "backward_finalize_onto" }, Specialization::default(), quads, t.chunks);
    cx.launch(kernel, params, launched, inputs, outputs);
}

/// A kernel over all chunks, with these constants and its own, and its workgroups. Barriers cost software devices more than the sums themselves: there an invocation takes all
/// chunks of a column quad, unless they are very many.
fn over_chunks(cx: &Lowering<'_>, entry: &'static str, constants: Specialization, quads: usize, chunks: usize) -> (KernelSpec, usize) {
    let kernel = KernelSpec::new("batch_norm", entry);
    if cx.caps().kind == DeviceKind::Cpu && chunks < 8_192 {
        return (kernel.with(constants.u32("LANES", 1).u32("COLUMNS", 8).u32("AHEAD", 1)), quads.div_ceil(8));
    }
    let lanes = if chunks > 512 { 256 } else { 64 };
    (kernel.with(constants.u32("LANES", lanes)), quads)
}

/// Rows that one invocation of the element-wise kernels visits: many where loads of the column's values cost as much as any,
/// few where invocations must be many to hide latency.
fn span(cx: &Lowering<'_>) -> usize {
    if cx.caps().kind == DeviceKind::Cpu { 16 } else { 4 }
}

/// Workgroups of the element-wise kernels.
pub(super) fn spans(cx: &Lowering<'_>, rows: usize, quads: usize) -> usize {
    groups(rows.div_ceil(span(cx)) * quads)
}

/// How rows are cut where nobody else has: about 16,384 invocations, of 32 to 2,048 rows each.
pub(super) fn own_chunks(rows: usize, quads: usize) -> Tallied {
    let chunk = (rows * quads / 16_384).clamp(32, 2_048);
    let chunks = rows.div_ceil(chunk);
    Tallied { rows, chunk, chunks, window_rows: rows, window_chunks: chunks }
}

#[cfg(test)]
mod tests {
    use super::own_chunks;

    /// No invocation loops over more rows, or more chunks, than drivers that cut loops allow.
    #[test]
    fn chunks_cover_the_rows_in_short_loops() {
        for rows in [1, 31, 32, 33, 210_001, 16_384 * 112 * 112] {
            for quads in [1, 16, 512] {
                let t = own_chunks(rows, quads);
                assert!(t.chunk * t.chunks >= rows && t.chunk * (t.chunks - 1) < rows);
                assert!(t.chunk < 65_535 && t.chunks.div_ceil(64) < 65_535, "{rows}x{quads}: {} chunks of {}", t.chunks, t.chunk);
            }
        }
    }
}
