//! What the data path costs without the kernel: chunk reader and writer, AMF, handshake, ring, join,
//! fan-out over simulated sockets. Elapsed time.

mod shared;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    let bounded = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    shared::run(&mut bounded.configure_from_args(), true);
}
