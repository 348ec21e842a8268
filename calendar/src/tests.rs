//! What is due, beside a scan of every minute of a year, and the cases that are known to go wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, TimeZone, Timelike, Utc};
use proptest::prelude::*;
use proptest::sample::subsequence;

use crate::{Calendar, SHORTEST, TimingError, Zone};

const ZONES: [&str; 7] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    // The clock goes from 23:00 to 24:00 there, so that a gap ends on another day.
    "America/Nuuk",
    "UTC",
];

fn zone(name: &str) -> Zone {
    Zone::new(name).unwrap()
}

fn cron(expression: &str, name: &str) -> Calendar {
    Calendar::cron(expression, &zone(name)).unwrap()
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// What is due after an instant, on the clock on the wall with its offset.
fn shown(calendar: &Calendar, name: &str, after: &str, count: usize) -> Vec<String> {
    let zone = zone(name);
    let shown = |at: DateTime<Utc>| {
        let offset = zone.wall(at) - at.naive_utc();
        format!("{}{:+}", zone.wall(at).format("%m-%d %H:%M"), offset.num_minutes())
    };
    calendar.after(at(after)).take(count).map(shown).collect()
}

#[test]
fn a_fixed_time_in_a_gap_is_due_once_right_after_it() {
    let calendar = cron("30 2 * * *", "Europe/Berlin");
    let due = shown(&calendar, "Europe/Berlin", "2027-03-27T00:00:00Z", 3);
    assert_eq!(due, ["03-27 02:30+60", "03-28 03:00+120", "03-29 02:30+120"]);
    // Several of them in one gap are due once together, also with the one at its end.
    let calendar = cron("0,30 2-3 * * *", "America/New_York");
    let due = shown(&calendar, "America/New_York", "2027-03-14T06:00:00Z", 3);
    assert_eq!(due, ["03-14 03:00-240", "03-14 03:30-240", "03-15 02:00-240"]);
    // A gap that ends on the next day belongs to the day on which it began.
    let calendar = cron("30 23 * * 6", "America/Nuuk");
    let due = shown(&calendar, "America/Nuuk", "2027-03-22T00:00:00Z", 2);
    assert_eq!(due, ["03-28 00:00-60", "04-03 23:30-60"]);
    let half_an_hour = cron("15 2 * * *", "Australia/Lord_Howe");
    let due = shown(&half_an_hour, "Australia/Lord_Howe", "2027-10-02T00:00:00Z", 2);
    assert_eq!(due, ["10-03 02:30+660", "10-04 02:15+660"]);
}

#[test]
fn a_fixed_time_in_an_overlap_is_due_the_first_time_only() {
    let calendar = cron("30 2 * * *", "Europe/Berlin");
    let due = shown(&calendar, "Europe/Berlin", "2027-10-30T12:00:00Z", 2);
    assert_eq!(due, ["10-31 02:30+120", "11-01 02:30+60"]);
    // From within the second pass, too.
    for after in ["2027-10-31T01:00:00Z", "2027-10-31T01:15:00Z", "2027-10-31T01:30:00Z"] {
        assert_eq!(shown(&calendar, "Europe/Berlin", after, 1), ["11-01 02:30+60"], "{after}");
    }
    let calendar = cron("0 3 * * *", "Europe/Berlin");
    assert_eq!(shown(&calendar, "Europe/Berlin", "2027-10-31T01:30:00Z", 1), ["10-31 03:00+60"]);
    let calendar = cron("45 1 * * *", "Australia/Lord_Howe");
    let due = shown(&calendar, "Australia/Lord_Howe", "2027-04-03T00:00:00Z", 2);
    assert_eq!(due, ["04-04 01:45+660", "04-05 01:45+630"]);
}

#[test]
fn an_interval_goes_by_elapsed_time() {
    let calendar = cron("*/30 * * * *", "Europe/Berlin");
    let due = shown(&calendar, "Europe/Berlin", "2027-03-28T00:20:00Z", 3);
    assert_eq!(due, ["03-28 01:30+60", "03-28 03:00+120", "03-28 03:30+120"]);
    let due = shown(&calendar, "Europe/Berlin", "2027-10-31T00:10:00Z", 5);
    assert_eq!(
        due,
        ["10-31 02:30+120", "10-31 02:00+60", "10-31 02:30+60", "10-31 03:00+60", "10-31 03:30+60"]
    );
    // Nothing is made up for: an interval within an hour that is skipped has no time that day.
    let calendar = cron("*/30 2 * * *", "Europe/Berlin");
    assert_eq!(
        shown(&calendar, "Europe/Berlin", "2027-03-27T12:00:00Z", 2),
        ["03-29 02:00+120", "03-29 02:30+120"]
    );
    let hourly = cron("@hourly", "Europe/Berlin");
    assert_eq!(hourly, cron("@HOURLY", "Europe/Berlin"));
    assert_eq!(
        shown(&hourly, "Europe/Berlin", "2027-10-30T23:30:00Z", 3),
        ["10-31 02:00+120", "10-31 02:00+60", "10-31 03:00+60"]
    );
}

#[test]
fn words_names_and_the_letters_of_days_are_read() {
    let utc = |expression: &str, after: &str| shown(&cron(expression, "UTC"), "UTC", after, 3);
    assert_eq!(utc("@daily", "2027-01-01T00:00:00Z"), ["01-02 00:00+0", "01-03 00:00+0", "01-04 00:00+0"]);
    assert_eq!(utc("@midnight", "2027-01-01T00:00:00Z"), utc("@daily", "2027-01-01T00:00:00Z"));
    assert_eq!(utc("@weekly", "2027-01-01T00:00:00Z"), ["01-03 00:00+0", "01-10 00:00+0", "01-17 00:00+0"]);
    assert_eq!(utc("@monthly", "2027-01-01T00:00:00Z"), ["02-01 00:00+0", "03-01 00:00+0", "04-01 00:00+0"]);
    assert_eq!(utc("@yearly", "2027-01-01T00:00:00Z")[0], "01-01 00:00+0");
    assert_eq!(
        utc("0 9 * jan,MAR mon-Wed", "2027-01-25T10:00:00Z"),
        ["01-26 09:00+0", "01-27 09:00+0", "03-01 09:00+0"]
    );
    assert_eq!(utc("0 0 L * *", "2028-01-31T12:00:00Z"), ["02-29 00:00+0", "03-31 00:00+0", "04-30 00:00+0"]);
    // The 15th of May 2027 is a Saturday, the 15th of August a Sunday.
    assert_eq!(
        utc("0 0 15W 5,8 *", "2027-05-01T00:00:00Z"),
        ["05-14 00:00+0", "08-16 00:00+0", "05-15 00:00+0"]
    );
    assert_eq!(
        utc("0 0 * * FRI#2", "2027-01-01T00:00:00Z"),
        ["01-08 00:00+0", "02-12 00:00+0", "03-12 00:00+0"]
    );
    assert_eq!(utc("0 0 * * 5L", "2027-01-01T00:00:00Z")[0], "01-29 00:00+0");
    assert_eq!(utc("0 0 ? * 7", "2027-01-01T00:00:00Z")[0], "01-03 00:00+0");
    // Either day will do, or both must be right.
    assert_eq!(utc("0 0 13 * 5", "2027-08-01T00:00:00Z")[..2], ["08-06 00:00+0", "08-13 00:00+0"]);
    assert_eq!(utc("0 0 13 * +5", "2027-08-01T00:00:00Z")[0], "08-13 00:00+0");
    let seconds: Vec<_> = cron("*/20 * * * * *", "UTC").after(at("2027-01-01T00:00:30.5Z")).take(3).collect();
    let expected = ["2027-01-01T00:00:40Z", "2027-01-01T00:01:00Z", "2027-01-01T00:01:20Z"].map(at);
    assert_eq!(seconds, expected);
}

#[test]
fn leap_days_come_when_there_are_any() {
    let years = |expression: &str| -> Vec<i32> {
        let calendar = cron(expression, "Europe/Berlin");
        calendar.after(at("2094-01-01T00:00:00Z")).take(3).map(|at| at.year()).collect()
    };
    // 2100 has none.
    assert_eq!(years("0 12 29 2 *"), [2096, 2104, 2108]);
    let mondays = cron("0 12 29 2 +1", "UTC").after(at("2027-01-01T00:00:00Z")).next().unwrap();
    assert_eq!(mondays, at("2044-02-29T12:00:00Z"));
}

#[test]
fn what_never_matches_or_too_often_is_refused() {
    let refused = |expression: &str| Calendar::cron(expression, &zone("Europe/Berlin")).unwrap_err();
    for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 31W 2 *", "0 0 30 2 +1"] {
        assert_eq!(refused(never), TimingError::Never, "{never}");
    }
    let often = |seconds| TimingError::TooOften(Duration::from_secs(seconds));
    assert_eq!(refused("* * * * * *"), often(1));
    assert_eq!(refused("*/7 * * * * *"), often(4));
    assert_eq!(refused("0,9 0 0 1 1 *"), often(9));
    assert_eq!(refused("0,55 * * * * *"), often(5));
    assert_eq!(refused("0,55 0,59 0,23 * * *"), often(5));
    // Nothing comes in the minute after.
    assert!(Calendar::cron("0,55 */2 * * * *", &Zone::utc()).is_ok());
    assert!(Calendar::cron("0,55 0,59 0,2 * * *", &Zone::utc()).is_ok());
    assert!(Calendar::cron("*/10 * * * * *", &Zone::utc()).is_ok());
    for wrong in [
        "",
        " ",
        "*",
        "* * * *",
        "* * * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "a * * * *",
        "@reboot",
        "@never",
        "@daily 5",
        "0 0 1 1 * 2030",
        "0 0 * * MON-",
        "-1 * * * *",
        "99999999999999999999 * * * *",
        "0 0 1 1 ☃",
    ] {
        assert!(matches!(refused(wrong), TimingError::Syntax(_)), "{wrong:?}: {:?}", refused(wrong));
    }
    assert_eq!(refused(&"1,".repeat(200)), TimingError::TooLong);
}

#[test]
fn names_of_zones_are_those_of_the_database() {
    assert_eq!(zone("europe/berlin").name(), "Europe/Berlin");
    assert_eq!((zone("UTC").name(), Zone::utc().name()), ("UTC", "UTC"));
    for wrong in [
        "",
        "Europe",
        "Europe/Bonn",
        "/etc/localtime",
        "../../etc/passwd",
        "CET-1CEST",
        "\0",
        &"a".repeat(99),
    ] {
        assert!(matches!(Zone::new(wrong), Err(TimingError::Zone(_))), "{wrong:?}");
    }
}

#[test]
fn a_length_of_time_goes_on_from_its_anchor() {
    let anchor = at("2027-03-28T00:59:50Z");
    let calendar = Calendar::every(Duration::from_secs(15 * 60), anchor).unwrap();
    let due: Vec<_> = calendar.after(at("2020-01-01T00:00:00Z")).take(2).collect();
    assert_eq!(due, [at("2027-03-28T01:14:50Z"), at("2027-03-28T01:29:50Z")]);
    // However late somebody asks.
    assert_eq!(calendar.next(at("2030-01-01T00:00:00Z")), Some(at("2030-01-01T00:14:50Z")));
    assert_eq!(calendar.next(at("2030-01-01T00:14:50Z")), Some(at("2030-01-01T00:29:50Z")));
    for (length, error) in [
        (Duration::from_secs(9), TimingError::TooOften(Duration::from_secs(9))),
        (Duration::from_millis(10_500), TimingError::Fraction),
        (Duration::from_secs(367 * 24 * 3600), TimingError::TooRare),
        (Duration::MAX, TimingError::Fraction),
    ] {
        assert_eq!(Calendar::every(length, anchor).unwrap_err(), error);
    }
}

#[test]
fn once_is_once_and_a_wall_clock_time_is_an_instant() {
    let berlin = zone("Europe/Berlin");
    let time = |text: &str| Calendar::time(text, &berlin);
    assert_eq!(time("2027-06-01T12:00:00").unwrap(), at("2027-06-01T10:00:00Z"));
    assert_eq!(time("2027-06-01 12:00").unwrap(), at("2027-06-01T10:00:00Z"));
    assert_eq!(time("2027-06-01T12:00:00.9-04:00").unwrap(), at("2027-06-01T16:00:00Z"));
    assert_eq!(time("2027-03-28T02:30:00").unwrap(), at("2027-03-28T01:00:00Z"), "right after the gap");
    assert_eq!(time("2027-10-31T02:30:00").unwrap(), at("2027-10-31T00:30:00Z"), "the first time");
    for wrong in ["", "now", "2027-02-30T00:00:00", "12:00", "2027-06-01", &"2".repeat(99)] {
        assert_eq!(time(wrong), Err(TimingError::Time), "{wrong}");
    }
    let calendar = Calendar::once(at("2027-06-01T10:00:00Z"));
    assert_eq!(calendar.next(at("2027-06-01T09:59:59.5Z")), Some(at("2027-06-01T10:00:00Z")));
    assert_eq!(calendar.next(at("2027-06-01T10:00:00Z")), None);
}

/// What a field of a rule says, and what it means.
#[derive(Debug, Clone)]
struct Field {
    text: String,
    values: BTreeSet<u32>,
}

impl Field {
    fn all(range: std::ops::RangeInclusive<u32>) -> Self {
        Self { text: "*".to_owned(), values: range.collect() }
    }

    fn list(values: Vec<u32>) -> Self {
        let text = values.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        Self { text, values: values.into_iter().collect() }
    }

    fn step(step: u32, end: u32) -> Self {
        Self { text: format!("*/{step}"), values: (0..=end).step_by(step as usize).collect() }
    }

    fn is_star(&self) -> bool {
        self.text.starts_with('*')
    }
}

fn some_of(range: std::ops::RangeInclusive<u32>, most: usize) -> impl Strategy<Value = Field> {
    subsequence(range.collect::<Vec<u32>>(), 1..=most).prop_map(Field::list)
}

fn all_or_some(range: std::ops::RangeInclusive<u32>, most: usize) -> impl Strategy<Value = Field> {
    prop_oneof![2 => Just(Field::all(range.clone())), 1 => some_of(range, most)]
}

/// A rule of five fields that is due at most four times an hour.
fn rule() -> impl Strategy<Value = [Field; 5]> {
    // Half of the hours are those at which clocks are set.
    let hours = prop_oneof![
        2 => some_of(0..=23, 4),
        2 => some_of(0..=3, 4),
        1 => Just(Field::all(0..=23)),
        1 => (2..12u32).prop_map(|step| Field::step(step, 23)),
    ];
    let minutes =
        prop_oneof![3 => some_of(0..=59, 3), 1 => (15..40u32).prop_map(|step| Field::step(step, 59))];
    (minutes, hours, all_or_some(1..=31, 9), all_or_some(1..=12, 6), all_or_some(0..=6, 3))
        .prop_map(|(minutes, hours, days, months, weekdays)| [minutes, hours, days, months, weekdays])
}

/// Every minute of a year, one after the other, and what the clock on the wall shows then.
fn scan(zone: &Zone, [minutes, hours, days, months, weekdays]: &[Field; 5], year: i32) -> Vec<DateTime<Utc>> {
    let begin = Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).unwrap();
    let end = Utc.with_ymd_and_hms(year + 1, 1, 1, 0, 0, 0).unwrap();
    let day_is_right = |date: NaiveDate| {
        let by_day = days.values.contains(&date.day());
        let by_weekday = weekdays.values.contains(&date.weekday().num_days_from_sunday());
        let right = match (days.is_star(), weekdays.is_star()) {
            (false, false) => by_day || by_weekday,
            _ => by_day && by_weekday,
        };
        right && months.values.contains(&date.month())
    };
    let first = begin.date_naive() - TimeDelta::days(2);
    let right_days: Vec<bool> = first.iter_days().take(371).map(day_is_right).collect();
    let first = first.and_hms_opt(0, 0, 0).unwrap().and_utc().timestamp() / 60;
    let is_due = |wall: i64| {
        let (day, minute) = ((wall - first) / 1440, ((wall - first) % 1440) as u32);
        right_days[day as usize]
            && hours.values.contains(&(minute / 60))
            && minutes.values.contains(&(minute % 60))
    };
    let is_interval = minutes.is_star() || hours.is_star();
    let wall = |minute: i64| minute + zone.offset(minute * 60) / 60;
    let mut due = Vec::new();
    let begin = begin.timestamp() / 60;
    let mut shown_until = wall(begin - 1);
    // Offsets are asked for once an hour at most: clocks are set at whole and half hours.
    let mut offset = 0;
    for minute in begin..end.timestamp() / 60 {
        if minute % 30 == 0 {
            offset = wall(minute) - minute;
        }
        let shown = minute + offset;
        let is_now = if is_interval {
            is_due(shown)
        } else {
            // All that the clock has gone past since the minute before, and nothing that it has shown already.
            (shown_until + 1..=shown).any(&is_due)
        };
        shown_until = shown_until.max(shown);
        if is_now {
            due.push(DateTime::from_timestamp(minute * 60, 0).unwrap());
        }
    }
    due
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_due_is_what_a_scan_of_every_minute_finds(
        rule in rule(),
        name in prop::sample::select(&ZONES[..]),
        year in 2025..2032i32,
    ) {
        let zone = zone(name);
        let expression = rule.each_ref().map(|field| field.text.as_str()).join(" ");
        let begin = Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).unwrap();
        let expected = scan(&zone, &rule, year);
        let found: Vec<_> = match Calendar::cron(&expression, &zone) {
            Ok(calendar) => calendar
                .after(begin - TimeDelta::seconds(1))
                .take_while(|at| at.year() == year)
                .collect(),
            Err(TimingError::Never) => Vec::new(),
            Err(error) => panic!("{expression}: {error}"),
        };
        prop_assert_eq!(found, expected, "{} in {}", expression, name);
    }

    #[test]
    fn from_wherever_one_asks_the_answer_is_the_first_of_those_that_follow(
        rule in rule(),
        name in prop::sample::select(&ZONES[..]),
        offsets in prop::collection::vec(0..366 * 24 * 3600i64, 20),
    ) {
        let expression = rule.each_ref().map(|field| field.text.as_str()).join(" ");
        let Ok(calendar) = Calendar::cron(&expression, &zone(name)) else { return Ok(()) };
        let begin = Utc.with_ymd_and_hms(2027, 1, 1, 0, 0, 0).unwrap();
        let all: Vec<_> = calendar.after(begin).take_while(|at| at.year() <= 2028).collect();
        for offset in offsets {
            let after = begin + TimeDelta::seconds(offset);
            let expected = all.iter().find(|at| **at > after).copied();
            let found = calendar.next(after).filter(|at| at.year() <= 2028);
            prop_assert_eq!(found, expected, "{} in {} after {}", expression, name, after);
        }
    }

    #[test]
    fn any_text_is_a_rule_or_an_error_and_what_is_due_only_ever_comes_later(
        text in "[0-9*/,#LW?+ A-Z@-]{0,40}|\\PC{0,40}",
        name in prop::sample::select(&ZONES[..]),
        after in 0..4_000_000_000i64,
    ) {
        if let Ok(calendar) = Calendar::cron(&text, &zone(name)) {
            let mut last = DateTime::from_timestamp(after, 0).unwrap();
            for at in calendar.after(last).take(5) {
                prop_assert!(at > last && at.nanosecond() == 0);
                last = at;
            }
        }
    }

    #[test]
    fn no_rule_of_seconds_is_due_more_often_than_is_allowed(
        seconds in prop::collection::btree_set(0..60u32, 1..5),
        minutes in prop::collection::btree_set(0..60u32, 1..4),
        hours in prop::collection::btree_set(0..24u32, 1..4),
    ) {
        let list = |values: &BTreeSet<u32>| values.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let expression = format!("{} {} {} * * *", list(&seconds), list(&minutes), list(&hours));
        let times: Vec<u32> = hours
            .iter()
            .flat_map(|hour| minutes.iter().map(move |minute| hour * 60 + minute))
            .flat_map(|minute| seconds.iter().map(move |second| minute * 60 + second))
            .collect();
        let around = times[0] + 24 * 3600 - times[times.len() - 1];
        let closest = times.windows(2).map(|pair| pair[1] - pair[0]).chain([around]).min().unwrap();
        let is_allowed = u64::from(closest) >= SHORTEST.as_secs();
        prop_assert_eq!(Calendar::cron(&expression, &Zone::utc()).is_ok(), is_allowed, "{}", expression);
    }
}
