//! Schedules: due times, jitter, blackouts and clocks that jump, against a slow and simple reading of the
//! same rules.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use hookturn_core::id::{KeyringId, ScheduleId, WorkspaceId};
use hookturn_core::proof::ProofPolicy;
use hookturn_core::schedule::{
    Calendar, DateBlackout, Facts, Never, Opening, Schedule, Selector, Timing, Weekday,
    WeeklyBlackout, next_opening, preview,
};
use hookturn_core::time::{DAY, HOUR, MINUTE, SECOND, Timestamp};
use proptest::prelude::*;

const WEEKDAYS: [Weekday; 7] = [
    Weekday::Monday,
    Weekday::Tuesday,
    Weekday::Wednesday,
    Weekday::Thursday,
    Weekday::Friday,
    Weekday::Saturday,
    Weekday::Sunday,
];
/// Clocks that change by an hour, by half an hour, at midnight, twice a year around a month, never.
const ZONES: [&str; 7] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Casablanca",
    "Asia/Kathmandu",
];

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn schedule(timing: Timing, zone: &str) -> Schedule {
    let since = at("2026-01-01T00:00:00Z");
    Schedule {
        id: ScheduleId::from_bytes([1; 16]),
        workspace: WorkspaceId::from_bytes([2; 16]),
        name: "quarterly".to_owned(),
        selector: Selector::Workspace,
        timing,
        zone: zone.parse().unwrap(),
        jitter_seconds: 0,
        weekly_blackouts: Vec::new(),
        date_blackouts: Vec::new(),
        policy: ProofPolicy::default(),
        paused: false,
        seed: 7,
        since,
        version: 1,
        created_at: since,
        updated_at: since,
    }
}

fn monthly(every_months: u8, day_of_month: u8, time: &str) -> Timing {
    Timing::Calendar(Calendar {
        every_months,
        day_of_month,
        time: time.parse().unwrap(),
    })
}

fn facts(active_since: &str) -> Facts {
    Facts {
        keyring: KeyringId::from_bytes([3; 16]),
        active_since: Some(at(active_since)),
        opened_for: None,
    }
}

fn due(schedule: &Schedule, facts: &Facts, now: &str) -> String {
    let opening = next_opening(schedule, facts, at(now)).unwrap();
    opening.due.to_string()
}

#[test]
fn a_secret_is_due_when_it_is_old_enough_and_again_each_time_as_much_later() {
    let schedule = schedule(Timing::Age { days: 90 }, "UTC");
    let mut facts = facts("2026-01-01T00:00:00Z");
    assert_eq!(
        due(&schedule, &facts, "2026-02-01T00:00:00Z"),
        "2026-04-01T00:00:00.000Z"
    );
    assert_eq!(
        due(&schedule, &facts, "2026-04-01T00:00:00Z"),
        "2026-04-01T00:00:00.000Z"
    );
    // Several were missed: the latest counts.
    assert_eq!(
        due(&schedule, &facts, "2026-07-15T00:00:00Z"),
        "2026-06-30T00:00:00.000Z"
    );
    // It was opened and cancelled: not again for the same time, not even when the clock goes back.
    facts.opened_for = Some(at("2026-04-01T00:00:00Z"));
    assert_eq!(
        due(&schedule, &facts, "2026-04-02T00:00:00Z"),
        "2026-06-30T00:00:00.000Z"
    );
    assert_eq!(
        due(&schedule, &facts, "2026-01-02T00:00:00Z"),
        "2026-06-30T00:00:00.000Z"
    );
    // A younger secret starts anew.
    facts.active_since = Some(at("2026-04-05T00:00:00Z"));
    assert_eq!(
        due(&schedule, &facts, "2026-04-06T00:00:00Z"),
        "2026-07-04T00:00:00.000Z"
    );
}

#[test]
fn a_secret_that_was_old_before_its_schedule_was_made_waits_for_its_jitter() {
    let mut schedule = schedule(Timing::Age { days: 30 }, "UTC");
    schedule.jitter_seconds = 3_600;
    let facts = facts("2020-01-01T00:00:00Z");
    let opening = next_opening(&schedule, &facts, schedule.since).unwrap();
    assert!(opening.due <= schedule.since && opening.opens_at > schedule.since);
    assert!(opening.opens_at <= schedule.since.after(HOUR));
}

#[test]
fn the_calendar_knows_short_months_quarters_and_what_was_missed() {
    let facts = facts("2026-01-01T00:00:00Z");
    let month_end = schedule(monthly(1, 31, "04:00"), "UTC");
    assert_eq!(
        due(&month_end, &facts, "2026-02-10T00:00:00Z"),
        "2026-01-31T04:00:00.000Z"
    );
    let done = Facts {
        opened_for: Some(at("2026-01-31T04:00:00Z")),
        ..facts
    };
    assert_eq!(
        due(&month_end, &done, "2026-02-10T00:00:00Z"),
        "2026-02-28T04:00:00.000Z"
    );
    let quarterly = schedule(monthly(3, 1, "00:00"), "UTC");
    assert_eq!(
        due(&quarterly, &facts, "2026-02-10T00:00:00Z"),
        "2026-04-01T00:00:00.000Z"
    );
    assert_eq!(
        due(&quarterly, &facts, "2027-01-20T00:00:00Z"),
        "2027-01-01T00:00:00.000Z"
    );
    // Whoever rotated by hand after the due time has had the rotation.
    let younger = Facts {
        active_since: Some(at("2026-04-02T00:00:00Z")),
        ..facts
    };
    assert_eq!(
        due(&quarterly, &younger, "2026-04-03T00:00:00Z"),
        "2026-07-01T00:00:00.000Z"
    );
    let yearly = schedule(monthly(12, 15, "12:00"), "UTC");
    let later = Facts {
        opened_for: Some(at("2026-01-15T12:00:00Z")),
        ..facts
    };
    assert_eq!(
        due(&yearly, &later, "2026-01-16T00:00:00Z"),
        "2027-01-15T12:00:00.000Z"
    );
}

#[test]
fn a_time_that_the_clocks_skip_or_repeat_comes_once() {
    let facts = facts("2026-01-01T00:00:00Z");
    // 28 March 2027: from 02:00 to 03:00. 31 October 2027: from 03:00 back to 02:00.
    let spring = schedule(monthly(1, 28, "02:30"), "Europe/Berlin");
    assert_eq!(
        due(&spring, &facts, "2027-03-28T05:00:00Z"),
        "2027-03-28T01:30:00.000Z"
    );
    let autumn = schedule(monthly(1, 31, "02:30"), "Europe/Berlin");
    assert_eq!(
        due(&autumn, &facts, "2027-10-31T00:30:00Z"),
        "2027-10-31T00:30:00.000Z"
    );
    let done = Facts {
        opened_for: Some(at("2027-10-31T00:30:00Z")),
        ..facts
    };
    assert_eq!(
        due(&autumn, &done, "2027-10-31T01:30:00Z"),
        "2027-11-30T01:30:00.000Z"
    );
}

#[test]
fn a_blackout_puts_off_to_its_end_also_what_is_late() {
    let mut schedule = schedule(monthly(1, 27, "20:00"), "Europe/Berlin");
    schedule.weekly_blackouts = vec![WeeklyBlackout {
        from_day: Weekday::Friday,
        from_time: "18:00".parse().unwrap(),
        until_day: Weekday::Monday,
        until_time: "06:00".parse().unwrap(),
    }];
    schedule.date_blackouts = vec![DateBlackout {
        from: "2026-03-02".parse().unwrap(),
        until: "2026-03-03".parse().unwrap(),
    }];
    let facts = facts("2026-02-01T00:00:00Z");
    // Friday 27 February, 20:00: past the weekend, past two days, in winter time.
    let opening = next_opening(&schedule, &facts, at("2026-02-20T00:00:00Z")).unwrap();
    assert_eq!(opening.due.to_string(), "2026-02-27T19:00:00.000Z");
    assert_eq!(opening.opens_at.to_string(), "2026-03-03T23:00:00.000Z");
    // The server was down until Saturday 7 March: not before Monday.
    let late = next_opening(&schedule, &facts, at("2026-03-07T12:00:00Z")).unwrap();
    assert_eq!(late.due, opening.due);
    assert_eq!(late.opens_at.to_string(), "2026-03-09T05:00:00.000Z");
}

#[test]
fn what_cannot_work_is_refused_with_its_field() {
    let good = schedule(Timing::Age { days: 90 }, "UTC");
    assert_eq!(good.check(), Ok(()));
    let blackout = |from_day, from: &str, until_day, until: &str| WeeklyBlackout {
        from_day,
        from_time: from.parse().unwrap(),
        until_day,
        until_time: until.parse().unwrap(),
    };
    let halves = vec![
        blackout(Weekday::Monday, "00:00", Weekday::Thursday, "12:00"),
        blackout(Weekday::Thursday, "12:00", Weekday::Monday, "00:00"),
    ];
    let empty = vec![blackout(Weekday::Monday, "01:00", Weekday::Monday, "01:00")];
    let backwards = vec![DateBlackout {
        from: "2026-01-02".parse().unwrap(),
        until: "2026-01-01".parse().unwrap(),
    }];
    let cases = [
        (
            Schedule {
                timing: Timing::Age { days: 0 },
                ..good.clone()
            },
            "/everyDays",
        ),
        (
            Schedule {
                timing: monthly(5, 1, "00:00"),
                ..good.clone()
            },
            "/calendar/everyMonths",
        ),
        (
            Schedule {
                timing: monthly(1, 32, "00:00"),
                ..good.clone()
            },
            "/calendar/dayOfMonth",
        ),
        (
            Schedule {
                jitter_seconds: 604_801,
                ..good.clone()
            },
            "/jitterSeconds",
        ),
        (
            Schedule {
                weekly_blackouts: halves,
                ..good.clone()
            },
            "/weeklyBlackouts",
        ),
        (
            Schedule {
                weekly_blackouts: empty,
                ..good.clone()
            },
            "/weeklyBlackouts/0/untilTime",
        ),
        (
            Schedule {
                date_blackouts: backwards,
                ..good.clone()
            },
            "/dateBlackouts/0/until",
        ),
        (
            Schedule {
                policy: ProofPolicy {
                    quiet_millis: 0,
                    ..good.policy
                },
                ..good.clone()
            },
            "/policy/quietMillis",
        ),
    ];
    for (schedule, field) in cases {
        assert_eq!(schedule.check().unwrap_err().field, field);
    }
    for zone in ["Europe/Atlantis", "", "+02:00", "CEST-ish"] {
        assert!(
            zone.parse::<hookturn_core::schedule::Zone>().is_err(),
            "{zone}"
        );
    }
}

#[test]
fn what_opens_nothing_says_why() {
    let good = schedule(Timing::Age { days: 90 }, "UTC");
    let all_week = [
        (Weekday::Monday, Weekday::Friday),
        (Weekday::Friday, Weekday::Monday),
    ];
    let halves = all_week.map(|(from_day, until_day)| WeeklyBlackout {
        from_day,
        from_time: "12:00".parse().unwrap(),
        until_day,
        until_time: "12:00".parse().unwrap(),
    });
    let never = Schedule {
        weekly_blackouts: halves.to_vec(),
        ..good.clone()
    };
    let facts = facts("2020-01-01T00:00:00Z");
    let now = at("2026-01-05T00:00:00Z");
    assert_eq!(
        next_opening(&never, &facts, now),
        Err(Never::AlwaysBlackedOut)
    );
    let paused = Schedule {
        paused: true,
        ..good.clone()
    };
    assert_eq!(next_opening(&paused, &facts, now), Err(Never::Paused));
    let empty = Facts {
        active_since: None,
        ..facts
    };
    assert_eq!(next_opening(&good, &empty, now), Err(Never::NoActiveSecret));
}

/// Whether a schedule's blackouts hold a time, field by field.
fn is_black(schedule: &Schedule, now: Timestamp) -> bool {
    let zone = schedule.zone.to_string();
    let zone = jiff::tz::TimeZoneDatabase::bundled().get(&zone).unwrap();
    let now = jiff::Timestamp::from_millisecond(now.as_millis()).unwrap();
    let local = now.to_zoned(zone);
    let weekday = usize::from(local.weekday().to_monday_zero_offset().cast_unsigned());
    let time = format!("{:02}:{:02}", local.hour(), local.minute());
    let place = |day: Weekday, time: String| {
        (
            WEEKDAYS.iter().position(|known| *known == day).unwrap(),
            time,
        )
    };
    let moment = (weekday, time);
    let weekly = schedule.weekly_blackouts.iter().any(|black| {
        let from = place(black.from_day, black.from_time.to_string());
        let until = place(black.until_day, black.until_time.to_string());
        if from < until {
            from <= moment && moment < until
        } else {
            from <= moment || moment < until
        }
    });
    let date = local.date().to_string();
    weekly
        || schedule
            .date_blackouts
            .iter()
            .any(|black| black.from.to_string() <= date && date <= black.until.to_string())
}

fn clock_time() -> impl Strategy<Value = String> {
    (0..24u8, 0..60u8).prop_map(|(hour, minute)| format!("{hour:02}:{minute:02}"))
}

prop_compose! {
    fn weekly()(
        from_day in prop::sample::select(&WEEKDAYS[..]),
        from in clock_time(),
        hours in 1..60u64,
    ) -> WeeklyBlackout {
        let day = WEEKDAYS.iter().position(|known| *known == from_day).unwrap();
        let hour = from[..2].parse::<u64>().unwrap() + hours;
        let until_day = WEEKDAYS[(day + usize::try_from(hour / 24).unwrap()) % 7];
        let until = format!("{:02}{}", hour % 24, &from[2..]);
        WeeklyBlackout {
            from_day,
            from_time: from.parse().unwrap(),
            until_day,
            until_time: until.parse().unwrap(),
        }
    }
}

prop_compose! {
    fn dates()(year in 2026..2029i32, month in 1..=12u8, day in 1..=20u8, days in 0..8u8) -> DateBlackout {
        let text = |day: u8| format!("{year}-{month:02}-{day:02}").parse().unwrap();
        DateBlackout { from: text(day), until: text(day + days) }
    }
}

prop_compose! {
    fn any_schedule()(
        timing in prop_oneof![
            (1..200u16).prop_map(|days| Timing::Age { days }),
            (prop::sample::select(&[1u8, 2, 3, 4, 6, 12][..]), 1..=31u8, clock_time())
                .prop_map(|(months, day, time)| monthly(months, day, &time)),
        ],
        zone in prop::sample::select(&ZONES[..]),
        jitter in prop_oneof![Just(0u32), 1..=604_800u32],
        weekly in prop::collection::vec(weekly(), 0..3),
        dates in prop::collection::vec(dates(), 0..3),
        seed in any::<u64>(),
    ) -> Schedule {
        Schedule {
            jitter_seconds: jitter,
            weekly_blackouts: weekly,
            date_blackouts: dates,
            seed,
            ..schedule(timing, zone)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A sweep that looks at any times, on a clock that also jumps back, opens nothing before it is due,
    /// nothing in a blackout, nothing twice for one due time, and nothing later than it has to.
    #[test]
    fn whatever_the_clock_does_each_due_time_is_opened_once_and_well(
        schedule in any_schedule(),
        steps in prop::collection::vec((0..40 * DAY, 0..10u8, any::<bool>()), 1..60),
    ) {
        prop_assume!(schedule.check().is_ok());
        let mut facts = facts("2025-11-11T11:11:11Z");
        let mut now = schedule.since;
        let mut opened: Vec<Opening> = Vec::new();
        for (step, kind, promoted) in steps {
            now = if kind == 0 { now.before(step / 2) } else { now.after(step / u64::from(kind)) };
            let Ok(opening) = next_opening(&schedule, &facts, now) else { continue };
            let start = opening.due.max(schedule.since);
            prop_assert!(opening.opens_at >= start);
            prop_assert!(!is_black(&schedule, opening.opens_at), "{opening:?}");
            if schedule.weekly_blackouts.is_empty() && schedule.date_blackouts.is_empty() {
                let jitter = u64::from(schedule.jitter_seconds) * SECOND;
                prop_assert!(opening.opens_at <= start.after(jitter));
            }
            if now < opening.opens_at {
                continue;
            }
            prop_assert!(opening.due <= now);
            prop_assert!(!is_black(&schedule, now));
            let last = opened.last().map(|last| last.due);
            prop_assert!(last.is_none_or(|last| last < opening.due), "{last:?} {opening:?}");
            opened.push(opening);
            facts.opened_for = Some(opening.due);
            if promoted {
                facts.active_since = Some(now);
            }
        }
    }

    /// The same keyring and due time get the same jitter; other keyrings get others.
    #[test]
    fn jitter_is_drawn_once(schedule in any_schedule(), keyrings in any::<[[u8; 16]; 20]>(), wait in 0..HOUR) {
        let schedule = Schedule { jitter_seconds: 604_800, weekly_blackouts: Vec::new(), date_blackouts: Vec::new(), ..schedule };
        let of = |keyring: [u8; 16], now: Timestamp| {
            let facts = Facts { keyring: KeyringId::from_bytes(keyring), ..facts("2025-12-31T00:00:00Z") };
            next_opening(&schedule, &facts, now).unwrap()
        };
        let now = schedule.since;
        let mut times: Vec<_> = keyrings.iter().map(|keyring| of(*keyring, now)).collect();
        for (keyring, known) in keyrings.iter().zip(&times) {
            let later = of(*keyring, now.after(wait));
            prop_assert!(later.due != known.due || later == *known);
        }
        times.sort_by_key(|opening| opening.opens_at);
        times.dedup();
        prop_assert!(times.len() > 10, "all at once");
    }

    /// A preview is what would happen: each opening as early as the one before allows, none twice.
    #[test]
    fn a_preview_is_in_order(schedule in any_schedule(), wait in 0..400 * DAY) {
        prop_assume!(schedule.check().is_ok());
        let now = schedule.since.after(wait);
        let coming = preview(&schedule, &facts("2025-12-31T00:00:00Z"), now, 5);
        prop_assert_eq!(coming.len(), 5);
        for pair in coming.windows(2) {
            prop_assert!(pair[0].due < pair[1].due && pair[0].opens_at < pair[1].opens_at);
        }
        prop_assert!(coming.iter().all(|opening| !is_black(&schedule, opening.opens_at)));
    }

    /// A stored schedule is read back as it was.
    #[test]
    fn a_schedule_survives_its_document(schedule in any_schedule()) {
        let text = serde_json::to_string(&schedule).unwrap();
        prop_assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
    }
}

#[test]
fn a_blackout_of_a_minute_is_kept_to_the_minute() {
    let mut schedule = schedule(monthly(1, 1, "00:00"), "UTC");
    schedule.date_blackouts = vec![DateBlackout {
        from: "2026-02-01".parse().unwrap(),
        until: "2026-02-01".parse().unwrap(),
    }];
    let end = at("2026-02-02T00:00:00Z");
    assert!(schedule.in_blackout(end.before(1)) && !schedule.in_blackout(end));
    assert!(!schedule.in_blackout(at("2026-02-01T00:00:00Z").before(MINUTE)));
}

#[test]
fn what_waited_for_the_end_of_a_blackout_is_spread_by_the_jitter_and_falls_into_no_other() {
    let mut schedule = schedule(monthly(1, 1, "00:00"), "UTC");
    let nightly =
        |from: Weekday, until: Weekday, from_time: &str, until_time: &str| WeeklyBlackout {
            from_day: from,
            from_time: from_time.parse().unwrap(),
            until_day: until,
            until_time: until_time.parse().unwrap(),
        };
    // 1 February 2026 is a Sunday: free from Monday 06:00 on, for two hours.
    schedule.weekly_blackouts = vec![
        nightly(Weekday::Saturday, Weekday::Monday, "18:00", "06:00"),
        nightly(Weekday::Monday, Weekday::Tuesday, "08:00", "06:00"),
    ];
    let end = at("2026-02-02T06:00:00Z");
    for (jitter_seconds, latest) in [(3_600, HOUR), (5 * 3_600, 2 * HOUR)] {
        schedule.jitter_seconds = jitter_seconds;
        let openings: Vec<Timestamp> = (0..50)
            .map(|number| {
                let facts = Facts {
                    keyring: KeyringId::from_bytes([number; 16]),
                    ..facts("2026-01-15T00:00:00Z")
                };
                let known = next_opening(&schedule, &facts, at("2026-01-20T00:00:00Z")).unwrap();
                // As it was previewed, also when the blackout is over.
                assert_eq!(next_opening(&schedule, &facts, end), Ok(known));
                known.opens_at
            })
            .collect();
        assert!(
            openings
                .iter()
                .all(|opens_at| !is_black(&schedule, *opens_at))
        );
        let within = openings
            .iter()
            .filter(|at| **at >= end && at.since(end) < latest);
        assert_eq!(within.count(), 50, "{openings:?}");
        let first_ten_minutes = openings.iter().filter(|at| at.since(end) < 10 * MINUTE);
        assert!(first_ten_minutes.count() < 25, "{openings:?}");
    }
}
