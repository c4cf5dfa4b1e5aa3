//! Moments as people write them and as files hold them: RFC 3339, or a duration back from now.

use std::{
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use toml::value::{Datetime, Offset};

const DAY_SECS: i64 = 24 * 3600;

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
        'd' => DAY_SECS as u64,
        _ => return None,
    };
    let count: u64 = text[..text.len() - 1].parse().ok()?;
    count.checked_mul(unit).map(Duration::from_secs)
}

fn moment(text: &str) -> Option<SystemTime> {
    let Datetime { date: Some(date), time: Some(time), offset: Some(offset) } = text.parse().ok()? else {
        return None;
    };
    let minutes_east = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let days = days_since_1970(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let of_day = i64::from(time.hour) * 3600 + i64::from(time.minute) * 60;
    let secs = days * DAY_SECS + of_day - minutes_east * 60 + i64::from(time.second.unwrap_or(0));
    let since = Duration::new(u64::try_from(secs).ok()?, time.nanosecond.unwrap_or(0));
    Some(UNIX_EPOCH + since)
}

/// `2026-11-23T08:30:00.250Z`
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let secs = since.as_secs() as i64;
    let (year, month, day) = date(secs.div_euclid(DAY_SECS));
    let of_day = secs.rem_euclid(DAY_SECS);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// Years of this reckoning begin in March, so that the day that is sometimes missing is their last.
const DAYS_OF_400_YEARS: i64 = 146_097;
/// From 0000-03-01 to 1970-01-01.
const DAYS_TO_1970: i64 = 719_468;

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (cycle, year_of_cycle) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_cycle = year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year;
    cycle * DAYS_OF_400_YEARS + day_of_cycle - DAYS_TO_1970
}

fn date(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_TO_1970;
    let (cycle, day_of_cycle) = (days.div_euclid(DAYS_OF_400_YEARS), days.rem_euclid(DAYS_OF_400_YEARS));
    let leap_days = day_of_cycle / 1460 - day_of_cycle / 36_524 + day_of_cycle / 146_096;
    let year_of_cycle = (day_of_cycle - leap_days) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (cycle * 400 + year_of_cycle + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let time = UNIX_EPOCH + Duration::from_secs((days * DAY_SECS + 86_399) as u64);
            assert_eq!(moment(&rfc3339(time)), Some(time), "{}", rfc3339(time));
        }
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(951_782_400_250)), "2000-02-29T00:00:00.250Z");
    }
}
