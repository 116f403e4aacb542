// A number of three digits, the last of which ends at `ends.y` and the one before at `ends.x`, plus another of such digits: without a division, and
// without a branch, which would cost GPUs more than what it saves.
fn count_up(number: vec3<u32>, by: vec3<u32>, ends: vec2<u32>) -> vec3<u32> {
    let last = number.z + by.z;
    let middle = number.y + by.y + u32(last >= ends.y);
    let first = number.x + by.x + u32(middle >= ends.x);
    return vec3(first, select(middle, middle - ends.x, middle >= ends.x), select(last, last - ends.y, last >= ends.y));
}
