//! `strftime_now` of chat templates. UTC: a prompt does not depend on where the server stands.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::ErrorKind;

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const SECS_PER_DAY: u64 = 86_400;

/// The time now in Python's format codes.
pub(crate) fn strftime_now(format: &str) -> Result<String, minijinja::Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    strftime(now, format)
}

fn strftime(unix_secs: u64, format: &str) -> Result<String, minijinja::Error> {
    let days = unix_secs / SECS_PER_DAY;
    let of_day = unix_secs % SECS_PER_DAY;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let hour_of_12 = (hour + 11) % 12 + 1;
    let (year, month, day) = civil_from_days(days);
    let day_of_year = days - days_before_year(year) + 1;
    let weekday = WEEKDAYS[((days + 4) % 7) as usize]; // 1 January 1970 was a Thursday
    let month_name = MONTHS[month as usize - 1];

    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut code = chars.next().unwrap_or('%');
        let unpadded = code == '-';
        if unpadded {
            code = chars.next().unwrap_or('%');
        }
        let number = |value: u64, width: usize| {
            if unpadded { value.to_string() } else { format!("{value:0width$}") }
        };
        out.push_str(&match code {
            'Y' => year.to_string(),
            'y' => number(year % 100, 2),
            'm' => number(month, 2),
            'd' => number(day, 2),
            'e' => format!("{day:2}"),
            'j' => number(day_of_year, 3),
            'H' => number(hour, 2),
            'I' => number(hour_of_12, 2),
            'M' => number(minute, 2),
            'S' => number(second, 2),
            'p' => if hour < 12 { "AM" } else { "PM" }.into(),
            'B' => month_name.into(),
            'b' | 'h' => month_name[..3].into(),
            'A' => weekday.into(),
            'a' => weekday[..3].into(),
            'F' => format!("{year}-{month:02}-{day:02}"),
            'D' => format!("{month:02}/{day:02}/{:02}", year % 100),
            'T' => format!("{hour:02}:{minute:02}:{second:02}"),
            'R' => format!("{hour:02}:{minute:02}"),
            'Z' => "UTC".into(),
            'z' => "+0000".into(),
            's' => unix_secs.to_string(),
            '%' => "%".into(),
            other => {
                let problem = format!("strftime_now does not know the code %{other}");
                return Err(minijinja::Error::new(ErrorKind::InvalidOperation, problem));
            }
        });
    }
    Ok(out)
}

fn days_before_year(year: u64) -> u64 {
    let leap_years = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leap_years(year - 1) - leap_years(1969)
}

/// Year, month and day of a day counted from 1 January 1970.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let mut year = 1970 + days / 366;
    while days_before_year(year + 1) <= days {
        year += 1;
    }
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let lengths = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut day = days - days_before_year(year);
    let mut month = 1;
    for length in lengths {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(strftime(secs, all).unwrap(), expected);
        }
    }

    #[test]
    fn an_unknown_code_is_an_error_that_names_it() {
        assert!(strftime(0, "%Q").unwrap_err().to_string().contains("%Q"));
    }
}
