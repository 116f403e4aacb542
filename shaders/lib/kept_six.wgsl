// Six numbers that an invocation kept in a row.
fn kept_six(lane: u32, first: u32) -> Six {
    return Six(
        kept_at(lane, first), kept_at(lane, first + 1u), kept_at(lane, first + 2u),
        kept_at(lane, first + 3u), kept_at(lane, first + 4u), kept_at(lane, first + 5u),
    );
}
