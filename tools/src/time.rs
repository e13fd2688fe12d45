//! Times for people and for JSON: RFC 3339 in UTC, always with nine decimal places.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// `realtime_ns`, nanoseconds since 1970, as RFC 3339.
#[must_use]
pub fn rfc3339(realtime_ns: u64) -> String {
    match Timestamp::from_nanosecond(realtime_ns.into()) {
        Ok(time) => format!("{time:.9}"),
        // Not reached: a u64 of nanoseconds ends in the year 2554, a timestamp in 9999.
        Err(_) => format!("{realtime_ns} ns"),
    }
}

/// Reads a time that somebody gives: RFC 3339, or a date, or a date and a time, in UTC.
///
/// # Errors
/// A sentence that says how it should look.
pub fn parse(text: &str) -> Result<u64, String> {
    let civil = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok();
    let time = text.parse::<Timestamp>().ok().or_else(|| civil().map(|time| time.timestamp()));
    let ns = time.and_then(|time| u64::try_from(time.as_nanosecond()).ok());
    ns.ok_or_else(|| {
        format!(
            "`{text}` is no time: write 2026-03-01T12:00:00Z, with an offset, or a date, in UTC"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nanosecond_shows_and_no_time_is_out_of_range() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(1_763_759_789_123_456_789), "2025-11-21T21:16:29.123456789Z");
        assert_eq!(rfc3339(u64::MAX), "2554-07-21T23:34:33.709551615Z");
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        for ns in [0, 1_763_759_789_123_456_789, u64::MAX] {
            assert_eq!(parse(&rfc3339(ns)), Ok(ns));
        }
        let noon = 1_772_366_400_000_000_000;
        for text in ["2026-03-01T12:00:00Z", "2026-03-01T13:00:00+01:00", "2026-03-01 12:00"] {
            assert_eq!(parse(text), Ok(noon), "{text}");
        }
        assert_eq!(parse("2026-03-01"), Ok(noon - 12 * 3_600_000_000_000));
        for text in ["", "yesterday", "2026-13-01", "1969-12-31", "12:00", "1763759789"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
