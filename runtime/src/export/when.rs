//! Moments as people write them and as files hold them: RFC 3339, or a duration back from now.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;

const DAY_SECS: u64 = 24 * 3600;

/// A moment that an option names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When(pub SystemTime);

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = duration(text).and_then(|back| SystemTime::now().checked_sub(back));
        found.or_else(|| moment(text)).map(Self).ok_or_else(|| {
            format!(
                "`{text}` is neither like 2026-11-23T08:30:00Z nor like 45s, 30m, 2h or 7d (back from now)"
            )
        })
    }
}

fn duration(text: &str) -> Option<Duration> {
    let unit = match text.chars().next_back()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => DAY_SECS,
        _ => return None,
    };
    let count: u64 = text[..text.len() - 1].parse().ok()?;
    count.checked_mul(unit).map(Duration::from_secs)
}

fn moment(text: &str) -> Option<SystemTime> {
    let moment: Timestamp = text.parse().ok()?;
    (moment >= Timestamp::UNIX_EPOCH).then(|| moment.into())
}

/// `2026-11-23T08:30:00.250Z`
pub fn rfc3339(time: SystemTime) -> String {
    let moment = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    // A fraction is cut, not rounded: a moment is never written as a later one.
    let millis = Timestamp::from_millisecond(moment.as_millisecond()).unwrap_or(moment);
    format!("{millis:.3}")
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const DAYS_OF_400_YEARS: u64 = 146_097;

    fn unix_secs(text: &str) -> Option<u64> {
        Some(text.parse::<When>().ok()?.0.duration_since(UNIX_EPOCH).ok()?.as_secs())
    }

    #[test]
    fn a_moment_names_its_offset() {
        assert_eq!(unix_secs("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix_secs("2026-11-23T08:30:00Z"), Some(1_795_422_600));
        assert_eq!(unix_secs("2026-11-23T09:30:00.5+01:00"), Some(1_795_422_600));
        for wrong in ["2026-11-23T08:30:00", "2026-11-23", "2026-02-30T00:00:00Z", "1969-12-31T23:59:59Z"] {
            assert_eq!(unix_secs(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_duration_counts_back_from_now() {
        for (text, secs) in [("45s", 45), ("30m", 1800), ("2h", 7200), ("7d", 604_800)] {
            assert_eq!(duration(text), Some(Duration::from_secs(secs)), "{text}");
        }
        assert!("2h".parse::<When>().unwrap().0 < SystemTime::now());
        for wrong in ["2", "h", "-2h", "2w", "", "2.5h", "99999999999999999999d", "9999999999999999d", "2ü"]
        {
            assert!(wrong.parse::<When>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_is_written_and_read_alike() {
        for days in (0..DAYS_OF_400_YEARS).step_by(13).chain([11_016, 11_017, 47_540, 47_541]) {
            let time = UNIX_EPOCH + Duration::from_secs(days * DAY_SECS + 86_399);
            assert_eq!(moment(&rfc3339(time)), Some(time), "{}", rfc3339(time));
        }
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(951_782_400_250)), "2000-02-29T00:00:00.250Z");
    }
}
