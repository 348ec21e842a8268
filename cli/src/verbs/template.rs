//! `stacyvm template ...`

use std::io::stdout;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::arguments::EnvPair;
use super::error::VerbError;
use super::get::card;
use super::spawn::SandboxArgs;
use crate::output::{self, Format, Style, Table};
use client::{Client, ClientError, Method};

/// Manage templates: named defaults for sandboxes.
#[derive(Debug, Clone, clap::Args)]
pub struct TemplateArgs {
    #[command(subcommand)]
    pub verb: TemplateVerb,
}

#[derive(Debug, Clone, clap::Subcommand)]
pub enum TemplateVerb {
    /// List templates.
    #[command(visible_alias = "ls")]
    List {
        /// Only their names.
        #[arg(long, short)]
        quiet: bool,
    },
    /// Show one template.
    Get {
        /// Template.
        name: String,
    },
    /// Make a template, or put another in its place.
    Save(Box<SaveArgs>),
    /// Delete templates. Sandboxes that were made from them stay.
    #[command(visible_alias = "rm")]
    Delete {
        /// Templates.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

#[derive(Debug, Clone, clap::Args)]
pub struct SaveArgs {
    /// Template.
    pub name: String,
    /// Image.
    pub image: String,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Environment variable for every command; NAME alone takes the value that it has here. May be repeated.
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<EnvPair>,
    /// The same for a secret: its value is masked in all that is recorded, and no answer shows it.
    #[arg(long, value_name = "NAME=VALUE")]
    pub secret: Vec<EnvPair>,
    #[command(flatten)]
    pub sandbox: SandboxArgs,
}

/// These first, in this order.
const ORDER: [&str; 9] =
    ["name", "description", "image", "provider", "vcpus", "memory_mb", "ttl", "network", "metadata"];

pub async fn template(api: &Client, format: Format, args: TemplateArgs) -> Result<ExitCode, VerbError> {
    match args.verb {
        TemplateVerb::List { quiet } => {
            let templates: Vec<Value> = api.get(&["templates"]).await?;
            match (quiet, format) {
                (true, _) => output::print(&names(&templates)),
                (false, Format::Json) => output::print_json(&templates),
                (false, Format::Table) => output::print(&table(&templates).render(Style::of(&stdout()))),
            }
            .map_err(VerbError::output)?;
        }
        TemplateVerb::Get { name } => show(&api.get(&["templates", &name]).await?, format)?,
        TemplateVerb::Save(args) => {
            let request = api.request(Method::POST, api.url(&["templates"])).json(&body(&args));
            show(&api.fetch(request).await?, format)?;
        }
        TemplateVerb::Delete { names } => return delete(api, format, &names).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// One after the other; one that fails does not save the rest.
async fn delete(api: &Client, format: Format, names: &[String]) -> Result<ExitCode, VerbError> {
    let mut failed = false;
    for name in names {
        match api.delete_template(name).await {
            Ok(_) => match format {
                Format::Table => output::print(&format!("{}\n", output::plain(name))),
                Format::Json => output::print_json_line(&json!({"name": name, "status": "deleted"})),
            }
            .map_err(VerbError::output)?,
            Err(error @ ClientError::Unreachable { .. }) => return Err(error.into()),
            Err(error) => {
                output::error(&anyhow::Error::new(error).context(name.clone()));
                failed = true;
            }
        }
    }
    if failed { Err(VerbError::Told) } else { Ok(ExitCode::SUCCESS) }
}

fn show(template: &Value, format: Format) -> Result<(), VerbError> {
    match format {
        Format::Json => output::print_json(template),
        Format::Table => output::print(&card(template, &ORDER, Style::of(&stdout()))?),
    }
    .map_err(VerbError::output)
}

/// The body of the request: what is not said is left to the server.
fn body(args: &SaveArgs) -> Value {
    let map = |pairs: &[EnvPair]| -> Option<Value> {
        let pairs: Map<_, _> =
            pairs.iter().map(|pair| (pair.name.clone(), pair.value.clone().into())).collect();
        (!pairs.is_empty()).then_some(Value::Object(pairs))
    };
    let sandbox = &args.sandbox;
    let fields = [
        ("name", Some(json!(args.name))),
        ("image", Some(json!(args.image))),
        ("description", args.description.as_ref().map(|text| json!(text))),
        ("provider", sandbox.provider.as_ref().map(|name| json!(name))),
        ("memory_mb", sandbox.memory.map(|memory| json!(memory))),
        // A template counts whole CPUs.
        ("vcpus", sandbox.cpus.map(|cpus| json!(cpus.ceil() as u32))),
        ("ttl", sandbox.ttl.as_ref().map(|ttl| json!(ttl))),
        ("network", sandbox.network.as_ref().map(|network| json!(network))),
        ("metadata", map(&sandbox.label)),
        ("env", map(&args.env)),
        ("secrets", map(&args.secret)),
    ];
    Value::Object(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

fn text(template: &Value, name: &str) -> String {
    match template.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn names(templates: &[Value]) -> String {
    templates.iter().map(|template| format!("{}\n", output::plain(&text(template, "name")))).collect()
}

fn table(templates: &[Value]) -> Table {
    let mut table = Table::new(&["NAME", "IMAGE", "PROVIDER", "CPUS", "MEMORY", "TTL", "DESCRIPTION"]);
    for template in templates {
        let memory = text(template, "memory_mb");
        table.row([
            &text(template, "name"),
            &text(template, "image"),
            &text(template, "provider"),
            &text(template, "vcpus"),
            &if memory.is_empty() { memory } else { format!("{memory} MiB") },
            &text(template, "ttl"),
            &text(template, "description"),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_left_to_the_server() {
        let args = SaveArgs {
            name: "py".to_owned(),
            image: "python:3.12".to_owned(),
            description: None,
            env: vec!["A=1".parse().unwrap()],
            secret: Vec::new(),
            sandbox: SandboxArgs { cpus: Some(1.5), memory: Some(256), ..SandboxArgs::default() },
        };
        let expected =
            json!({"name": "py", "image": "python:3.12", "vcpus": 2, "memory_mb": 256, "env": {"A": "1"}});
        assert_eq!(body(&args), expected);
    }

    #[test]
    fn a_list_is_a_table() {
        let templates =
            [json!({"name": "py", "image": "python:3.12", "memory_mb": 256}), json!({"name": "b"})];
        let expected = "\
NAME  IMAGE        PROVIDER  CPUS  MEMORY   TTL  DESCRIPTION
py    python:3.12  -         -     256 MiB  -    -
b     -            -         -     -        -    -
";
        assert_eq!(table(&templates).render(Style::PLAIN), expected);
        assert_eq!(names(&templates), "py\nb\n");
    }
}
