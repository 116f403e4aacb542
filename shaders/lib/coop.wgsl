// Matrix products on cooperative matrices, what GPUs call tensor cores: SUBGROUP_ROWS by SUBGROUP_COLUMNS subgroups of a workgroup share
// ROWS by COLUMNS sums in f32 and add DEPTH terms at a time, both factors in f16 in workgroup memory. One source for matrices of 8x8 and
// of 16x16: the host sets the shapes. Elements of a matrix cannot be touched, so results leave through `staged`, one matrix at a time.
#import coop_scalars
alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sum = coop_mat8x8<f32, C>;
const TILE: u32 = 8u; // side of a matrix
const LANES: u32 = 8u; // of a subgroup
const ROWS: u32 = 64u;
const COLUMNS: u32 = 64u;
const SUBGROUP_ROWS: u32 = 2u;
const SUBGROUP_COLUMNS: u32 = 2u;
const DEPTH: u32 = 32u;
const STEP: u32 = TILE; // terms between two products; anything else is wrong, which is how the self-test is tested

const QUADS: u32 = DEPTH / 4u;
const INVOCATIONS: u32 = LANES * SUBGROUP_ROWS * SUBGROUP_COLUMNS;
const ROW_TILES: u32 = ROWS / SUBGROUP_ROWS / TILE; // matrices of one subgroup
const COLUMN_TILES: u32 = COLUMNS / SUBGROUP_COLUMNS / TILE;
// An invocation brings blocks of four rows, or columns, by four deep. All its blocks are equally deep.
const LEFT_BLOCKS: u32 = ROWS / 4u * QUADS / INVOCATIONS;
const RIGHT_BLOCKS: u32 = COLUMNS / 4u * QUADS / INVOCATIONS;

// Padded by 16 bytes against bank conflicts, which keeps the alignment that matrices need.
const DEPTH_STRIDE: u32 = DEPTH + 8u;
const STAGED_STRIDE: u32 = TILE + 4u;
// Of workgroup memory, which is elements of UNIT numbers: `left` is [row][depth], `right` [column][depth], because drivers load matrices fastest along
// what is summed.
const LEFT: u32 = ROWS * DEPTH_STRIDE / UNIT;
const RIGHT: u32 = COLUMNS * DEPTH_STRIDE / UNIT;
const STAGE: u32 = SUBGROUP_ROWS * SUBGROUP_COLUMNS * TILE * STAGED_STRIDE / UNIT;

// Quad of rows or columns of block `i` of an invocation; that of its depth is local % QUADS.
fn slot(local: u32, i: u32) -> u32 {
    return (local + i * INVOCATIONS) / QUADS;
}

// Puts a block whose vectors are four rows each, one vector deeper than the other.
fn put_left_block(slot: u32, quad: u32, a: vec4<f16>, b: vec4<f16>, c: vec4<f16>, d: vec4<f16>) {
    let at = slot * 4u * DEPTH_STRIDE + quad * 4u;
    put_left(at, vec4(a.x, b.x, c.x, d.x));
    put_left(at + DEPTH_STRIDE, vec4(a.y, b.y, c.y, d.y));
    put_left(at + 2u * DEPTH_STRIDE, vec4(a.z, b.z, c.z, d.z));
    put_left(at + 3u * DEPTH_STRIDE, vec4(a.w, b.w, c.w, d.w));
}

// The same of four columns each.
fn put_right_block(slot: u32, quad: u32, a: vec4<f16>, b: vec4<f16>, c: vec4<f16>, d: vec4<f16>) {
    let at = slot * 4u * DEPTH_STRIDE + quad * 4u;
    put_right(at, vec4(a.x, b.x, c.x, d.x));
    put_right(at + DEPTH_STRIDE, vec4(a.y, b.y, c.y, d.y));
    put_right(at + 2u * DEPTH_STRIDE, vec4(a.z, b.z, c.z, d.z));
    put_right(at + 3u * DEPTH_STRIDE, vec4(a.w, b.w, c.w, d.w));
}

// Where matrix (i, j) of a subgroup begins: row and column within the workgroup's sums.
fn corner(subgroup: u32, i: u32, j: u32) -> vec2<u32> {
    return vec2(subgroup / SUBGROUP_COLUMNS * ROW_TILES + i, subgroup % SUBGROUP_COLUMNS * COLUMN_TILES + j) * TILE;
}

// Adds the products of a slab.
fn multiply(sums: ptr<function, array<array<Sum, COLUMN_TILES>, ROW_TILES>>, subgroup: u32) {
    for (var k = 0u; k < DEPTH; k += STEP) {
        var a: array<Left, ROW_TILES>;
        for (var i = 0u; i < ROW_TILES; i++) {
            a[i] = coopLoadT<Left>(&left[(corner(subgroup, i, 0u).x * DEPTH_STRIDE + k) / UNIT], DEPTH_STRIDE / UNIT);
        }
        for (var j = 0u; j < COLUMN_TILES; j++) {
            let b = coopLoad<Right>(&right[(corner(subgroup, 0u, j).y * DEPTH_STRIDE + k) / UNIT], DEPTH_STRIDE / UNIT);
            for (var i = 0u; i < ROW_TILES; i++) {
                (*sums)[i][j] = coopMultiplyAdd(a[i], b, (*sums)[i][j]);
            }
        }
    }
}

// Brings a matrix of the subgroup to where its invocations, and no others, can read it with `staged`. All subgroups must call.
fn put_stage(sum: Sum, subgroup: u32) {
    between();
    coopStoreT(sum, &stage[subgroup * TILE * STAGED_STRIDE / UNIT], STAGED_STRIDE / UNIT);
    between();
}

// vec4 `quad` of row `row` of the staged matrix of a subgroup.
fn staged(subgroup: u32, row: u32, quad: u32) -> vec4<f32> {
    return staged_at((subgroup * TILE + row) * STAGED_STRIDE + quad * 4u);
}
