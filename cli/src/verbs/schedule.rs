//! `stacyvm schedule ...`

use std::io::{Read as _, stdin, stdout};
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::arguments::EnvPair;
use super::command;
use super::error::VerbError;
use super::get::card;
use crate::output::{self, Format, Style, Table};
use client::{Client, ClientError, Method};

/// Manage schedules: jobs that are submitted when their time has come.
#[derive(Debug, Clone, clap::Args)]
pub struct ScheduleArgs {
    #[command(subcommand)]
    pub verb: ScheduleVerb,
}

#[derive(Debug, Clone, clap::Subcommand)]
pub enum ScheduleVerb {
    /// Make a schedule and show when it is due.
    Create(Box<SaveArgs>),
    /// List schedules.
    #[command(visible_alias = "ls")]
    List,
    /// Show one schedule: where it stands, and when it is due next.
    Get(NamedArgs),
    /// Put another schedule in the place of one.
    Update(Box<SaveArgs>),
    /// Delete schedules. Their jobs stay.
    #[command(visible_alias = "rm")]
    Delete(SeveralArgs),
    /// Have nothing be due until it is resumed.
    Pause(NamedArgs),
    /// Go on with the next time that it is due.
    Resume(NamedArgs),
    /// Have its job submitted now, and print the job's id.
    Trigger(NamedArgs),
}

#[derive(Debug, Clone, clap::Args)]
pub struct NamedArgs {
    /// Schedule, by its name or its id.
    pub schedule: String,
}

#[derive(Debug, Clone, clap::Args)]
pub struct SeveralArgs {
    /// Schedules, by their names or ids.
    #[arg(required = true, value_name = "SCHEDULE")]
    pub schedules: Vec<String>,
}

#[derive(Debug, Clone, clap::Args)]
#[command(group = clap::ArgGroup::new("due").required(true))]
pub struct SaveArgs {
    /// What to call it; of one that is updated, its name or its id.
    pub name: String,
    /// When it is due: five fields of cron, six with seconds in front, or a word such as @daily.
    #[arg(long, group = "due", value_name = "EXPRESSION")]
    pub cron: Option<String>,
    /// It is due each time that so long has passed (15m, 1h30m).
    #[arg(long, group = "due", value_name = "DURATION")]
    pub every: Option<String>,
    /// It is due once: 2030-03-31T02:30:00 in its time zone, or with an offset from UTC.
    #[arg(long, group = "due", value_name = "TIME")]
    pub at: Option<String>,
    /// The time zone of its rule, by its IANA name [default: UTC].
    #[arg(long, value_name = "ZONE")]
    pub timezone: Option<String>,
    /// When its last job has not ended: skip, queue or replace [default: skip].
    #[arg(long, value_name = "POLICY")]
    pub overlap: Option<String>,
    /// Of times that passed while no server was there: none, last or all [default: none].
    #[arg(long, value_name = "POLICY")]
    pub catch_up: Option<String>,
    /// The request of its jobs, a JSON object in a file; - for stdin. What is said here beside it goes before.
    #[arg(long, value_name = "FILE")]
    pub job: Option<String>,
    /// The image of its jobs.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// The template of its jobs.
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
    /// Environment variable for its jobs; NAME alone takes the value that it has here. May be repeated.
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<EnvPair>,
    /// The same for a secret: its value is masked in all that is recorded.
    #[arg(long, value_name = "NAME=VALUE")]
    pub secret: Vec<EnvPair>,
    /// The command of its jobs, after --.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// These first, in this order.
const ORDER: [&str; 16] = [
    "id",
    "name",
    "state",
    "cron",
    "every",
    "at",
    "timezone",
    "next",
    "overlap",
    "catch_up",
    "last_tick",
    "last_missed",
    "last_job",
    "waiting",
    "job",
    "owner",
];

pub async fn schedule(api: &Client, format: Format, args: ScheduleArgs) -> Result<ExitCode, VerbError> {
    match args.verb {
        ScheduleVerb::Create(args) => {
            let request = api.request(Method::POST, api.url(&["schedules"])).json(&body(&args)?);
            show(format, &api.fetch(request).await?)
        }
        ScheduleVerb::List => {
            let answer: Value = api.get(&["schedules"]).await?;
            match format {
                Format::Json => output::print_json(&answer["schedules"]),
                Format::Table => output::print(&table(&answer).render(Style::of(&stdout()))),
            }
            .map_err(VerbError::output)?;
            Ok(ExitCode::SUCCESS)
        }
        ScheduleVerb::Get(args) => show(format, &api.get(&["schedules", &args.schedule]).await?),
        ScheduleVerb::Update(args) => {
            let mut body = body(&args)?;
            // The path names it; its name stays.
            if let Some(fields) = body.as_object_mut() {
                fields.remove("name");
            }
            let request = api.request(Method::PUT, api.url(&["schedules", &args.name])).json(&body);
            show(format, &api.fetch(request).await?)
        }
        ScheduleVerb::Delete(args) => delete(api, format, &args.schedules).await,
        ScheduleVerb::Pause(args) => post(api, format, &args.schedule, "pause").await,
        ScheduleVerb::Resume(args) => post(api, format, &args.schedule, "resume").await,
        ScheduleVerb::Trigger(args) => {
            let url = api.url(&["schedules", &args.schedule, "trigger"]);
            let answer: Value = api.fetch(api.request(Method::POST, url)).await?;
            match format {
                Format::Json => output::print_json(&answer),
                Format::Table => {
                    let job = output::plain(answer["job"].as_str().unwrap_or_default()).into_owned();
                    output::print(&format!("{job}\n"))
                }
            }
            .map_err(VerbError::output)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn post(api: &Client, format: Format, schedule: &str, verb: &str) -> Result<ExitCode, VerbError> {
    let url = api.url(&["schedules", schedule, verb]);
    show(format, &api.fetch(api.request(Method::POST, url)).await?)
}

/// One after the other; one that fails does not save the rest.
async fn delete(api: &Client, format: Format, schedules: &[String]) -> Result<ExitCode, VerbError> {
    let mut failed = false;
    for schedule in schedules {
        match api.delete_schedule(schedule).await {
            Ok(()) => match format {
                Format::Table => output::print(&format!("{}\n", output::plain(schedule))),
                Format::Json => output::print_json_line(&json!({"schedule": schedule, "status": "deleted"})),
            }
            .map_err(VerbError::output)?,
            Err(error @ ClientError::Unreachable { .. }) => return Err(error.into()),
            Err(error) => {
                output::error(&anyhow::Error::new(error).context(schedule.clone()));
                failed = true;
            }
        }
    }
    if failed { Err(VerbError::Told) } else { Ok(ExitCode::SUCCESS) }
}

fn show(format: Format, value: &Value) -> Result<ExitCode, VerbError> {
    match format {
        Format::Json => output::print_json(value),
        Format::Table => output::print(&card(value, &ORDER, Style::of(&stdout()))?),
    }
    .map_err(VerbError::output)?;
    Ok(ExitCode::SUCCESS)
}

/// The request that the command line means: what is not said is left to the server.
fn body(args: &SaveArgs) -> Result<Value, VerbError> {
    let mut body = Map::from_iter([("name".to_owned(), json!(args.name))]);
    let texts = [
        ("cron", &args.cron),
        ("every", &args.every),
        ("at", &args.at),
        ("timezone", &args.timezone),
        ("overlap", &args.overlap),
        ("catch_up", &args.catch_up),
    ];
    let said = |(name, value): (&str, &Option<String>)| Some((name.to_owned(), json!(value.as_ref()?)));
    body.extend(texts.into_iter().filter_map(said));
    let mut job = match &args.job {
        Some(file) => job_in(file)?,
        None => Map::new(),
    };
    job.extend([("image", &args.image), ("template", &args.template)].into_iter().filter_map(said));
    let maps = [("env", command::map(&args.env)), ("secrets", command::map(&args.secret))];
    job.extend(maps.into_iter().filter_map(|(name, map)| Some((name.to_owned(), json!(map?)))));
    if let Some((program, words)) = args.command.split_first() {
        job.insert("command".to_owned(), json!(program));
        job.insert("args".to_owned(), json!(words));
        job.insert("mode".to_owned(), json!("argv"));
    }
    if job.is_empty() {
        return Err(VerbError::Usage(
            "the job is missing: name it with --job, or put a command after --".to_owned(),
        ));
    }
    body.insert("job".to_owned(), Value::Object(job));
    Ok(body.into())
}

fn job_in(file: &str) -> Result<Map<String, Value>, VerbError> {
    let wrong = |error: String| VerbError::Usage(format!("--job {file}: {error}"));
    let text = if file == "-" {
        let mut text = String::new();
        stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|error| wrong(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| wrong(format!("not a JSON object: {error}")))
}

fn table(answer: &Value) -> Table {
    let mut table = Table::new(&["NAME", "STATE", "DUE", "ZONE", "NEXT", "LAST", "WAITING", "ID"]);
    for schedule in answer["schedules"].as_array().into_iter().flatten() {
        let text = |name: &str| schedule[name].as_str().unwrap_or_default().to_owned();
        let due = match (&schedule["cron"], &schedule["every"], &schedule["at"]) {
            (Value::String(cron), _, _) => cron.clone(),
            (_, Value::String(every), _) => format!("every {every}"),
            (_, _, Value::String(at)) => format!("at {at}"),
            _ => String::new(),
        };
        let last = schedule["last_tick"]["outcome"].as_str().unwrap_or_default();
        table.row([
            &text("name"),
            &text("state"),
            &due,
            &text("timezone"),
            schedule["next"][0].as_str().unwrap_or_default(),
            last,
            &schedule["waiting"].to_string(),
            &text("id"),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: ScheduleArgs,
    }

    fn save(line: &[&str]) -> Result<SaveArgs, clap::Error> {
        let words = ["schedule", "create"].into_iter().chain(line.iter().copied());
        let line = Line::try_parse_from(words)?;
        let ScheduleVerb::Create(args) = line.args.verb else { panic!("{line:?}") };
        Ok(*args)
    }

    #[test]
    fn what_is_not_said_is_left_to_the_server() {
        let line = ["n", "--cron", "30 2 * * *", "--image", "alpine", "-e", "A=1", "--", "echo", "a b"];
        let expected = json!({"name": "n", "cron": "30 2 * * *", "job": {
            "image": "alpine", "env": {"A": "1"}, "command": "echo", "args": ["a b"], "mode": "argv"}});
        assert_eq!(body(&save(&line).unwrap()).unwrap(), expected);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"image": "a", "memory_mb": 64}"#).unwrap();
        let path = file.path().to_str().unwrap();
        let line = ["n", "--every", "15m", "--timezone", "Asia/Kathmandu", "--job", path, "--image", "b"];
        let expected = json!({"name": "n", "every": "15m", "timezone": "Asia/Kathmandu",
            "job": {"image": "b", "memory_mb": 64}});
        assert_eq!(body(&save(&line).unwrap()).unwrap(), expected);
    }

    #[test]
    fn it_is_due_by_one_rule_and_has_a_job() {
        assert!(save(&["n", "--", "true"]).is_err());
        assert!(save(&["n", "--every", "1h", "--cron", "@daily", "--", "true"]).is_err());
        assert!(matches!(body(&save(&["n", "--every", "1h"]).unwrap()), Err(VerbError::Usage(_))));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[]").unwrap();
        let line = ["n", "--every", "1h", "--job", file.path().to_str().unwrap()];
        assert!(matches!(body(&save(&line).unwrap()), Err(VerbError::Usage(_))));
    }

    #[test]
    fn a_list_is_a_table() {
        let answer = json!({"schedules": [
            {"id": "sched-1", "name": "nightly", "state": "active", "cron": "30 2 * * *", "timezone": "Europe/Berlin",
                "next": ["2027-03-28T03:00:00+02:00"], "waiting": 0, "last_tick": {"outcome": "skipped"}},
            {"id": "sched-2", "name": "often", "state": "paused", "every": "15m0s", "timezone": "UTC", "next": [], "waiting": 3},
        ]});
        let expected = "\
NAME     STATE   DUE          ZONE           NEXT                       LAST     WAITING  ID
nightly  active  30 2 * * *   Europe/Berlin  2027-03-28T03:00:00+02:00  skipped  0        sched-1
often    paused  every 15m0s  UTC            -                          -        3        sched-2
";
        assert_eq!(table(&answer).render(Style::PLAIN), expected);
    }
}
