//! Counts what went missing, came twice or came late among numbered messages of one kind.
//!
//! ```text
//!  number = expected        in order
//!  number > expected        the ones between are missing, for now
//!  number < expected        among the last 64: missing until now → out of order, else → twice
//!                           older: out of order, and it stays counted as missing
//! ```
//!
//! The first number of a publisher's run is the start, whatever it is: a player joins in the
//! middle. A new tag is a new run. Bounded: 64 bits of memory, no allocation.

/// What has been seen of one kind of messages of one stream by one player.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    run: Option<Run>,
    /// Marked messages received.
    pub(crate) received: u64,
    /// Numbers never seen.
    pub(crate) lost: u64,
    /// Numbers seen more than once.
    pub(crate) duplicated: u64,
    /// Numbers seen after a later one.
    pub(crate) reordered: u64,
}

#[derive(Clone, Debug)]
struct Run {
    tag: u32,
    expected: u32,
    /// Bit i: whether `expected - 1 - i` was seen.
    seen: u64,
}

impl Account {
    /// A message with this run and number is here. True when it brings something new.
    pub(crate) fn on_message(&mut self, tag: u32, sequence: u32) -> bool {
        self.received += 1;
        let Some(run) = self.run.as_mut().filter(|run| run.tag == tag) else {
            // What came before the start was never asked for: it is not missing.
            self.run = Some(Run { tag, expected: sequence.wrapping_add(1), seen: u64::MAX });
            return true;
        };
        let ahead = sequence.wrapping_sub(run.expected);
        if ahead < 1 << 31 {
            self.lost += u64::from(ahead);
            run.seen = run.seen.checked_shl(ahead.saturating_add(1)).unwrap_or(0) | 1;
            run.expected = sequence.wrapping_add(1);
            return true;
        }
        let back = run.expected.wrapping_sub(sequence) - 1;
        let bit = 1u64.checked_shl(back).unwrap_or(0);
        if run.seen & bit != 0 {
            self.duplicated += 1;
            return false;
        }
        if bit != 0 {
            run.seen |= bit;
            self.lost -= 1;
        }
        self.reordered += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (received, lost, duplicated, reordered)
    fn account(numbers: &[u32]) -> (u64, u64, u64, u64) {
        let mut account = Account::default();
        for &number in numbers {
            account.on_message(1, number);
        }
        (account.received, account.lost, account.duplicated, account.reordered)
    }

    #[test]
    fn numbers_in_order_are_all_there() {
        assert_eq!(account(&[7, 8, 9, 10]), (4, 0, 0, 0));
        assert_eq!(account(&[u32::MAX - 1, u32::MAX, 0, 1]), (4, 0, 0, 0));
    }

    #[test]
    fn a_gap_is_lost_until_it_is_filled() {
        assert_eq!(account(&[1, 2, 5]), (3, 2, 0, 0));
        assert_eq!(account(&[1, 2, 5, 4]), (4, 1, 0, 1));
        assert_eq!(account(&[1, 2, 5, 4, 3, 6]), (6, 0, 0, 2));
    }

    #[test]
    fn what_comes_twice_is_counted_once_as_such() {
        assert_eq!(account(&[1, 2, 2, 3, 1]), (5, 0, 2, 0));
        assert_eq!(account(&[1, 3, 2, 2]), (4, 0, 1, 1));
    }

    #[test]
    fn what_was_before_the_start_is_neither_lost_nor_new() {
        assert_eq!(account(&[10, 9]), (2, 0, 1, 0));
    }

    #[test]
    fn a_gap_wider_than_the_window_stays_lost() {
        assert_eq!(account(&[0, 100]), (2, 99, 0, 0));
        assert_eq!(account(&[0, 100, 1]), (3, 99, 0, 1));
    }

    #[test]
    fn another_run_starts_anew() {
        let mut account = Account::default();
        for (tag, number) in [(1, 5), (1, 6), (2, 0), (2, 1)] {
            assert!(account.on_message(tag, number));
        }
        assert_eq!((account.lost, account.duplicated, account.reordered), (0, 0, 0));
    }
}
