// Cross-entropy of rows of logits / temperature, against class labels or against distributions. One workgroup of LANES per row.
// Forward: losses[row] = mass * logsumexp(x / T) - sum(target * x / T), mass being the row sum of the target; the log-sum-exp is kept.
// Backward: dx = grad_output * scale / T * (softmax(x / T) * mass - target). Padding stays 0.
#import index
#import reduce
#import columns

struct Params { rows: u32, quads: u32, columns: u32, temperature: f32, scale: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<vec4<f32>>;

fn log_sum_exp(local: u32, first: u32) -> f32 {
    var largest = LOWEST;
    for (var quad = local; quad < params.quads; quad += LANES) {
        largest = max(largest, max4(select(vec4(LOWEST), logits[first + quad], column_mask(quad, params.columns) > vec4<f32>())));
    }
    largest = workgroup_max(local, largest) / params.temperature;
    var exps = vec4<f32>();
    for (var quad = local; quad < params.quads; quad += LANES) {
        exps += masked_exp(logits[first + quad] / params.temperature - largest, quad, params.columns);
    }
    return largest + log(sum4(workgroup_sum(local, exps)));
}

@group(0) @binding(2) var<storage, read> targets: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> losses: array<f32>;
@group(0) @binding(4) var<storage, read_write> normalizers: array<vec2<f32>>; // log-sum-exp and mass of a row

@compute @workgroup_size(LANES)
fn forward_soft(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = workgroup_index(wg, n);
    if row >= params.rows { return; }
    let first = row * params.quads;
    let normalizer = log_sum_exp(local, first);
    var mass = vec4<f32>();
    var products = vec4<f32>();
    for (var quad = local; quad < params.quads; quad += LANES) {
        mass += targets[first + quad];
        // Each term is a target times a log-probability: none is larger than the loss, so nothing cancels.
        products += targets[first + quad] * (normalizer - logits[first + quad] / params.temperature);
    }
    let sums = workgroup_sum(local, vec4(sum4(mass), sum4(products), 0.0, 0.0));
    if local == 0u {
        losses[row] = sums.y;
        normalizers[row] = vec2(normalizer, sums.x);
    }
}

@group(0) @binding(2) var<storage, read> labels: array<u32>;

// Labels are uploaded: whatever they are, no index leaves the row.
fn label_of(row: u32) -> u32 {
    return min(labels[row], params.columns - 1u);
}

@compute @workgroup_size(LANES)
fn forward_hard(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = workgroup_index(wg, n);
    if row >= params.rows { return; }
    let first = row * params.quads;
    let normalizer = log_sum_exp(local, first);
    if local == 0u {
        let label = label_of(row);
        losses[row] = normalizer - logits[first + label / 4u][label % 4u] / params.temperature;
        normalizers[row] = vec2(normalizer, 1.0);
    }
}

@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read_write> weighted_losses: array<f32>;
@group(0) @binding(5) var<storage, read_write> weighted_normalizers: array<vec2<f32>>;

// A row counts as often as its weight says, which is the mass of its target.
@compute @workgroup_size(LANES)
fn forward_weighted(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = workgroup_index(wg, n);
    if row >= params.rows { return; }
    let first = row * params.quads;
    let normalizer = log_sum_exp(local, first);
    if local == 0u {
        let label = label_of(row);
        weighted_losses[row] = weights[row] * (normalizer - logits[first + label / 4u][label % 4u] / params.temperature);
        weighted_normalizers[row] = vec2(normalizer, weights[row]);
    }
}

@group(0) @binding(3) var<storage, read> saved: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> grad_output: array<f32>;
@group(0) @binding(5) var<storage, read_write> grad_logits: array<vec4<f32>>;

fn soft_gradient(i: u32, quad: u32, state: vec2<f32>, goal: vec4<f32>) -> vec4<f32> {
    let probability = masked_exp(logits[i] / params.temperature - state.x, quad, params.columns);
    return grad_output[0] * params.scale / params.temperature * (probability * state.y - goal);
}

@compute @workgroup_size(64)
fn backward_soft(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.rows * params.quads { return; }
    grad_logits[i] = soft_gradient(i, i % params.quads, saved[i / params.quads], targets[i]);
}

@compute @workgroup_size(64)
fn backward_hard(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.rows * params.quads { return; }
    let row = i / params.quads;
    let first = i % params.quads * 4u;
    let goal = select(vec4<f32>(), vec4(saved[row].y), vec4(first, first + 1u, first + 2u, first + 3u) == vec4(label_of(row)));
    grad_logits[i] = soft_gradient(i, i % params.quads, saved[row], goal);
}
