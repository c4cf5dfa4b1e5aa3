//! Lengths of time and sizes as people write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `12s`, `4m05s`, `2h03m`, `3d04h`.
pub fn span(secs: f64) -> String {
    // What a broken clock says must not panic.
    let secs = Duration::try_from_secs_f64(secs).unwrap_or_default().as_secs();
    let (minutes, hours, days) = (secs / 60, secs / 3600, secs / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", secs % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// `740 B`, `9.4 MiB`, `61 GiB`.
pub fn size(bytes: u64) -> String {
    let (mut number, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if number < 1024.0 {
            break;
        }
        (number, unit) = (number / 1024.0, larger);
    }
    if unit == "B" || number >= 10.0 { format!("{number:.0} {unit}") } else { format!("{number:.1} {unit}") }
}

/// Seconds since 1970.
pub fn unix_secs(when: SystemTime) -> u64 {
    when.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_show_their_two_largest_units() {
        let told = [0.9, 59.0, 61.0, 3600.0, 7384.0, 100_000.0, -1.0].map(span);
        assert_eq!(told, ["0s", "59s", "1m01s", "1h00m", "2h03m", "1d03h", "0s"]);
    }

    #[test]
    fn sizes_have_two_digits_or_more() {
        let told = [0, 740, 1024, 9_900_000, 65_500_000_000].map(size);
        assert_eq!(told, ["0 B", "740 B", "1.0 KiB", "9.4 MiB", "61 GiB"]);
    }
}
