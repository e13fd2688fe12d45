//! Times for people and for JSON: RFC 3339 in UTC, always with nine decimal places.

use jiff::Timestamp;

/// `realtime_ns`, nanoseconds since 1970, as RFC 3339.
#[must_use]
pub fn rfc3339(realtime_ns: u64) -> String {
    match Timestamp::from_nanosecond(realtime_ns.into()) {
        Ok(time) => format!("{time:.9}"),
        // Not reached: a u64 of nanoseconds ends in the year 2554, a timestamp in 9999.
        Err(_) => format!("{realtime_ns} ns"),
    }
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
}
