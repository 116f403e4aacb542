// Tallies of the INVOCATIONS of a workgroup, of which those of the same number modulo `columns` noted the same column: both powers of two.
// Next to nothing where nothing is noted.
const SLOTS: u32 = select(1u, INVOCATIONS, TALLIES);
var<workgroup> tallies: array<Tally, SLOTS>;

// The merged tally of a column, in invocation `local` < `columns`. The order is that of a tree. All invocations must call.
fn share_tally(local: u32, columns: u32) -> Tally {
    workgroupBarrier();
    var all = tally();
    tallies[local] = all;
    for (var others = INVOCATIONS / 2u; others >= columns; others >>= 1u) {
        workgroupBarrier();
        if local < others {
            all = merged(all, tallies[local + others]);
            tallies[local] = all;
        }
    }
    return all;
}
