//! Every case in its small size: what it computes, copies and allocates.
//!
//! A digest that differs means that a case computes something else than before. If that is meant,
//! the new digest, which the failure prints, belongs into the catalogue.

use benches::{Case, Size, catalogue, observe};

const WARM_UP_ITERATIONS: u64 = 2;
const OBSERVED_ITERATIONS: u64 = 3;

/// What is wrong with a case; nothing when it keeps its promises.
fn faults(case: &Case) -> Vec<String> {
    let mut work = match (case.build)(Size::Small) {
        Ok(work) => work,
        Err(reason) => {
            println!("skipped: {}: {reason}", case.name);
            return Vec::new();
        }
    };
    let observed = observe(&mut *work, WARM_UP_ITERATIONS, OBSERVED_ITERATIONS);
    println!("{}: {}", case.name, observed.line(case.unit));
    let sum = observed.outcome;
    let mut faults = Vec::new();
    if sum.units == 0 || sum.bytes == 0 {
        faults.push(format!("{} does nothing", case.name));
    }
    let allocations_max = case.allocations_per_unit_max * sum.units;
    if observed.allocations > allocations_max {
        let found = observed.allocations;
        faults.push(format!("{}: {found} allocations, at most {allocations_max}", case.name));
    }
    if sum.copied_bytes as f64 > case.copies_max * sum.bytes as f64 {
        let (copied, bytes) = (sum.copied_bytes, sum.bytes);
        faults.push(format!("{}: {copied} of {bytes} bytes copied", case.name));
    }
    if sum.digest != case.digest {
        faults
            .push(format!("{}: digest {:#018x}, was {:#018x}", case.name, sum.digest, case.digest));
    }
    faults
}

fn check(is_in_memory: bool) {
    let cases = catalogue().iter().filter(|case| case.is_in_memory() == is_in_memory);
    let faults: Vec<String> = cases.flat_map(faults).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn cases_in_memory_compute_copy_and_allocate_what_they_promise() {
    check(true);
}

#[test]
fn cases_over_sockets_send_copy_and_allocate_what_they_promise() {
    check(false);
}

#[test]
fn the_three_loops_of_the_floor_send_the_same_bytes() {
    let sum = |name: &str| {
        let case = benches::find(name).expect("in the catalogue");
        let mut work = (case.build)(Size::Small).ok()?;
        // A whole GOP, so that all three have sent the same frames wherever they began.
        Some(observe(&mut *work, 0, 6).outcome.bytes)
    };
    let floor = sum("floor_send/window_350");
    for other in ["floor_uring/window_350", "fan_out_sockets/window_350"] {
        match sum(other) {
            Some(bytes) => assert_eq!(Some(bytes), floor, "{other}"),
            None => println!("skipped: {other}"),
        }
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<&str> = catalogue().iter().map(|case| case.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
}
