//! What packaging costs: a measurement, not a judgement. For a quiet machine; the command stands below.

use std::time::Duration;

use super::*;

const STREAMS: usize = 20;
const SECONDS: u64 = 30;

/// CPU time of this thread.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap())
}

fn measure(container: Container, settings: &HlsSettings) -> f64 {
    let mut bench = Bench::new();
    let mut streams: Vec<Stream> = (0..STREAMS)
        .map(|at| {
            let mut stream = Stream::start(&bench, &format!("cam-{at}"), 0);
            // With sound 5 Mbit/s at 25 pictures a second.
            (stream.picture_bytes, stream.gop) = (24_900, 50);
            stream.headers(&bench);
            stream
        })
        .collect();
    for stream in &streams {
        bench.open_as(stream, Some(container), settings);
    }
    let mut spent = Duration::ZERO;
    for _ in 0..SECONDS * 25 {
        for stream in &mut streams {
            stream.frame(&bench);
        }
        let before = cpu();
        bench.wait(40);
        spent += cpu() - before;
    }
    spent.as_secs_f64() / (STREAMS as f64 * SECONDS as f64)
}

#[test]
#[ignore = "a measurement: cargo test --release -p edge --lib packaging_costs -- --ignored --nocapture"]
fn packaging_costs_what_it_prints() {
    let plain = HlsSettings { is_low_latency: false, ..settings() };
    for (what, container, settings) in [
        ("fMP4 with parts", Container::Fmp4, settings()),
        ("fMP4", Container::Fmp4, plain.clone()),
        ("MPEG-TS", Container::Ts, plain),
    ] {
        let share = measure(container, &settings);
        println!("{what}: {:.3} % of one CPU for a stream of 5 Mbit/s", share * 100.0);
    }
}
