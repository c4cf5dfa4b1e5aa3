//! `strftime_now` of chat templates. UTC: a prompt does not depend on where the server stands.

use jiff::{Timestamp, Zoned, fmt::strtime, tz::TimeZone};
use minijinja::ErrorKind;

/// The time now in Python's format codes.
pub(crate) fn strftime_now(format: &str) -> Result<String, minijinja::Error> {
    strftime(&Timestamp::now().to_zoned(TimeZone::UTC), format)
}

fn strftime(time: &Zoned, format: &str) -> Result<String, minijinja::Error> {
    strtime::format(format, time).map_err(|error| {
        let problem = format!("strftime_now cannot write \"{format}\": {error}");
        minijinja::Error::new(ErrorKind::InvalidOperation, problem)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Zoned {
        Timestamp::from_second(secs).expect("a moment").to_zoned(TimeZone::UTC)
    }

    // Expected values: Python's datetime.fromtimestamp(secs, UTC).strftime(...).
    #[test]
    fn times_are_written_as_python_writes_them() {
        let all = "%Y-%m-%d %H:%M:%S %j %a %A %b %B %y %I %p %-d %%";
        let cases = [
            (0, "1970-01-01 00:00:00 001 Thu Thursday Jan January 70 12 AM 1 %"),
            (1_709_210_096, "2024-02-29 12:34:56 060 Thu Thursday Feb February 24 12 PM 29 %"),
            (1_735_689_599, "2024-12-31 23:59:59 366 Tue Tuesday Dec December 24 11 PM 31 %"),
            (4_107_542_400, "2100-03-01 00:00:00 060 Mon Monday Mar March 00 12 AM 1 %"),
        ];
        for (secs, expected) in cases {
            assert_eq!(strftime(&at(secs), all).unwrap(), expected);
        }
    }

    #[test]
    fn an_unknown_code_is_an_error_that_names_it() {
        assert!(strftime(&at(0), "%J").unwrap_err().to_string().contains("%J"));
    }
}
