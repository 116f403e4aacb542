// Sums and maxima over the LANES invocations of a workgroup (a power of 2), as a tree of fixed shape: the same bits every time.
// Every invocation of the workgroup must call, in uniform control flow; every one gets the result.
const LANES: u32 = 64u;
var<workgroup> reduce_memory: array<vec4<f32>, LANES>;

fn workgroup_sum(local: u32, value: vec4<f32>) -> vec4<f32> {
    workgroupBarrier();
    reduce_memory[local] = value;
    for (var half = LANES / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if local < half {
            reduce_memory[local] += reduce_memory[local + half];
        }
    }
    workgroupBarrier();
    return reduce_memory[0];
}

fn workgroup_max(local: u32, value: f32) -> f32 {
    workgroupBarrier();
    reduce_memory[local] = vec4(value);
    for (var half = LANES / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if local < half {
            reduce_memory[local] = max(reduce_memory[local], reduce_memory[local + half]);
        }
    }
    workgroupBarrier();
    return reduce_memory[0].x;
}
