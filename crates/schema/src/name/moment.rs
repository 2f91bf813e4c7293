//! Computes the capture start from the conversions of a name.
//!
//! PURE. [`general`] handles every conversion, with jiff. [`plain`] handles only dates and times in digits, as in the default
//! template, at a tenth of the cost: a month of one camera is 260,000 names.

use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::Offset;

/// The result of [`plain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// ns since the Unix epoch; every conversion prints it as it was read.
    At(u64),
    /// There is no such time, or two conversions contradict each other.
    Never,
    /// [`plain`] cannot decide: use [`general`].
    Unusual,
}

/// Fields of a date and time in digits.
#[derive(Clone, Copy, Debug, Default)]
struct Fields {
    year: Option<i16>,
    month: Option<i8>,
    day: Option<i8>,
    hour: Option<i8>,
    minute: Option<i8>,
    second: Option<i8>,
    nanosecond: Option<i32>,
}

fn number(digits: &str) -> Option<i32> {
    // `parse` also accepts a sign.
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())?
}

/// Sets a field. Returns `Some(false)` if it already has another value, `None` if `digits` holds anything but digits or is too
/// large.
fn set<T: TryFrom<i32> + PartialEq + Copy>(slot: &mut Option<T>, digits: &str, factor: i32) -> Option<bool> {
    let value = T::try_from(number(digits)? * factor).ok()?;
    Some(*slot.get_or_insert(value) == value)
}

impl Fields {
    /// Records the text that a conversion printed. Returns `None` if [`plain`] cannot decide this conversion.
    fn note(&mut self, conversion: &str, text: &str) -> Option<bool> {
        match conversion {
            "%Y" => set(&mut self.year, text, 1),
            "%m" => set(&mut self.month, text, 1),
            "%d" => set(&mut self.day, text, 1),
            "%H" => set(&mut self.hour, text, 1),
            "%M" => set(&mut self.minute, text, 1),
            "%S" => set(&mut self.second, text, 1),
            // Two fractions of different precision may differ in digits and still be of one time.
            "%3f" | "%6f" | "%9f" if self.nanosecond.is_some() => None,
            "%3f" => set(&mut self.nanosecond, text, 1_000_000),
            "%6f" => set(&mut self.nanosecond, text, 1000),
            "%9f" => set(&mut self.nanosecond, text, 1),
            _ => None,
        }
    }

    fn moment(self) -> Option<Moment> {
        // Other years do not fit into u64 as ns since 1970, or are printed differently.
        const YEARS: std::ops::Range<i16> = 1970..2550;
        let year = self.year.filter(|year| YEARS.contains(year))?;
        let (month, day) = (self.month?, self.day?);
        let (hour, minute, second) = (self.hour?, self.minute?, self.second?);
        let civil = DateTime::new(year, month, day, hour, minute, second, self.nanosecond.unwrap_or(0));
        let timestamp = civil.and_then(|civil| Offset::UTC.to_timestamp(civil));
        let ns = timestamp
            .ok()
            .and_then(|timestamp| u64::try_from(timestamp.as_nanosecond()).ok());
        Some(ns.map_or(Moment::Never, Moment::At))
    }
}

/// Returns the capture start for dates and times in digits, as in the default template.
pub(super) fn plain(times: &[(&str, &str)]) -> Moment {
    let mut fields = Fields::default();
    let mut agrees = true;
    for (conversion, text) in times {
        match fields.note(conversion, text) {
            Some(same) => agrees &= same,
            None => return Moment::Unusual,
        }
    }
    match fields.moment() {
        Some(_) if !agrees => Moment::Never,
        Some(moment) => moment,
        None => Moment::Unusual,
    }
}

/// Returns the capture start; `Some(None)` if the conversions do not determine date and time, `None` if they contradict each
/// other or there is no such day.
pub(super) fn general(times: &[(&str, &str)]) -> Option<Option<u64>> {
    let (mut format, mut input) = (String::new(), String::new());
    for (conversion, printed) in times {
        // The separator keeps neighbours such as %H%M apart; no conversion prints it.
        format.push_str(conversion);
        input.push_str(printed);
        format.push('|');
        input.push('|');
    }
    if times.is_empty() {
        return Some(None);
    }
    let mut time = BrokenDownTime::parse(&format, &input).ok()?;
    time.set_offset(Some(Offset::UTC));
    match time.to_timestamp() {
        Ok(timestamp) => {
            // Seconds since the epoch (%s) next to a fraction would drop the fraction.
            let hidden = if timestamp.subsec_nanosecond() == 0 {
                time.subsec_nanosecond()
            } else {
                None
            };
            let ns = timestamp.as_nanosecond() + i128::from(hidden.unwrap_or(0));
            Some(u64::try_from(ns).ok())
        }
        Err(_) => {
            let has_day = time.day_of_year().is_some() || (time.month().is_some() && time.day().is_some());
            (time.year().is_none() || !has_day).then_some(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULT: [&str; 10] = ["%Y", "%m", "%d", "%Y", "%m", "%d", "%H", "%M", "%S", "%3f"];

    /// What jiff makes of it, where every conversion prints what was read.
    fn by_jiff(times: &[(&str, &str)]) -> Option<u64> {
        let start = general(times)??;
        let printed = |conversion: &str| crate::time::strftime(conversion, start).unwrap();
        times
            .iter()
            .all(|(conversion, text)| printed(conversion) == *text)
            .then_some(start)
    }

    proptest! {
        #[test]
        fn times_in_digits_are_what_jiff_makes_of_them(
            ns in 0u64..18_000_000_000_000_000_000,
            changed in proptest::option::of((0usize..10, "[0-9]{4}")),
        ) {
            let printed = |conversion: &&str| crate::time::strftime(conversion, ns).unwrap();
            let mut texts: Vec<String> = DEFAULT.iter().map(printed).collect();
            if let Some((at, digits)) = changed {
                let len = texts[at].len();
                texts[at] = digits[..len].to_owned();
            }
            let times: Vec<(&str, &str)> = DEFAULT.into_iter().zip(texts.iter().map(String::as_str)).collect();
            match plain(&times) {
                Moment::At(start) => prop_assert_eq!(Some(start), by_jiff(&times)),
                Moment::Never => prop_assert_eq!(None, by_jiff(&times)),
                // Years beyond what is decided here.
                Moment::Unusual => prop_assert!(!("1970".."2550").contains(&texts[3].as_str()) || !("1970".."2550").contains(&texts[0].as_str())),
            }
        }
    }

    #[test]
    fn what_is_no_date_and_time_in_digits_is_left_to_jiff() {
        assert_eq!(plain(&[]), Moment::Unusual);
        for times in [
            &[("%s", "1795329912")][..],
            &[("%Y", "2026"), ("%j", "326")],
            &[("%H", "06"), ("%M", "45")],
            &[
                ("%Y", "1969"),
                ("%m", "12"),
                ("%d", "31"),
                ("%H", "00"),
                ("%M", "00"),
                ("%S", "00"),
            ],
        ] {
            assert_eq!(plain(times), Moment::Unusual, "{times:?}");
        }
        let leap = [
            ("%Y", "2026"),
            ("%m", "02"),
            ("%d", "29"),
            ("%H", "00"),
            ("%M", "00"),
            ("%S", "00"),
        ];
        assert_eq!(plain(&leap), Moment::Never);
        let second = [
            ("%Y", "2016"),
            ("%m", "12"),
            ("%d", "31"),
            ("%H", "23"),
            ("%M", "59"),
            ("%S", "60"),
        ];
        assert_eq!(plain(&second), Moment::Never, "a leap second is printed as 59");
    }
}
