//! How the command speaks to people: numbers with separators, ages instead of timestamps, colours only on a terminal.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// Headings and names.
pub(crate) const STRONG: Style = Style::new().bold();
/// What is as it should be.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// What needs somebody.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What waits.
pub(crate) const WAITS: Style = AnsiColor::Yellow.on_default();
/// What is only by the way.
pub(crate) const QUIET: Style = Style::new().dimmed();

/// `text` in a style; the output stream drops it where nobody sees colours.
pub(crate) fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Writes to standard output, without colours unless it is a terminal and `NO_COLOR` is unset. A reader that went away, as
/// `head` does, has seen enough.
///
/// # Errors
/// Standard output cannot be written, for example because the disk is full.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes one line of JSON to standard output.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_json(value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}

/// `1204` as `1,204`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A stretch of time, in its two largest units: `3 h 12 min`.
pub(crate) fn duration(millis: i64) -> String {
    let seconds = millis.max(0) / 1000;
    match seconds {
        0 => format!("{} ms", millis.max(0)),
        1..60 => format!("{seconds} s"),
        60..3_600 => pair(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => pair(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => pair(seconds / 86_400, if seconds < 2 * 86_400 { "day" } else { "days" }, seconds % 86_400 / 3_600, "h"),
    }
}

fn pair(large: i64, large_unit: &str, small: i64, small_unit: &str) -> String {
    let large = thousands(large.unsigned_abs());
    match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    }
}

/// How long ago a moment (milliseconds since 1970) was, or how far ahead it lies.
pub(crate) fn age(moment: i64, now: i64) -> String {
    match now - moment {
        ahead if ahead < 0 => format!("in {}", duration(-ahead)),
        0..1000 => "just now".to_owned(),
        past => format!("{} ago", duration(past)),
    }
}

/// An id in short, for people: what a command takes too.
pub(crate) fn short(id: &str) -> String {
    match id.char_indices().nth(13) {
        Some((end, _)) if id.chars().count() > 16 => format!("{}…", &id[..end]),
        _ => id.to_owned(),
    }
}

/// Now, in milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the command runs in real time")]
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators() {
        let all = [0, 999, 1_000, 13_376, 1_000_000].map(thousands);
        assert_eq!(all, ["0", "999", "1,000", "13,376", "1,000,000"]);
    }

    #[test]
    fn ages_use_two_units() {
        let all = [-5, 40, 59_999, 60_000, 61_000, 11_520_000, 90_000_000, 864_000_000].map(duration);
        assert_eq!(all, ["0 ms", "40 ms", "59 s", "1 min", "1 min 1 s", "3 h 12 min", "1 day 1 h", "10 days"]);
        assert_eq!([age(0, 5_000), age(5_000, 0), age(0, 3)], ["5 s ago", "in 5 s", "just now"]);
    }
}
