//! What Ringcast adds to the kernel's price of fan-out: three loops over the same sockets, in turn.
//!
//! `floor_send` and `floor_uring` send ready bytes; `fan_out` does what a worker does. The loops take
//! turns of a few flushes each (A B C A B C …), so that whatever the machine does in between hits
//! all alike; what is shown is the median turn. CPU time of the sending thread.

use std::process::ExitCode;
use std::time::Duration;

use benches::work::floor::{Loop, build};
use benches::{Clock, Size, Skipped, Work};
use clap::Parser;

const EXAMPLES: &str = "\
Examples:
  floor                                      100 and 1000 sockets, all flush policies
  floor --sockets 1000 --turns 101           one size, longer";

/// Compares our fan-out with a bare send loop over loopback.
#[derive(Debug, Parser)]
#[command(name = "floor", after_help = EXAMPLES)]
struct Args {
    /// Numbers of sockets
    #[arg(long, value_delimiter = ',', default_value = "100,1000")]
    sockets: Vec<usize>,
    /// Turns of each loop; the median counts
    #[arg(long, default_value_t = 41)]
    turns: usize,
    /// Flushes in a turn
    #[arg(long, default_value_t = 6)]
    flushes: u32,
}

/// Flush policies by how many frames of 33 ms a flush covers.
const POLICIES: [(&str, u32); 3] = [("frame", 1), ("window 100", 3), ("window 350", 10)];
const LOOPS: [(&str, Loop); 3] =
    [("send(2)", Loop::Send), ("io_uring", Loop::Uring), ("ringcast", Loop::FanOut)];

fn main() -> ExitCode {
    let args = Args::parse();
    println!(
        "| sockets | flush | loop | ns per flush and socket | s/GB | against send(2) | against io_uring |"
    );
    println!("|---|---|---|---|---|---|---|");
    for &sockets in &args.sockets {
        for (policy, frames) in POLICIES {
            if let Err(reason) = compare(&args, sockets, policy, frames) {
                println!("skipped: {sockets} sockets, {policy}: {reason}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn compare(args: &Args, sockets: usize, policy: &str, frames: u32) -> Result<(), Skipped> {
    let mut works = Vec::new();
    for (_, which) in LOOPS {
        works.push((build(which, sockets, frames, Size::Full)?, Vec::new()));
    }
    for _ in 0..args.turns.max(1) {
        for (work, costs) in &mut works {
            costs.push(turn(&mut **work, args.flushes));
        }
    }
    let medians: Vec<Cost> = works.into_iter().map(|(_, costs)| median(costs)).collect();
    for ((name, _), cost) in LOOPS.iter().zip(&medians) {
        println!(
            "| {sockets} | {policy} | {name} | {:.0} | {:.3} | {:.2} | {:.2} |",
            cost.ns_per_flush,
            cost.s_per_gb,
            cost.ns_per_flush / medians[0].ns_per_flush,
            cost.ns_per_flush / medians[1].ns_per_flush,
        );
    }
    Ok(())
}

#[derive(Copy, Clone, Debug)]
struct Cost {
    ns_per_flush: f64,
    s_per_gb: f64,
}

/// One warm flush, then `flushes` measured ones.
fn turn(work: &mut dyn Work, flushes: u32) -> Cost {
    let (mut spent, mut units, mut bytes) = (Duration::ZERO, 0, 0);
    for number in 0..=flushes {
        let begun = Clock::ThreadCpu.now();
        let outcome = work.run();
        let ended = Clock::ThreadCpu.now();
        work.settle();
        if number > 0 {
            spent += ended - begun;
            units += outcome.units;
            bytes += outcome.bytes;
        }
    }
    let ns = spent.as_secs_f64() * 1e9;
    Cost { ns_per_flush: ns / units.max(1) as f64, s_per_gb: ns / bytes.max(1) as f64 }
}

fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by(|a, b| a.ns_per_flush.total_cmp(&b.ns_per_flush));
    costs[costs.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loop_costs_something_and_the_median_is_the_middle() {
        for (name, which) in LOOPS {
            match build(which, 4, 1, Size::Small) {
                Ok(mut work) => assert!(turn(&mut *work, 3).ns_per_flush > 0.0, "{name}"),
                Err(reason) => println!("skipped: {name}: {reason}"),
            }
        }
        let cost = |ns_per_flush| Cost { ns_per_flush, s_per_gb: 0.0 };
        assert_eq!(median(vec![cost(9.0), cost(1.0), cost(2.0)]).ns_per_flush, 2.0);
    }
}
