// What an invocation notes of the values it writes to a column quad: either (count, mean, sum of squared deviations), or two sums.
struct Tally { count: f32, first: vec4<f32>, second: vec4<f32> }

// What it has added up so far, of which `tally` makes that.
var<private> sums: Tally;
