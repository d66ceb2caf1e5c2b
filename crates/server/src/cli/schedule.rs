//! `hookturn schedule`: rules by which rotations are opened.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use hookturn_core::schedule::{Day, TimeOfDay, Zone};
use hookturn_core::time::Clock;
use serde_json::{Map, Value, json};

use super::args::{Id, IfVersion, Paging, Span};
use super::client::Request;
use super::exit::Failure;
use super::input;
use super::output::Column;
use super::plan::{Plan, Planned};

#[derive(Debug, Subcommand)]
pub(super) enum Schedule {
    /// Make a schedule, and see its next five openings.
    ///
    /// It opens rotations of mode proven when they are due. Each waits for its proof as if you had opened
    /// it: nothing is promoted without. The new value is read by `hookturn secret reveal`.
    Create {
        /// For people.
        name: String,
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        fields: Fields,
        /// Open nothing until it is resumed.
        #[arg(long)]
        paused: bool,
    },
    /// List schedules, newest first.
    List(Paging),
    /// Show a schedule: its next five openings, and what it could not open and why.
    Show {
        /// Its id.
        schedule: Id,
    },
    /// Change a schedule. What is not named stays; lists are replaced as a whole.
    Update {
        /// Its id.
        schedule: Id,
        /// For people.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        fields: Fields,
        /// Open nothing any more (true), or again (false).
        #[arg(long)]
        paused: Option<bool>,
        #[command(flatten)]
        version: IfVersion,
    },
    /// Delete a schedule. Rotations that it opened stay as they are.
    Delete {
        /// Its id.
        schedule: Id,
        #[command(flatten)]
        version: IfVersion,
    },
}

/// For which keyrings.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Whose {
    /// For this keyring only; all of the workspace without.
    #[arg(long, value_name = "ID")]
    keyring: Option<Id>,

    /// For the keyrings of this app's endpoints only.
    #[arg(long, value_name = "ID")]
    app: Option<Id>,
}

#[derive(Debug, Args)]
pub(super) struct Fields {
    /// Due when the active secret is so many days old.
    #[arg(long, value_name = "DAYS", conflicts_with = "day_of_month")]
    every_days: Option<u16>,

    /// Due on this day of the month, 1 to 31; the last one of a shorter month.
    #[arg(long, value_name = "DAY", requires = "time")]
    day_of_month: Option<u8>,

    /// With --day-of-month: in every so many months from January on: 1, 2, 3, 4, 6 or 12.
    #[arg(long, value_name = "MONTHS", requires = "day_of_month")]
    every_months: Option<u8>,

    /// With --day-of-month: at this time, such as 03:30.
    #[arg(long, value_name = "HH:MM", requires = "day_of_month")]
    time: Option<TimeOfDay>,

    /// The IANA time zone of days and times, such as Europe/Berlin; UTC without.
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<Zone>,

    /// Put each opening off by up to this span, so that not all happen at once.
    #[arg(long, value_name = "SPAN")]
    jitter: Option<Span>,

    /// Open nothing in this part of every week, such as "fri 18:00-mon 06:00"; may be repeated.
    #[arg(long, value_name = "FROM-UNTIL")]
    weekly_blackout: Vec<Weekly>,

    /// Open nothing on these days, the last included, such as 2026-12-20..2027-01-02; may be repeated.
    #[arg(long, value_name = "FROM..UNTIL")]
    date_blackout: Vec<Dates>,

    /// A JSON file with the fields of the rotations' policy, `-` for standard input; the defaults for
    /// what it leaves out.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

impl Fields {
    fn put_into(self, body: &mut Map<String, Value>) -> Result<(), Failure> {
        let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
        if let Some(days) = self.every_days {
            put("everyDays", days.into());
        }
        if let (Some(day), Some(time)) = (self.day_of_month, self.time) {
            let months = self.every_months.unwrap_or(1);
            let calendar = json!({ "everyMonths": months, "dayOfMonth": day, "time": time });
            put("calendar", calendar);
        }
        if let Some(zone) = self.time_zone {
            put("timeZone", json!(zone));
        }
        if let Some(jitter) = self.jitter {
            put("jitterSeconds", jitter.seconds().into());
        }
        if !self.weekly_blackout.is_empty() {
            let weekly = self.weekly_blackout.into_iter().map(|weekly| weekly.0);
            put("weeklyBlackouts", weekly.collect());
        }
        if !self.date_blackout.is_empty() {
            let dates = self.date_blackout.into_iter().map(|dates| dates.0);
            put("dateBlackouts", dates.collect());
        }
        if let Some(path) = &self.policy {
            put("policy", input::json(path)?);
        }
        Ok(())
    }
}

/// A part of every week, as the API writes it.
#[derive(Debug, Clone)]
struct Weekly(Value);

impl FromStr for Weekly {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a span of the week such as \"fri 18:00-mon 06:00\"";
        let moment = |text: &str| {
            let (day, time) = text.trim().split_once(' ')?;
            Some((weekday(day)?, time.trim().parse::<TimeOfDay>().ok()?))
        };
        let (from, until) = text.split_once('-').ok_or(EXPECTED)?;
        let (from_day, from_time) = moment(from).ok_or(EXPECTED)?;
        let (until_day, until_time) = moment(until).ok_or(EXPECTED)?;
        Ok(Self(json!({ "fromDay": from_day, "fromTime": from_time,
            "untilDay": until_day, "untilTime": until_time })))
    }
}

/// The whole name of a day that is given whole or by its first three letters.
fn weekday(text: &str) -> Option<&'static str> {
    const DAYS: [&str; 7] = [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];
    let text = text.to_ascii_lowercase();
    DAYS.into_iter()
        .find(|day| *day == text || day[..3] == text)
}

/// Whole days, as the API writes them.
#[derive(Debug, Clone)]
struct Dates(Value);

impl FromStr for Dates {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected days such as 2026-12-20..2027-01-02";
        let (from, until) = text.split_once("..").unwrap_or((text, text));
        let day = |text: &str| text.parse::<Day>().map_err(|_| EXPECTED);
        Ok(Self(json!({ "from": day(from)?, "until": day(until)? })))
    }
}

const COLUMNS: &[Column] = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("KEYRING", "keyringId"),
    ("APP", "clientId"),
    ("DAYS", "everyDays"),
    ("DAY OF MONTH", "calendar.dayOfMonth"),
    ("TIME", "calendar.time"),
    ("ZONE", "timeZone"),
    ("PAUSED", "paused"),
];

impl Planned for Schedule {
    fn plan(self, _clock: &dyn Clock) -> Result<Plan, Failure> {
        let path = |schedule: &Id| format!("/v1/schedules/{schedule}");
        Ok(match self {
            Self::Create {
                name,
                whose,
                fields,
                paused,
            } => {
                if fields.every_days.is_none() && fields.day_of_month.is_none() {
                    return Err(Failure::usage("nothing says when; nothing was sent")
                        .next("give --every-days, or --day-of-month and --time"));
                }
                let mut body = Map::from_iter([("name".to_owned(), name.into())]);
                let keyring = whose.keyring.map(|id| ("keyringId", id));
                let app = whose.app.map(|id| ("clientId", id));
                for (member, id) in keyring.into_iter().chain(app) {
                    body.insert(member.to_owned(), id.to_string().into());
                }
                if paused {
                    body.insert("paused".to_owned(), true.into());
                }
                fields.put_into(&mut body)?;
                Plan::object(Request::post("/v1/schedules", &body.into())).effect(
                    "each rotation it opens waits for its proof, and nothing is promoted without; hand the new secret over when an operational event says that one was opened",
                )
            }
            Self::List(paging) => Plan::list(Request::get("/v1/schedules"), paging, COLUMNS),
            Self::Show { schedule } => Plan::object(Request::get(path(&schedule))),
            Self::Update {
                schedule,
                name,
                fields,
                paused,
                version,
            } => {
                let mut body = Map::new();
                body.extend(name.map(|name| ("name".to_owned(), name.into())));
                body.extend(paused.map(|paused| ("paused".to_owned(), paused.into())));
                fields.put_into(&mut body)?;
                let request = Request::patch(path(&schedule), &body.into());
                Plan::object(request.if_match(version.if_version))
            }
            Self::Delete { schedule, version } => Plan::sentence(
                Request::delete(path(&schedule)).if_match(version.if_version),
                format!("deleted {schedule}; rotations that it opened stay as they are"),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blackouts_are_read_as_people_write_them() {
        let weekly: Weekly = "Fri 18:00-monday 06:00".parse().unwrap();
        assert_eq!(
            weekly.0,
            json!({ "fromDay": "friday", "fromTime": "18:00", "untilDay": "monday", "untilTime": "06:00" })
        );
        for bad in [
            "",
            "fri-mon",
            "fri 18:00",
            "fri 24:00-mon 06:00",
            "fr 1:00-mo 2:00",
        ] {
            assert!(bad.parse::<Weekly>().is_err(), "{bad}");
        }
        let day: Dates = "2026-12-24".parse().unwrap();
        assert_eq!(
            day.0,
            json!({ "from": "2026-12-24", "until": "2026-12-24" })
        );
        assert!("2026-02-30..2026-03-01".parse::<Dates>().is_err());
    }
}
