//! `stacyvm webhook ...`

use std::io::stdout;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::error::VerbError;
use super::get::card;
use crate::output::{self, Format, Style, Table};
use client::{Client, Method};

/// Manage webhooks: receivers that are told of events over HTTP.
#[derive(Debug, Clone, clap::Args)]
pub struct WebhookArgs {
    #[command(subcommand)]
    pub verb: WebhookVerb,
}

#[derive(Debug, Clone, clap::Subcommand)]
pub enum WebhookVerb {
    /// Make a webhook and print its id and its secret, which is not shown again.
    Create(CreateArgs),
    /// List webhooks.
    #[command(visible_alias = "ls")]
    List,
    /// Show one webhook and how it is doing.
    Get(IdArgs),
    /// Delete webhooks.
    #[command(visible_alias = "rm")]
    Delete(IdsArgs),
    /// Send again what was recorded from a position on; also wakes a suspended webhook.
    Redeliver(RedeliverArgs),
    /// Send the receiver a test and show what comes of it. The exit code is 0 if it was taken.
    Ping(IdArgs),
}

#[derive(Debug, Clone, clap::Args)]
pub struct CreateArgs {
    /// Where events go: https://...
    #[arg(value_name = "RECEIVER")]
    pub receiver: String,
    /// Only events of this type (exec.exited), this category (sandbox.*). May be repeated.
    #[arg(long = "type", short, value_name = "TYPE")]
    pub types: Vec<String>,
    /// Only events of this sandbox.
    #[arg(long, value_name = "ID")]
    pub sandbox: Option<String>,
    /// What to call it.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// The signing secret [default: a fresh one].
    #[arg(long, value_name = "SECRET")]
    pub secret: Option<String>,
    /// The position of the first event that is sent [default: now].
    #[arg(long, value_name = "POSITION")]
    pub from: Option<String>,
}

#[derive(Debug, Clone, clap::Args)]
pub struct IdArgs {
    /// Webhook.
    pub id: String,
}

#[derive(Debug, Clone, clap::Args)]
pub struct IdsArgs {
    /// Webhooks.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

#[derive(Debug, Clone, clap::Args)]
pub struct RedeliverArgs {
    /// Webhook.
    pub id: String,
    /// The position of the first event that is sent again; `now` skips what waits.
    #[arg(long, value_name = "POSITION")]
    pub from: String,
}

/// These first, in this order.
const ORDER: [&str; 15] = [
    "id",
    "url",
    "state",
    "last_error",
    "attempts",
    "failing_since",
    "retry_at",
    "suspended_at",
    "lag",
    "cursor",
    "last_success_at",
    "types",
    "sandbox",
    "description",
    "created_at",
];

pub async fn webhook(api: &Client, format: Format, args: WebhookArgs) -> Result<ExitCode, VerbError> {
    match args.verb {
        WebhookVerb::Create(args) => create(api, format, args).await,
        WebhookVerb::List => {
            let values: Vec<Value> = api.get(&["webhooks"]).await?;
            match format {
                Format::Json => output::print_json(&values),
                Format::Table => output::print(&table(&values).render(Style::of(&stdout()))),
            }
            .map_err(VerbError::output)?;
            Ok(ExitCode::SUCCESS)
        }
        WebhookVerb::Get(args) => show(format, &api.get(&["webhooks", &args.id]).await?),
        WebhookVerb::Delete(args) => delete(api, format, args).await,
        WebhookVerb::Redeliver(args) => {
            let url = api.url(&["webhooks", &args.id, "redeliver"]);
            let request = api.request(Method::POST, url).json(&json!({ "from": args.from }));
            show(format, &api.fetch(request).await?)
        }
        WebhookVerb::Ping(args) => {
            let url = api.url(&["webhooks", &args.id, "ping"]);
            let answer: Value = api.fetch(api.request(Method::POST, url)).await?;
            show(format, &answer)?;
            Ok(if answer["delivered"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

async fn create(api: &Client, format: Format, args: CreateArgs) -> Result<ExitCode, VerbError> {
    let request = api.request(Method::POST, api.url(&["webhooks"])).json(&body(&args));
    let answer: Value = api.fetch(request).await?;
    match format {
        Format::Json => output::print_json(&answer),
        Format::Table => {
            let text = |name: &str| output::plain(answer[name].as_str().unwrap_or_default()).into_owned();
            output::print(&format!("{}\n{}\n", text("id"), text("secret")))
        }
    }
    .map_err(VerbError::output)?;
    Ok(ExitCode::SUCCESS)
}

fn body(args: &CreateArgs) -> Value {
    let mut body = Map::from_iter([("url".to_owned(), json!(args.receiver))]);
    if !args.types.is_empty() {
        body.insert("types".to_owned(), json!(args.types));
    }
    let optional = [
        ("sandbox", &args.sandbox),
        ("description", &args.description),
        ("secret", &args.secret),
        ("from", &args.from),
    ];
    body.extend(
        optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?)))),
    );
    body.into()
}

async fn delete(api: &Client, format: Format, args: IdsArgs) -> Result<ExitCode, VerbError> {
    for id in &args.ids {
        api.delete_webhook(id).await?;
        match format {
            Format::Table => output::print(&format!("{}\n", output::plain(id))),
            Format::Json => output::print_json_line(&json!({"id": id, "status": "deleted"})),
        }
        .map_err(VerbError::output)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(format: Format, value: &Value) -> Result<ExitCode, VerbError> {
    match format {
        Format::Json => output::print_json(value),
        Format::Table => output::print(&card(value, &ORDER, Style::of(&stdout()))?),
    }
    .map_err(VerbError::output)?;
    Ok(ExitCode::SUCCESS)
}

fn table(webhooks: &[Value]) -> Table {
    let mut table = Table::new(&["ID", "STATE", "LAG", "TYPES", "URL", "ERROR"]);
    for webhook in webhooks {
        let text = |name: &str| webhook[name].as_str().unwrap_or_default().to_owned();
        let types = webhook["types"].as_array().map(Vec::as_slice).unwrap_or_default();
        let types: Vec<&str> = types.iter().filter_map(Value::as_str).collect();
        table.row([
            &text("id"),
            &text("state"),
            &webhook["lag"].to_string(),
            &types.join(","),
            &text("url"),
            &text("last_error"),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_is_not_sent() {
        let mut args = CreateArgs {
            receiver: "https://a.example/".to_owned(),
            types: Vec::new(),
            sandbox: None,
            description: None,
            secret: None,
            from: None,
        };
        assert_eq!(body(&args), json!({"url": "https://a.example/"}));
        args.types = vec!["sandbox.*".to_owned()];
        args.from = Some("7".to_owned());
        assert_eq!(body(&args), json!({"url": "https://a.example/", "types": ["sandbox.*"], "from": "7"}));
    }

    #[test]
    fn a_list_is_a_table() {
        let webhooks = [
            json!({"id": "wh-1", "state": "active", "lag": 0, "types": [], "url": "https://a.example/"}),
            json!({"id": "wh-2", "state": "suspended", "lag": 9, "types": ["exec.exited", "sandbox.*"],
                "url": "https://b.example/", "last_error": "answered 500"}),
        ];
        let expected = "\
ID    STATE      LAG  TYPES                  URL                 ERROR
wh-1  active     0    -                      https://a.example/  -
wh-2  suspended  9    exec.exited,sandbox.*  https://b.example/  answered 500
";
        assert_eq!(table(&webhooks).render(Style::PLAIN), expected);
    }
}
