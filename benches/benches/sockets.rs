//! What it costs with the kernel: fan-out over loopback, the floor below it, turns of the backends.
//! CPU time of the sending thread.

mod shared;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    let bounded = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    shared::run(&mut bounded.configure_from_args(), false);
}
