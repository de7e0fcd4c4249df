//! The civil calendar in UTC, for any number of seconds an `i64` holds.
//!
//! Leap seconds do not exist here, as they do not in Unix time. Years are proleptic Gregorian.

/// A date and a time of day in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// The year; 0 is 1 BC.
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 59.
    pub second: u32,
    /// 0 is Sunday.
    pub weekday: u32,
    /// 1 to 366.
    pub day_of_year: u32,
}

const SECONDS_PER_DAY: i64 = 86_400;
/// The calendar repeats every 400 years.
const DAYS_PER_ERA: i64 = 146_097;
/// From 0000-03-01, where an era begins, to the epoch.
const DAYS_TO_EPOCH: i64 = 719_468;

impl Civil {
    /// The date and time `seconds` after the epoch.
    pub fn from_unix_seconds(seconds: i64) -> Self {
        let days = seconds.div_euclid(SECONDS_PER_DAY);
        let in_day = seconds.rem_euclid(SECONDS_PER_DAY);

        // Years are counted from March, so that the leap day is a year's last day.
        let shifted = days + DAYS_TO_EPOCH;
        let era = shifted.div_euclid(DAYS_PER_ERA);
        let day_of_era = shifted.rem_euclid(DAYS_PER_ERA);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_from_march + 2) / 153;
        let day = day_from_march - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);

        let leap = i64::from(is_leap_year(year));
        let day_of_year = if month <= 2 { day_from_march - 305 } else { day_from_march + 60 + leap };
        let small = |n: i64| u32::try_from(n).unwrap_or(0);
        Self {
            year,
            month: small(month),
            day: small(day),
            hour: small(in_day / 3_600),
            minute: small(in_day / 60 % 60),
            second: small(in_day % 60),
            weekday: small((days + 4).rem_euclid(7)),
            day_of_year: small(day_of_year),
        }
    }

    /// How many days the month has.
    pub fn days_in_month(&self) -> u32 {
        match self.month {
            2 if is_leap_year(self.year) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            // All other months.
            _ => 31,
        }
    }
}

fn is_leap_year(year: i64) -> bool {
    year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seconds: i64, date: (i64, u32, u32), time: (u32, u32, u32), weekday: u32, day_of_year: u32) {
        let civil = Civil::from_unix_seconds(seconds);
        assert_eq!((civil.year, civil.month, civil.day), date, "{seconds}");
        assert_eq!((civil.hour, civil.minute, civil.second), time, "{seconds}");
        assert_eq!((civil.weekday, civil.day_of_year), (weekday, day_of_year), "{seconds}");
    }

    #[test]
    fn known_dates_come_out() {
        check(0, (1970, 1, 1), (0, 0, 0), 4, 1);
        check(-1, (1969, 12, 31), (23, 59, 59), 3, 365);
        check(951_782_400, (2000, 2, 29), (0, 0, 0), 2, 60);
        check(951_868_800, (2000, 3, 1), (0, 0, 0), 3, 61);
        check(978_307_199, (2000, 12, 31), (23, 59, 59), 0, 366);
        check(1_136_239_445, (2006, 1, 2), (22, 4, 5), 1, 2);
        check(-2_203_891_200, (1900, 3, 1), (0, 0, 0), 4, 60);
        check(-62_135_596_800, (1, 1, 1), (0, 0, 0), 1, 1);
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = Civil::from_unix_seconds(-86_400 * 800_000);
        for day in -799_999..400_000 {
            let civil = Civil::from_unix_seconds(86_400 * day);
            let next = if before.day < before.days_in_month() {
                (before.year, before.month, before.day + 1, before.day_of_year + 1)
            } else if before.month < 12 {
                (before.year, before.month + 1, 1, before.day_of_year + 1)
            } else {
                (before.year + 1, 1, 1, 1)
            };
            assert_eq!((civil.year, civil.month, civil.day, civil.day_of_year), next);
            assert_eq!(civil.weekday, (before.weekday + 1) % 7);
            before = civil;
        }
    }

    #[test]
    fn the_ends_of_time_have_a_date() {
        for seconds in [i64::MIN, i64::MAX] {
            let civil = Civil::from_unix_seconds(seconds);
            assert!((1..=12).contains(&civil.month) && (1..=31).contains(&civil.day));
        }
    }
}
