// Matrix products on cooperative matrices, what GPUs call tensor cores: SUBGROUP_ROWS by SUBGROUP_COLUMNS subgroups of a workgroup share
// ROWS by COLUMNS sums in f32 and add DEPTH terms at a time, both factors in f16 in workgroup memory. One source for matrices of 8x8 and
// of 16x16: the host sets the shapes. Elements of a matrix cannot be touched, so results leave through `staged`, one matrix at a time.
#import coop_scalars
#import turned
alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sum = coop_mat8x8<f32, C>;
const TILE: u32 = 8u; // side of a matrix
const LANES: u32 = 8u; // of a subgroup
const ROWS: u32 = 64u;
const COLUMNS: u32 = 64u;
const SUBGROUP_ROWS: u32 = 2u;
const SUBGROUP_COLUMNS: u32 = 2u;
const STEP: u32 = 8u; // terms between two products; anything else is wrong, which is how the self-test is tested

const DEPTH: u32 = 32u;
const INVOCATIONS: u32 = LANES * SUBGROUP_ROWS * SUBGROUP_COLUMNS;
// Ends of loops that are written out before anything is compiled (`#unroll`): where drivers keep a loop, they keep arrays of matrices in memory.
const ROW_TILES: u32 = 4u; // matrices of one subgroup
const COLUMN_TILES: u32 = 4u;
const LEFT_LOADS: u32 = 16u; // pieces of WIDTH numbers that an invocation brings
const RIGHT_LOADS: u32 = 16u;
const PUTS: u32 = 2u; // vec4s of a matrix that an invocation writes
const_assert ROW_TILES == ROWS / SUBGROUP_ROWS / TILE;
const_assert COLUMN_TILES == COLUMNS / SUBGROUP_COLUMNS / TILE;
const_assert LEFT_LOADS == ROWS * DEPTH / WIDTH / INVOCATIONS;
const_assert RIGHT_LOADS == COLUMNS * DEPTH / WIDTH / INVOCATIONS;
const_assert LEFT_LOADS > 0u && RIGHT_LOADS > 0u;
const_assert PUTS * LANES >= TILE * TILE / 4u;

// Padded by 16 bytes against bank conflicts, which keeps the alignment that matrices need.
const DEPTH_STRIDE: u32 = DEPTH + 8u;
const ROW_STRIDE: u32 = ROWS + 8u;
const COLUMN_STRIDE: u32 = COLUMNS + 8u;
const STAGED_STRIDE: u32 = TILE + 4u;
// Of workgroup memory, which is elements of UNIT numbers: `left` is [row][depth] or [depth][row], whichever way its vec4s come (ROWS >= DEPTH makes
// the first the larger), `right` [depth][column] or, TURNED, [column][depth].
const LEFT: u32 = ROWS * DEPTH_STRIDE / UNIT;
const RIGHT: u32 = max(DEPTH * COLUMN_STRIDE, COLUMNS * DEPTH_STRIDE) / UNIT;
const STAGE: u32 = SUBGROUP_ROWS * SUBGROUP_COLUMNS * TILE * STAGED_STRIDE / STAGE_UNIT;

// Where matrix (i, j) of a subgroup begins: row and column within the workgroup's sums.
fn corner(subgroup: u32, i: u32, j: u32) -> vec2<u32> {
    return vec2(subgroup / SUBGROUP_COLUMNS * ROW_TILES + i, subgroup % SUBGROUP_COLUMNS * COLUMN_TILES + j) * TILE;
}

// Where a subgroup's matrices begin in workgroup memory. All of them are so many elements further as is known before anything is compiled.
fn first_left_by_rows(subgroup: u32) -> u32 { return subgroup / SUBGROUP_COLUMNS * (ROW_TILES * TILE * DEPTH_STRIDE / UNIT); }

fn first_left_by_depth(subgroup: u32) -> u32 { return subgroup / SUBGROUP_COLUMNS * (ROW_TILES * TILE / UNIT); }

fn first_right(subgroup: u32) -> u32 { return subgroup % SUBGROUP_COLUMNS * (COLUMN_TILES * TILE * select(1u, DEPTH_STRIDE, TURNED) / UNIT); }

// A subgroup's left matrices at depth k, from [row][depth].
fn left_by_rows(first: u32, k: u32) -> array<Left, ROW_TILES> {
    var a: array<Left, ROW_TILES>;
    #unroll
    for (var i = 0u; i < ROW_TILES; i++) {
        a[i] = coopLoadT<Left>(&left[first + (i * TILE * DEPTH_STRIDE + k) / UNIT], DEPTH_STRIDE / UNIT);
    }
    return a;
}

// The same from [depth][row].
fn left_by_depth(first: u32, k: u32) -> array<Left, ROW_TILES> {
    var a: array<Left, ROW_TILES>;
    #unroll
    for (var i = 0u; i < ROW_TILES; i++) {
        a[i] = coopLoad<Left>(&left[first + (k * ROW_STRIDE + i * TILE) / UNIT], ROW_STRIDE / UNIT);
    }
    return a;
}

// A subgroup's right matrix of number j at depth k.
fn right_matrix(first: u32, k: u32, j: u32) -> Right {
    if TURNED { return coopLoad<Right>(&right[first + (j * TILE * DEPTH_STRIDE + k) / UNIT], DEPTH_STRIDE / UNIT); }
    return coopLoadT<Right>(&right[first + (k * COLUMN_STRIDE + j * TILE) / UNIT], COLUMN_STRIDE / UNIT);
}

// Adds the products of `a` with what lies in `right` at depth k.
fn multiply(sums: ptr<function, array<array<Sum, COLUMN_TILES>, ROW_TILES>>, a: array<Left, ROW_TILES>, first: u32, k: u32) {
    #unroll
    for (var j = 0u; j < COLUMN_TILES; j++) {
        let b = right_matrix(first, k, j);
        #unroll
        for (var i = 0u; i < ROW_TILES; i++) {
            (*sums)[i][j] = coopMultiplyAdd(a[i], b, (*sums)[i][j]);
        }
    }
}

// Brings a matrix of the subgroup to where its invocations, and no others, can read it with `staged`.
fn put_stage(sum: Sum, subgroup: u32) {
    subgroupBarrier();
    coopStoreT(sum, &stage[subgroup * TILE * STAGED_STRIDE / STAGE_UNIT], STAGED_STRIDE / STAGE_UNIT);
    subgroupBarrier();
}

// vec4 `quad` of row `row` of the staged matrix of a subgroup.
fn staged(subgroup: u32, row: u32, quad: u32) -> vec4<f32> {
    return staged_at((subgroup * TILE + row) * STAGED_STRIDE + quad * 4u);
}

// Added to results: 0, or what is not a number where a subgroup has not LANES invocations, as a driver may choose for some kernels and not for others. Then a
// step fails instead of learning from wrong numbers.
fn poison(lanes: u32) -> f32 { return bitcast<f32>(select(0u, 0x7fc00000u, lanes != LANES)); }
