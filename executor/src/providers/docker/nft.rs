//! The program `nft`: how rules get into the kernel, and what is there.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::provider::Source;

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where it is looked for: services often have no `sbin` in their path.
const PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
/// How often a table is put in place before whatever it looks like has to do.
const TRIES: u32 = 5;
/// How much of what it says is kept, in bytes: a table of ours is far smaller.
const MOST: usize = 1 << 20;

/// Carries these commands out, all of them or none.
pub(super) async fn put(commands: &str) -> Result<(), Source> {
    run(&["-f", "-"], commands).await.map(drop)
}

/// Whether these commands could be carried out here. Changes nothing.
pub(super) async fn try_out(commands: &str) -> Result<(), Source> {
    run(&["--check", "-f", "-"], commands).await.map(drop)
}

/// A table of family `inet` as it is, without what it counted and learned; `None` if there is none.
pub(super) async fn show(table: &str) -> Result<Option<String>, Source> {
    match run(&["--stateless", "--terse", "list", "table", "inet", table], "").await {
        Ok(shown) => Ok(Some(shown)),
        Err(error) if error.to_string().contains("No such file or directory") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts a table in place, whole, and says how [`show`] shows it then.
///
/// What is shown a moment later may have been changed by somebody else already. So it is put there and looked at until it looks the same
/// twice.
pub(super) async fn put_and_show(commands: &str, table: &str) -> Result<String, Source> {
    let mut looks = None;
    for _ in 0..TRIES {
        put(commands).await?;
        let shown = show(table).await?;
        if shown.is_some() && shown == looks {
            break;
        }
        looks = shown;
    }
    looks.ok_or_else(|| "nft does not keep them".into())
}

async fn run(arguments: &[&str], input: &str) -> Result<String, Source> {
    let run = async {
        let mut nft = Command::new("nft")
            .args(arguments)
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                if error.kind() == std::io::ErrorKind::NotFound {
                    "there is no nft program (package nftables)".to_owned()
                } else {
                    format!("nft cannot be run: {error}")
                }
            })?;
        if let Some(mut stdin) = nft.stdin.take() {
            // If it does not read, its exit says why.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = nft.wait_with_output().await?;
        if output.status.success() && output.stdout.len() <= MOST {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let line: String = said.lines().next().unwrap_or_default().chars().take(200).collect();
        Err(Source::from(format!("nft refuses: {line}")))
    };
    timeout(PATIENCE, run).await.unwrap_or_else(|_| Err("nft does not answer".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_nft_does_not_take_is_an_error_with_its_words() {
        let error = put("nonsense\n").await.unwrap_err();
        assert!(error.to_string().contains("nonsense") || error.to_string().contains("syntax"), "{error}");
    }

    #[tokio::test]
    async fn a_table_that_is_not_there_is_none() {
        assert_eq!(show("nobody_made_this_table").await.unwrap(), None);
    }
}
