//! Dates in playlists: ISO 8601 with milliseconds, in UTC (RFC 8216bis §4.4.4.6).

use core::fmt;

const DAY_MS: u64 = 86_400_000;
/// Days from 1 March of year 0 to 1 January 1970.
const EPOCH_DAYS: u64 = 719_468;
/// Days in 400 years.
const ERA_DAYS: u64 = 146_097;
/// The last millisecond of the year 9999, the last that has four digits.
const DATE_MS_MAX: u64 = 253_402_300_799_999;

/// Writes milliseconds since 1970, at most those of the year 9999.
pub(super) fn write(date_ms: u64, out: &mut impl fmt::Write) -> fmt::Result {
    let date_ms = date_ms.min(DATE_MS_MAX);
    let (year, month, day) = civil(date_ms / DAY_MS);
    let rest_ms = date_ms % DAY_MS;
    let (hour, minute) = (rest_ms / 3_600_000, rest_ms / 60_000 % 60);
    let (second, milli) = (rest_ms / 1000 % 60, rest_ms % 1000);
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Year, month and day of a day since 1970. Years are counted from March, so that the leap day is
/// the last one.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH_DAYS;
    let era = days / ERA_DAYS;
    let day_of_era = days % ERA_DAYS;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    #[test]
    fn dates_are_right_around_leap_days_and_never_too_long() {
        for (date_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_795_219_200_123, "2026-11-21T00:00:00.123Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            let mut out = String::new();
            write(date_ms, &mut out).unwrap();
            assert_eq!(out, text);
        }
    }
}
