// What becomes of the results of a gather: they are written. `store_*` have the same functions and do more; a kernel imports `store`, and
// the host says which file that is.
//
// For each column quad an invocation calls `begin` once, with the first of its results; `put` for each row; then has the tally merged with
// others of the same column where there are any (`merged`; the `sums` of those that began with the same value may just be added), and one of them calls
// `write_tally`, with the first row of the chunk that the tally is of. Rows and columns beyond the last are left out here. What `put` needs to know besides,
// `beside` reads: several at once hide each other's latency.
#import no_tally

// The first binding of what becomes of results.
const STORE: u32 = 3u;

@group(0) @binding(STORE) var<storage, read_write> output: array<vec4<Element>>;

struct Beside { unused: u32 }

// `at` is where a row goes, or another that exists.
fn beside(at: u32, column: u32) -> Beside { return Beside(); }

fn put(row: u32, at: u32, column: u32, value: vec4<f32>, b: Beside) {
    if (row < params.rows) & (column < params.out_quads) {
        output[at * params.out_quads + column] = vec4<Element>(value);
    }
}
