//! `cargo bench`: the cases of `swav-wgpu bench` under divan, with its statistics; `cargo bench -- matmul` runs those whose name has `matmul` in it.
//! A run is submitted and waited for; what builds it is not on the clock.

use divan::Bencher;
use std::sync::LazyLock;
use swav_wgpu::bench::{BUDGET, cases};
use swav_wgpu::gpu::Gpu;
use swav_wgpu::nn::Recompute;
use swav_wgpu::tune::BestGuess;

static GPU: LazyLock<Gpu> = LazyLock::new(|| Gpu::open(None).unwrap_or_else(|e| panic!("no adapter: {e}")));

fn main() {
    divan::Divan::from_args().max_time(BUDGET).main();
}

fn names() -> Vec<String> {
    cases(None, Recompute::Norm).into_iter().map(|case| case.name).collect()
}

#[divan::bench(args = names())]
fn case(bencher: Bencher<'_, '_>, name: &String) {
    let found = cases(None, Recompute::Norm).into_iter().find(|case| case.name == *name).expect("a case of that name");
    let mut ready = found.prepare(&GPU, &BestGuess).unwrap_or_else(|e| panic!("{name}: {e}"));
    // Drivers compile at the first run.
    ready.run(&GPU).unwrap_or_else(|e| panic!("{name}: {e}"));
    bencher.bench_local(|| ready.run(&GPU).unwrap_or_else(|e| panic!("{name}: {e}")));
}
