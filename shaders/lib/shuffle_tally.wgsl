// The merged tally of the invocations of a subgroup of `lanes` that noted the same column: those of the same number modulo `columns`, a power of
// two. The order is that of a tree.
fn shuffle_tally(lanes: u32, columns: u32) -> Tally {
    var all = tally();
    for (var mask = columns; mask < lanes; mask <<= 1u) {
        let other = Tally(subgroupShuffleXor(all.count, mask), subgroupShuffleXor(all.first, mask), subgroupShuffleXor(all.second, mask));
        all = merged(all, other);
    }
    return all;
}
