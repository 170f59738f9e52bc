//! `cargo bench`: every operation, and the plain copy that it is compared with, by criterion.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use xstate_bench::kernel::Operation;
use xstate_bench::rows;

fn main() {
    // Some 150 measurements: half a second each is precise enough.
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300))
        .configure_from_args();
    let mut cases = match rows::cases() {
        Ok(cases) => cases,
        Err(error) => panic!("{error}"),
    };
    for operation in Operation::ALL {
        let mut group = criterion.benchmark_group(operation.name());
        for case in &mut cases {
            let name = format!("{}/{}", case.layout.name, case.in_use.name());
            group.bench_function(&name, |bencher| {
                assert_ne!(case.scene.run(operation), 0, "{name} failed");
                bencher.iter(|| case.scene.run(operation));
            });
            group.bench_function(BenchmarkId::new(&name, "limit"), |bencher| {
                bencher.iter(|| case.scene.run_limit(operation));
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
