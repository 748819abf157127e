//! What reports calculate: shares, medians, changes, spans of time. Integers throughout, so that
//! everybody gets the same digits.

use super::period::SECOND_NANOS;

/// A share in percent with one decimal, half up: `12.5`. Empty when there is no whole.
pub(super) fn percent(part: u64, whole: u64) -> String {
    tenths(part, whole).map_or_else(String::new, |tenths| decimal(&tenths.to_string()))
}

/// A share in whole percent, half up, as transparency reports publish it. Empty when there is no
/// whole.
pub(super) fn whole_percent(part: u64, whole: u64) -> String {
    let (part, whole) = (u128::from(part), u128::from(whole));
    let rounded = (part * 200 + whole).checked_div(whole * 2);
    rounded.map_or_else(String::new, |percent| percent.to_string())
}

/// How much more `now` is than `before`, in percent with one decimal: `-50.0`. Empty when there was
/// nothing before, for then there is no percentage.
pub(super) fn change(now: u64, before: u64) -> String {
    let Some(tenths) = tenths(now.abs_diff(before), before) else {
        return String::new();
    };
    let sign = if now < before && tenths > 0 { "-" } else { "" };
    format!("{sign}{}", decimal(&tenths.to_string()))
}

/// The middle of the values; of an even number of them the mean of the two in the middle, rounded
/// down. `None` of none.
pub(super) fn median(values: &mut [u64]) -> Option<u64> {
    values.sort_unstable();
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = values.get(middle.checked_sub(1)?)?;
    Some(lower.midpoint(upper))
}

/// A span of time in hours, minutes and seconds: `26:03:09`, which spreadsheets read.
pub(super) fn span(nanos: u64) -> String {
    let seconds = nanos / SECOND_NANOS;
    format!("{}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// Tenths of a percent, half up.
fn tenths(part: u64, whole: u64) -> Option<u128> {
    let (part, whole) = (u128::from(part), u128::from(whole));
    (part * 2_000 + whole).checked_div(whole * 2)
}

/// Puts the point before the last digit.
fn decimal(tenths: &str) -> String {
    let padded = format!("{tenths:0>2}");
    let (whole, tenth) = padded.split_at(padded.len().saturating_sub(1));
    format!("{whole}.{tenth}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_rounded_half_up_and_empty_without_a_whole() {
        assert_eq!(percent(1, 3), "33.3");
        assert_eq!(percent(2, 3), "66.7");
        assert_eq!(percent(1, 2_000), "0.1");
        assert_eq!(percent(1, 2_001), "0.0");
        assert_eq!(percent(7, 7), "100.0");
        assert_eq!(percent(u64::MAX, u64::MAX), "100.0");
        assert_eq!(percent(0, 0), "");
        assert_eq!(whole_percent(68, 79), "86");
        assert_eq!(whole_percent(1, 200), "1");
        assert_eq!(whole_percent(0, 0), "");
    }

    #[test]
    fn changes_have_a_sign_and_need_something_before() {
        assert_eq!(change(150, 100), "50.0");
        assert_eq!(change(50, 100), "-50.0");
        assert_eq!(change(0, 3), "-100.0");
        assert_eq!(change(3, 3), "0.0");
        assert_eq!(change(99_999, 100_000), "0.0");
        assert_eq!(change(3, 0), "");
    }

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_two() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [9]), Some(9));
        assert_eq!(median(&mut [9, 1, 5]), Some(5));
        assert_eq!(median(&mut [u64::MAX, u64::MAX]), Some(u64::MAX));
        assert_eq!(median(&mut [4, 1, 2, 9]), Some(3));
    }

    #[test]
    fn spans_may_exceed_a_day() {
        assert_eq!(span(0), "0:00:00");
        assert_eq!(span(93_789 * SECOND_NANOS), "26:03:09");
    }
}
