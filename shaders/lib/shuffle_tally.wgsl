// The tally of all invocations of a subgroup of `lanes` that noted the same column: those of the same number modulo `columns`, a power of two. They began with the
// same value, so that their sums can be added; some may have noted nothing, and never begun. The order is that of a tree.
fn shuffle_tally(lanes: u32, columns: u32) -> Tally {
    for (var mask = columns; mask < lanes; mask <<= 1u) {
        sums.count += subgroupShuffleXor(sums.count, mask);
        sums.first += subgroupShuffleXor(sums.first, mask);
        sums.second += subgroupShuffleXor(sums.second, mask);
    }
    let all = tally();
    // Those that do not begin with the next column either have none of this one in it.
    sums = Tally();
    return all;
}
