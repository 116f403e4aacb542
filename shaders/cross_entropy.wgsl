// Cross-entropy of rows of logits / temperature, against class labels or against distributions. One
// workgroup of LANES per row. With d = (x - max x) / T, as in log_softmax: what is common to all
// logits of a row is taken off first, so that it costs no digits. Forward: losses[row] = sum(target
// * (log(sum(exp d)) - d)); the maximum, the logarithm and the mass, the row sum of the target, are
// kept. Backward: dx = grad_output * scale / T * (softmax(x / T) * mass - target). Padding stays 0.
#import index
#import reduce
#import columns

struct Params { rows: u32, quads: u32, columns: u32, temperature: f32, scale: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<vec4<f32>>;

// d of a vec4 of logits.
fn below(x: vec4<f32>, largest: f32) -> vec4<f32> { return (x - largest) / params.temperature; }

// The largest logit of a row, and log(sum(exp d)).
fn normalizer(local: u32, first: u32) -> vec2<f32> {
    var largest = LOWEST;
    for (var quad = local; quad < params.quads; quad += LANES) {
        largest = max(largest, max4(select(vec4(LOWEST), logits[first + quad], column_mask(quad, params.columns) > vec4<f32>())));
    }
    largest = workgroup_max(local, largest);
    var exps = vec4<f32>();
    for (var quad = local; quad < params.quads; quad += LANES) {
        exps += masked_exp(below(logits[first + quad], largest), quad, params.columns);
    }
    return vec2(largest, log(sum4(workgroup_sum(local, exps))));
}

@group(0) @binding(2) var<storage, read> targets: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> losses: array<f32>;
@group(0) @binding(4) var<storage, read_write> normalizers: array<vec4<f32>>; // largest logit, log(sum(exp d)), mass of a row

@compute @workgroup_size(LANES)
fn forward_soft(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = workgroup_index(wg, n);
    if row >= params.rows { return; }
    let first = row * params.quads;
    let kept = normalizer(local, first);
    var mass = vec4<f32>();
    var products = vec4<f32>();
    for (var quad = local; quad < params.quads; quad += LANES) {
        mass += targets[first + quad];
        // Each term is a target times a log-probability: none is larger than the loss, so nothing cancels.
        // In the padding the largest logit may be so far away that the difference is infinite.
        products += within(targets[first + quad] * (kept.y - below(logits[first + quad], kept.x)), quad, params.columns);
    }
    let sums = workgroup_sum(local, vec4(sum4(mass), sum4(products), 0.0, 0.0));
    if local == 0u {
        losses[row] = sums.y;
        normalizers[row] = vec4(kept, sums.x, 0.0);
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
    let kept = normalizer(local, first);
    if local == 0u {
        let label = label_of(row);
        losses[row] = kept.y - below(logits[first + label / 4u], kept.x)[label % 4u];
        normalizers[row] = vec4(kept, 1.0, 0.0);
    }
}

@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read_write> weighted_losses: array<f32>;
@group(0) @binding(5) var<storage, read_write> weighted_normalizers: array<vec4<f32>>;

// A row counts as often as its weight says, which is the mass of its target.
@compute @workgroup_size(LANES)
fn forward_weighted(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = workgroup_index(wg, n);
    if row >= params.rows { return; }
    let first = row * params.quads;
    let kept = normalizer(local, first);
    if local == 0u {
        let label = label_of(row);
        weighted_losses[row] = weights[row] * (kept.y - below(logits[first + label / 4u], kept.x)[label % 4u]);
        weighted_normalizers[row] = vec4(kept, weights[row], 0.0);
    }
}

@group(0) @binding(3) var<storage, read> saved: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> grad_output: array<f32>;
@group(0) @binding(5) var<storage, read_write> grad_logits: array<vec4<f32>>;

fn soft_gradient(i: u32, quad: u32, state: vec4<f32>, goal: vec4<f32>) -> vec4<f32> {
    let probability = masked_exp(below(logits[i], state.x) - state.y, quad, params.columns);
    return grad_output[0] * params.scale / params.temperature * (probability * state.z - goal);
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
    let goal = select(vec4<f32>(), vec4(saved[row].z), vec4(first, first + 1u, first + 2u, first + 3u) == vec4(label_of(row)));
    grad_logits[i] = soft_gradient(i, i % params.quads, saved[row], goal);
}
