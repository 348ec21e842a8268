//! What a sandbox writes, on the terminal of whoever looks at it.

use std::process::Command;

use serde_json::json;

use crate::support::process::stacyvm;
use crate::support::serve::Serve;

/// Sets the clipboard, asks where the cursor is, and rings; among it words that are to be seen.
const HOSTILE: &str =
    "printf 'one\\033]52;c;aGk=\\007two\\033[6nthree\\007\\n'; printf 'err\\033]52;c;aGk=\\033\\\\or\\n' >&2";
/// Sets the title, links elsewhere, takes the mouse and the other screen, turns text around, and never ends a command.
const LASTING: &str = "printf 'one\\033]0;evil\\007two\\033]8;;http://evil.example\\007three\\033[?1000h\\033[?1049hfour\\302\\2330;1mfive\\342\\200\\256six\\n\\033]2;the end'";

/// What a terminal of its own gets to see of a client. Both streams go to it.
fn on_a_terminal(serve: &Serve, words: &[&str]) -> String {
    let program = stacyvm();
    let quoted: Vec<String> = std::iter::once(program.get_program().to_str().unwrap())
        .chain(words.iter().copied())
        .map(|word| format!("'{}'", word.replace('\'', "'\\''")))
        .collect();
    let mut command = Command::new("script");
    command.args(["-qec", &quoted.join(" "), "/dev/null"]);
    command.env("STACYVM_URL", serve.api.base.trim_end_matches("/api/v1"));
    String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
}

fn in_a_pipe(serve: &Serve, words: &[&str]) -> String {
    let mut command = stacyvm();
    command.env("STACYVM_URL", serve.api.base.trim_end_matches("/api/v1"));
    String::from_utf8_lossy(&command.args(words).output().unwrap().stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_does_nothing_to_a_terminal_that_did_not_ask_for_it() {
    let serve = Serve::with_provider("bubblewrap").await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let exec = serve
        .api
        .post(&format!("/sandboxes/{sandbox}/exec"), json!({"command": HOSTILE, "detach": true}))
        .await;
    let exec = exec.1["exec_id"].as_str().unwrap().to_owned();
    serve.api.exec(&sandbox, "true").await;
    let run = ["exec", &sandbox, "--shell", "--", HOSTILE];
    let logs = ["logs", &exec, "--follow"];
    for words in [&run[..], &logs] {
        let shown = on_a_terminal(&serve, words);
        assert!(shown.contains("onetwothree"), "{words:?}: {shown:?}");
        assert!(shown.contains("error"), "{words:?}: {shown:?}");
        for harm in ["\x1b]52", "\x1b[6n", "\x07"] {
            assert!(!shown.contains(harm), "{words:?}: {shown:?}");
        }
        // Byte for byte where it is no terminal, and where it is asked for.
        let exact = "one\x1b]52;c;aGk=\x07two\x1b[6nthree\x07\n";
        assert_eq!(in_a_pipe(&serve, words), exact);
        let raw = [&words[..1], &["--raw"], &words[1..]].concat();
        assert!(on_a_terminal(&serve, &raw).contains("\x1b]52;c;aGk=\x07two\x1b[6n"), "{words:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_shows_what_a_terminal_would_obey() {
    let serve = Serve::with_provider("bubblewrap").await;
    let sandbox = serve
        .api
        .spawn(json!({"image": "alpine:latest", "metadata": {"a\u{9b}31m": "b\u{202e}c\u{2066}d\u{7f}"}}))
        .await;
    serve.api.exec(&sandbox, "printf 'x\\302\\233y\\342\\200\\256z'").await;
    let commands: [&[&str]; 4] = [
        &["get", &sandbox, "--output", "json"],
        &["list", "--output", "json"],
        &["events", "--sandbox", &sandbox, "--output", "json"],
        &["exec", &sandbox, "--output", "json", "--shell", "--", "printf 'x\\302\\233y\\342\\200\\256z'"],
    ];
    for words in commands {
        let shown = in_a_pipe(&serve, words);
        assert!(shown.contains("\\u202e"), "{words:?}: {shown}");
        assert!(
            !shown.chars().any(|c| c.is_control() && c != '\n' || matches!(c, '\u{202e}' | '\u{2066}')),
            "{shown}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_sandbox_wrote_lasts_on_a_terminal() {
    let serve = Serve::with_provider("bubblewrap").await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    serve.api.exec(&sandbox, &format!("{LASTING} >/tmp/hostile")).await;
    let file = format!("{sandbox}:/tmp/hostile");
    for words in [&["cp", &file, "-"][..], &["exec", &sandbox, "--shell", "--", "cat /tmp/hostile"]] {
        let shown = on_a_terminal(&serve, words);
        assert!(shown.contains("onetwothreefour0;1mfivesix"), "{words:?}: {shown:?}");
        assert!(shown.contains("]2;the end"), "{words:?}: {shown:?}");
        let harmful = |c: char| c.is_control() && !matches!(c, '\r' | '\n') || c == '\u{202e}';
        assert!(!shown.contains(harmful), "{words:?}: {shown:?}");
        assert!(in_a_pipe(&serve, words).contains("\x1b]0;evil\x07two\x1b]8;;"), "{words:?}");
    }
    // Names that a sandbox or its maker chose, in tables and in what the server says of them.
    let name = "a\u{1b}]0;evil\u{7}b\u{9b}31m\u{202e}c";
    let metadata = json!({"image": "alpine:latest", "metadata": {name: name}});
    let named = serve.api.spawn(metadata).await;
    let missing = format!("{sandbox}:/tmp/{name}");
    let commands: [&[&str]; 5] = [
        &["list"],
        &["get", &named],
        &["events", "--sandbox", &named],
        &["cp", &missing, "-"],
        &["exec", &sandbox, "--", name],
    ];
    for words in commands {
        let shown = on_a_terminal(&serve, words);
        assert!(!shown.is_empty(), "{words:?}");
        // Our own colours are left.
        for harm in ["\x1b]", "\x07", "\u{9b}", "\u{202e}"] {
            assert!(!shown.contains(harm), "{words:?}: {shown:?}");
        }
    }
}
