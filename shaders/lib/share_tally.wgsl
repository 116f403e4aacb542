// Tallies of the INVOCATIONS of a workgroup, of which those of the same number modulo `columns` noted the same column.
// Next to nothing where nothing is noted.
const SLOTS: u32 = select(1u, INVOCATIONS, TALLIES);
var<workgroup> tallies: array<Tally, SLOTS>;

// The merged tally of a column, in invocation `local` < `columns`. All invocations must call.
fn share_tally(local: u32, columns: u32) -> Tally {
    workgroupBarrier();
    tallies[local] = tally();
    workgroupBarrier();
    var all = tallies[local];
    if local < columns {
        for (var i = local + columns; i < INVOCATIONS; i += columns) {
            all = merged(all, tallies[i]);
        }
    }
    return all;
}
