// Undoes grid_fold: the number of this workgroup, whatever the shape of the grid.
fn workgroup_index(id: vec3<u32>, count: vec3<u32>) -> u32 {
    return id.x + count.x * (id.y + count.y * id.z);
}
