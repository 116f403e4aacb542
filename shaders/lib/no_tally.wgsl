// Where nothing is noted of what is written.
#import tally

const TALLIES: bool = false;

fn begin(column: u32, value: vec4<f32>) {}

fn tally() -> Tally { return Tally(); }

fn merged(a: Tally, b: Tally) -> Tally { return a; }

fn write_tally(row: u32, chunk: u32, column: u32, t: Tally) {}
