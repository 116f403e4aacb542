// Column of the largest value of every row, the lowest of equal ones; the first NaN, where there is
// one, as in PyTorch. One workgroup per row; a tree of fixed shape joins its invocations. Values
// are compared as integers, of which NaN is the largest.
#import index
#import columns

struct Params { rows: u32, quads: u32, columns: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> values: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> best: array<u32>;

struct Candidate { rank: i32, column: u32 }

var<workgroup> candidates: array<Candidate, 64>;

// Below the rank of any value.
const NONE: i32 = -0x7fffffff;

// Integers in the order of values: the size, negative where the value is, so that 0 and -0 are
// equal.
fn ranks(v: vec4<f32>) -> vec4<i32> {
    let bits = bitcast<vec4<i32>>(v);
    let size = bits & vec4(0x7fffffff);
    return select(select(size, -size, bits < vec4<i32>()), vec4(0x7fffffff), size > vec4(0x7f800000));
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = workgroup_index(wg, n);
    if row >= params.rows { return; }
    // An invocation without columns loses against any column.
    var own = Candidate(NONE, 0xffffffffu);
    for (var quad = local; quad < params.quads; quad += 64u) {
        let four = select(vec4(NONE), ranks(values[row * params.quads + quad]), column_mask(quad, params.columns) > vec4<f32>());
        let largest = max(max(four.x, four.y), max(four.z, four.w));
        // Columns come in ascending order, so only a larger value replaces the one found before.
        if largest > own.rank {
            let lane = select(select(select(3u, 2u, four.z == largest), 1u, four.y == largest), 0u, four.x == largest);
            own = Candidate(largest, quad * 4u + lane);
        }
    }
    candidates[local] = own;
    for (var half = 32u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if local < half {
            let a = candidates[local];
            let b = candidates[local + half];
            if b.rank > a.rank || (b.rank == a.rank && b.column < a.column) {
                candidates[local] = b;
            }
        }
    }
    workgroupBarrier();
    // The last row's workgroup fills the padding.
    let last = select(row + 1u, (params.rows + 3u) & ~3u, row + 1u == params.rows);
    if row + local < last {
        best[row + local] = select(0u, candidates[0].column, local == 0u);
    }
}
