//! Configuration: compiled-in defaults, under the file, under `STACYVM_*`, under flags.
//!
//! All that is wrong is said at once, each with its key and where it stands: the line of the file, the variable or the
//! flag. No key and no variable is ignored in silence.

mod artifacts;
mod environment;
mod flags;
mod foreign;
mod limits;
mod read;
mod schema;
mod tree;
mod values;

use std::path::{Path, PathBuf};

use anyhow::bail;

pub use flags::ServerArgs;

pub use schema::{AuthConfig, Config};
#[cfg(test)]
pub use schema::{KeyConfig, TenantImagesConfig};
use tree::{Node, Origin, Problem};
pub use values::GoDuration;

/// The file that is read when none is named: the first of these that is there.
fn places() -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from("stacyvm.yaml")];
    if let Some(home) = std::env::var_os("HOME").filter(|home| !home.is_empty()) {
        let home = PathBuf::from(home).join(".stacyvm");
        places.extend(["config.yaml", "stacyvm.yaml"].map(|name| home.join(name)));
    }
    places.push("/etc/stacyvm/stacyvm.yaml".into());
    places
}

/// Puts the layers together and checks the result. `program` is the whole command line: its client verbs have variables of
/// their own, which are none of the server's and no mistake either.
pub fn load(args: &ServerArgs, program: &clap::Command) -> anyhow::Result<Config> {
    let file = match &args.config {
        Some(path) if !path.is_file() => bail!("the configuration file {} does not exist", path.display()),
        Some(path) => Some(path.clone()),
        None => places().into_iter().find(|path| path.is_file()),
    };
    // A name or a value that is no text is none of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let said = match &file {
        Some(path) => Node::read_file(path),
        None => Node::read_yaml("", ""),
    };
    assemble(file.as_deref(), said, environment, args, program)
}

fn assemble(
    file: Option<&Path>,
    said: Result<Node, Problem>,
    environment: impl Iterator<Item = (String, String)>,
    args: &ServerArgs,
    program: &clap::Command,
) -> anyhow::Result<Config> {
    let (mut problems, mut remarks) = (Vec::new(), Vec::new());
    let default = Node::default_of(serde_json::to_value(Config::default())?);
    let mut tree = default.clone();
    let environment = environment::read(&default, environment, program, &mut problems);
    let said = said.map_err(|problem| problems.insert(0, problem)).ok();
    for mut layer in said.into_iter().chain([environment]) {
        foreign::adopt(&mut layer, &default, &mut remarks, &mut problems);
        tree.overlay(layer, &mut problems);
    }
    flags(&mut tree, args);
    let config: Option<Config> = read::read(tree.clone(), &default, &mut problems);
    if let Some(mut config) = config {
        if let Err(error) = config.check() {
            problems.push(of_check(&error.to_string(), &tree));
        }
        if problems.is_empty() {
            config.remarks = remarks.iter().map(Problem::to_string).collect();
            config.file = file.map(Path::to_path_buf);
            return Ok(config);
        }
    }
    bail!("{}", listed(&problems, &remarks))
}

/// What a check says begins with the key that it is about.
fn of_check(message: &str, tree: &Node) -> Problem {
    let place = message.split_once(": ").and_then(|(key, what)| Some((key, what, tree.get(key)?)));
    match place {
        Some((key, what, node)) => {
            Problem { origin: node.origin.clone(), key: key.to_owned(), what: what.to_owned() }
        }
        None => Problem { origin: Origin::Default, key: String::new(), what: message.to_owned() },
    }
}

fn listed(problems: &[Problem], remarks: &[Problem]) -> String {
    let mut text = "the configuration is wrong".to_owned();
    for problem in problems {
        text.push_str(&format!("\n  {problem}"));
    }
    if !remarks.is_empty() {
        text.push_str("\nnot wrong, but known to other servers only");
        for remark in remarks {
            text.push_str(&format!("\n  {remark}"));
        }
    }
    text
}

fn flags(tree: &mut Node, args: &ServerArgs) {
    let pairs = [
        ("--listen", "listen", args.listen.clone()),
        ("--data-dir", "data_dir", args.data_dir.as_ref().map(|dir| dir.display().to_string())),
        ("--provider", "providers.default", args.provider.clone()),
        ("--nats", "nats.url", args.nats.clone()),
        ("--database", "database.url", args.database.clone()),
        ("--log-level", "logging.level", args.log_level.clone()),
    ];
    for (flag, key, value) in pairs {
        if let Some(value) = value {
            tree.set(key, Node::text(Origin::Flag(flag), value));
        }
    }
}

#[cfg(test)]
mod tests;
