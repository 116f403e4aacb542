// A number of three digits, the last of which ends at `ends.y` and the one before at `ends.x`, and what it becomes when `by` is added: without a division.
fn count_up(number: vec3<u32>, by: u32, ends: vec2<u32>) -> vec3<u32> {
    var next = number;
    next.z += by;
    while next.z >= ends.y {
        next.z -= ends.y;
        next.y++;
        if next.y >= ends.x {
            next.y = 0u;
            next.x++;
        }
    }
    return next;
}
