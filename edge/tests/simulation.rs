//! The real workers in a simulated world: one seed decides the network's faults, the peers' habits,
//! the media and everything that happens, and every promise of the server is a rule that is checked.
//!
//! | rule | where |
//! |---|---|
//! | 1 what a player hears is whole, in order, once; the reference reader agrees | `judge`, `link` |
//! | 2 metadata and sequence headers before media, a keyframe after each gap | `judge` |
//! | 3 a stalled player delays nobody | `world::check_delay` |
//! | 4 everything comes home after all have left | `server::check_all_home` |
//! | 5 the worker's own invariants after each turn | `Worker::check_invariants` |
//! | 6 late completions of closed connections are swallowed | `Io` counts them; any effect breaks 1 or 5 |
//! | 7 without faults every player reaches the head | `world::check_heads` |
//! | 8 counters balance, timestamps neither jump nor run back, grace is kept | `server`, `judge`, `world` |
//!
//! `RINGCAST_SIM_SEED=n` runs one seed, `RINGCAST_SIM_SEEDS=n` that many from
//! `RINGCAST_SIM_FIRST` on; `RINGCAST_SIM_LOG=1` shows the workers' log lines and the whole story.
#![allow(missing_docs, unreachable_pub, reason = "a test has no callers")]

#[path = "simulation/mod.rs"]
mod simulation;

use std::panic::{AssertUnwindSafe, catch_unwind};

use simulation::viewer::Sabotage;
use simulation::world::World;
use uring::Nanos;
use uring::sim::Faults;

/// Seeds of an ordinary run.
const SEEDS: u64 = 16;
/// Seeds that found something, run first. A change of what a seed draws makes its finding another
/// run's: then the finding needs a unit test, and the seed goes.
const REGRESSION_SEEDS: &[u64] = &[];

struct Outcome {
    hash: u64,
    heard: u64,
    skips: u64,
    stale: u64,
    takeovers: u64,
    /// What went wrong, with the end of the story.
    failure: Option<String>,
}

fn run(seed: u64, sabotage: Sabotage) -> Outcome {
    if std::env::var_os("RINGCAST_SIM_LOG").is_some() {
        // The second call of a process finds one installed, which is as good.
        let _ = tracing_subscriber::fmt().without_time().with_writer(std::io::stderr).try_init();
    }
    let mut world = World::new(seed, sabotage);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let failure = match result {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Some(format!("panic: {}", text.unwrap_or("without words")))
        }
    };
    let failure = failure.map(|error| {
        let text = world.trace.text();
        let now_ms = world.now_ms();
        format!(
            "{text}{now_ms:>8} ms  {error}\n\nreplay: RINGCAST_SIM_SEED={seed} \
             cargo test -p edge --test simulation -- --nocapture seeds"
        )
    });
    let outcome = Outcome {
        hash: world.trace.hash(),
        heard: world.heard,
        skips: world.server.skips(),
        stale: world.server.stale_completions(),
        takeovers: world.server.takeovers(),
        failure,
    };
    if outcome.failure.is_some() {
        // A world that broke its own rules may not come apart in order either.
        std::mem::forget(world);
    }
    outcome
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is to be a number")))
}

fn seeds() -> Vec<u64> {
    if let Some(seed) = number("RINGCAST_SIM_SEED") {
        return vec![seed];
    }
    let first = number("RINGCAST_SIM_FIRST").unwrap_or(1);
    let count = number("RINGCAST_SIM_SEEDS").unwrap_or(SEEDS);
    REGRESSION_SEEDS.iter().copied().chain(first..first + count).collect()
}

#[test]
fn no_seed_breaks_a_rule() {
    let seeds = seeds();
    let is_hunt = number("RINGCAST_SIM_SEEDS").is_some();
    let mut failures = Vec::new();
    let (mut heard, mut skips, mut stale, mut takeovers) = (0, 0, 0, 0);
    for &seed in &seeds {
        let outcome = run(seed, Sabotage::None);
        heard += outcome.heard;
        skips += outcome.skips;
        stale += outcome.stale;
        takeovers += outcome.takeovers;
        let Some(failure) = outcome.failure else { continue };
        eprintln!("seed {seed}\n{failure}\n");
        assert!(is_hunt, "seed {seed} broke a rule:\n{failure}");
        failures.push(seed);
    }
    assert!(
        failures.is_empty(),
        "{} of {} seeds failed: {failures:?}",
        failures.len(),
        seeds.len()
    );
    if seeds.len() > 8 {
        assert!(heard > 1_000, "players heard something: {heard}");
        assert!(skips > 0, "somebody was slow enough to skip");
        assert!(stale > 0, "a completion came after its connection was closed");
        assert!(takeovers > 0, "a stream changed hands");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1..=2 {
        let (first, second) = (run(seed, Sabotage::None), run(seed, Sabotage::None));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.heard, second.heard, "seed {seed}");
    }
}

/// The last bytes of a stream may be on their way for long; who comes back meanwhile publishes another.
#[test]
fn nothing_follows_the_end_of_a_stream_over_http_when_its_publisher_returns_at_once() {
    for seed in 1..=6 {
        let mut world = World::new(seed, Sabotage::None);
        let faults = Faults {
            late_completion_permille: 1_000,
            delay_max: Nanos::from_millis(500),
            ..Faults::none()
        };
        world.net.set_faults(faults);
        world.publish(0);
        let pass = |world: &mut World, for_ms: u64| {
            let until_ms = world.now_ms() + for_ms;
            world.live_until(until_ms).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        };
        pass(&mut world, 1_000);
        for _ in 0..8 {
            world.join_as(0, true);
        }
        pass(&mut world, 4_000);
        world.end_publisher(0);
        pass(&mut world, 20);
        world.publish(0);
        pass(&mut world, 3_000);
    }
}

#[test]
fn a_planted_bug_is_found() {
    let planted = [
        (Sabotage::Corrupt, "is not what was published"),
        (Sabotage::Repeat, "repeated or out of order"),
        (Sabotage::Lose, "lost for a player that kept up"),
        (Sabotage::LoseHeaders, "needs the sequence header"),
        (Sabotage::Tear, "HTTP cannot be read"),
        (Sabotage::HideEnd, "its stream was cut off"),
    ];
    for (sabotage, finding) in planted {
        let found = (1..=16).any(|seed| {
            run(seed, sabotage).failure.is_some_and(|failure| failure.contains(finding))
        });
        assert!(found, "{sabotage:?} goes unnoticed");
    }
}
