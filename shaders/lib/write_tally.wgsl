// Where something is noted: the two vectors of each chunk of rows and column quad go to `chunks`.
#import tally

const TALLIES: bool = true;

fn write_tally(row: u32, chunk: u32, column: u32, t: Tally) {
    if (row < params.rows) & (column < params.out_quads) {
        let to = 2u * ((params.first_chunk + chunk) * params.out_quads + column);
        chunks[to] = t.first;
        chunks[to + 1u] = t.second;
    }
}
