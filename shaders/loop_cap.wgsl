// Counts the iterations of a loop that one invocation gets: a probe of the driver. The step comes from outside, so that no compiler can
// replace the loop by its result.
struct Params { iterations: u32, step: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> counted: array<u32>;

@compute @workgroup_size(1)
fn count() {
    var sum = 0u;
    for (var i = 0u; i < params.iterations; i++) {
        sum += params.step;
        counted[1] = sum;
    }
    counted[0] = sum;
}
