//! The instruction counter itself: it counts, the same twice, and more where there is more to do.

use std::process::Command;

/// Instructions per unit of the cases whose name contains `only`; `None` without valgrind.
fn count(only: &str) -> Option<f64> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_instructions")).args(["--only", only]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    if let Some(reason) = text.strip_prefix("skipped: ") {
        println!("skipped: {reason}");
        return None;
    }
    let number = text.split_whitespace().nth(1).expect("NAME COUNT instructions per UNIT");
    Some(number.parse().unwrap())
}

#[test]
fn counts_are_repeatable_and_follow_the_work() {
    let Some(simple) = count("handshake/simple") else { return };
    let Some(again) = count("handshake/simple") else { return };
    let Some(small) = count("amf0/write_result") else { return };
    assert!((simple - again).abs() < simple / 100.0, "{simple} and {again}");
    assert!(small > 0.0 && small < simple, "{small} and {simple}");
}
