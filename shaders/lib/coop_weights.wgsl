// How a gather on cooperative matrices brings weights: as they are stored, of a piece of columns RIGHT_LOADS depths one after another, or TURNED, stored (tap, column,
// depth), of RIGHT_LOADS columns a piece of the depth. Neither way changes places on the way: matrices are loaded by rows or by columns.
const_assert RIGHT_LOADS % WIDTH == 0u || WIDTH % RIGHT_LOADS == 0u;

// Pieces of a slab, and rows (or columns, TURNED) from one that an invocation brings to the next.
const PIECES: u32 = DEPTH / WIDTH;
const ROW_STEP: u32 = INVOCATIONS / PIECES;

// What an invocation brings: from this depth on, of this piece of columns; or from this column on.
struct Weights { at: Depth, column: u32 }

fn weights_of(local: u32, first_column: u32) -> Weights {
    if TURNED { return Weights(depth_of(local % PIECES), first_column + local / PIECES); }
    return Weights(depth_of(first_depth(local) / WIDTH), first_column / WIDTH + local % (COLUMNS / WIDTH));
}

// Where they are a slab further, when the input is at `input`: TURNED, an invocation brings the same piece of both.
fn weights_at(input: Depth, last: Depth, slab: Depth) -> Depth {
    if TURNED { return input; }
    return deeper(last, slab);
}

// Of a slab, where columns come in pieces.
fn first_depth(local: u32) -> u32 { return local / (COLUMNS / WIDTH) * RIGHT_LOADS; }

fn sources_b(weights: Weights, next: Depth, local: u32) -> array<u32, RIGHT_LOADS> {
    var starts: array<u32, RIGHT_LOADS>;
    if TURNED {
        #unroll
        for (var i = 0u; i < RIGHT_LOADS; i++) { starts[i] = source_turned(weights.at, 0u, weights.column + i * ROW_STEP); }
        return starts;
    }
    let depth = first_depth(local) % WIDTH;
    var at = weights.at;
    var first = source_b(at, 0u, weights.column);
    #unroll
    for (var i = 0u; i < RIGHT_LOADS; i++) {
        if i > 0u && i % WIDTH == 0u {
            at = deeper(at, next);
            first = source_b(at, 0u, weights.column);
        }
        starts[i] = first + (depth + i % WIDTH) * out_pieces();
    }
    return starts;
}

// Where the one of number `i` goes in `right`.
fn place_b(local: u32, i: u32) -> u32 {
    if TURNED { return (local / PIECES + i * ROW_STEP) * DEPTH_STRIDE + local % PIECES * WIDTH; }
    return (first_depth(local) + i) * COLUMN_STRIDE + local % (COLUMNS / WIDTH) * WIDTH;
}
