use clap::CommandFactory as _;
use events::{CapabilitySet, Network};

use super::*;
use crate::args::Args;

fn load(yaml: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    load_with(yaml, environment, &ServerArgs::default())
}

fn load_with(yaml: &str, environment: &[(&str, &str)], args: &ServerArgs) -> Result<Config, String> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let said = Node::read_yaml("stacyvm.yaml", yaml);
    assemble(Some(Path::new("stacyvm.yaml")), said, environment, args, &Args::command())
        .map_err(|error| error.to_string())
}

/// The lines of what is wrong.
fn wrong(yaml: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let error = load(yaml, environment).unwrap_err();
    for word in ["global.", "default.", "struct ", "u16", "u32", "enum"] {
        assert!(!error.contains(word), "{error}");
    }
    error.lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn the_file_is_over_the_defaults_the_environment_over_the_file_and_flags_over_all() {
    let yaml = "server:\n  port: 8000\nlogging:\n  level: warn\ndefaults:\n  ttl: 1h\n";
    let args = ServerArgs { log_level: Some("debug".to_owned()), ..ServerArgs::default() };
    let environment = [("STACYVM_SERVER_PORT", "9000"), ("STACYVM_LOGGING_LEVEL", "error")];
    let config = load_with(yaml, &environment, &args).unwrap();
    assert_eq!((config.server.port, config.logging.level.as_str()), (9000, "debug"));
    assert_eq!(config.defaults.ttl.0.as_secs(), 3600);
    assert_eq!(config.defaults.image, "alpine:latest");
}

#[test]
fn all_that_is_wrong_is_said_at_once_with_its_place() {
    let yaml = "server:\n  prot: 8000\n  port: 70000\ndefaults:\n  ttl: 1d\n  max_ttl: 5\n  memory_mb: lots\nmax_ttl: 1h\n\
                auth:\n  keys:\n    - id: a\n      tennant: red\n";
    let environment = [
        ("STACYVM_SERVER_PORT", "many"),
        ("STACYVM_LISTN", "127.0.0.1:1"),
        ("STACYVM_NODE_CAPACITY", "-1"),
        ("STACYVM_PROVIDERS_DOCKER_ENABLED", "perhaps"),
        ("STACYVM_XYZZY_PLUGH", "1"),
    ];
    let lines = wrong(yaml, &environment);
    for line in [
        "stacyvm.yaml:2:3: server.prot: there is no such key; did you mean server.port?",
        "STACYVM_SERVER_PORT: server.port: \"many\" is not a whole number from 0 to 65535",
        "stacyvm.yaml:5:3: defaults.ttl: invalid duration \"1d\": use a form such as 30s, 5m, 1h30m or 250ms",
        "stacyvm.yaml:6:3: defaults.max_ttl: 5 is not a duration such as \"30s\", \"5m\" or \"1h30m\"",
        "stacyvm.yaml:7:3: defaults.memory_mb: \"lots\" is not a whole number from 0 to 4294967295",
        "stacyvm.yaml:8:1: max_ttl: there is no such key; did you mean defaults.max_ttl?",
        "stacyvm.yaml:12:7: auth.keys[0]: there is no such key as tennant; did you mean tenant?",
        "STACYVM_LISTN: there is no such variable; did you mean STACYVM_LISTEN?",
        "STACYVM_NODE_CAPACITY: node.capacity: -1 is not a whole number from 0 to 4294967295",
        "STACYVM_PROVIDERS_DOCKER_ENABLED: providers.docker.enabled: \"perhaps\" is not true or false",
        "STACYVM_XYZZY_PLUGH: there is no such variable: docs/configuration.md lists them",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line}\nis not in\n{lines:#?}");
    }
    assert_eq!(lines.len(), 11, "{lines:#?}");
    assert_eq!(
        wrong("server:\n  port: 70000\n", &[]),
        ["stacyvm.yaml:2:3: server.port: 70000 is not a whole number from 0 to 65535"]
    );
}

#[test]
fn values_that_no_type_can_refuse_are_refused_with_their_place() {
    for (yaml, line) in [
        (
            "logging:\n  level: loud\n",
            "stacyvm.yaml:2:3: logging.level: \"loud\" is none of off, error, warn, info, debug, trace",
        ),
        ("node:\n  capacity: 0\n", "stacyvm.yaml:2:3: node.capacity: must be at least 1"),
        ("node:\n  linger: 11s\n", "stacyvm.yaml:2:3: node.linger: must be at most 10s"),
        (
            "database:\n  driver: oracle\n",
            "stacyvm.yaml:2:3: database.driver: \"oracle\" is neither sqlite nor postgres",
        ),
        ("listen: nonsense\n", "stacyvm.yaml:1:1: listen: \"nonsense\" is not HOST:PORT"),
        (
            "server: 5\n",
            "stacyvm.yaml:1:1: server: this is a section: its keys stand below it, further to the right",
        ),
        ("a: [\n", "stacyvm.yaml:2:1: not YAML: while parsing a node, did not find expected node content"),
        ("a: 1\na: 2\n", "stacyvm.yaml:2:1: not YAML: duplicated key in mapping"),
        ("- a\n", "stacyvm.yaml:1:1: a configuration has keys: `server:` and so on"),
    ] {
        assert_eq!(wrong(yaml, &[])[0], line, "{yaml}");
    }
}

#[test]
fn an_origin_that_is_none_is_refused_with_what_to_write() {
    let errors = wrong("server:\n  allowed_origins: [\"https://a.example\", x.example]\n", &[]);
    assert!(
        errors[0].contains("allowed_origins") && errors[0].contains("write \"https://x.example\""),
        "{errors:?}"
    );
    let errors = wrong("", &[("STACYVM_SERVER_ALLOWED_ORIGINS", "https://a.example,*")]);
    assert!(errors[0].contains("name each one"), "{errors:?}");
}

#[test]
fn a_value_that_may_be_a_secret_is_in_no_message() {
    for yaml in [
        "auth:\n  api_key: [hunter2]\n",
        "nats:\n  password:\n    a: hunter2\n",
        "secrets:\n  key: [hunter2]\n",
    ] {
        assert!(!wrong(yaml, &[])[0].contains("hunter2"));
    }
    assert!(!wrong("nats:\n  password: 4711\n", &[])[0].contains("4711"));
    let config = load("auth:\n  api_key: secret-key\n", &[]).unwrap();
    assert!(!format!("{config:?}").contains("secret-key"));
}

#[test]
fn text_may_consist_of_digits() {
    let environment =
        [("STACYVM_NATS_PASSWORD", "12345"), ("STACYVM_NODE", "7"), ("STACYVM_API_KEY", "12345")];
    let config = load("", &environment).unwrap();
    assert_eq!(config.nats.password.as_deref(), Some("12345"));
    assert_eq!(config.node.id.as_deref(), Some("7"));
    assert_eq!(config.auth.api_key.unwrap().text(), "12345");
    assert_eq!(load("auth:\n  api_key: 12345\n", &[]).unwrap().auth.api_key.unwrap().text(), "12345");
}

#[test]
fn keys_without_a_value_and_empty_variables_say_nothing() {
    let config = load("server:\ndefaults:\n  ttl:\n# that is all\n", &[("STACYVM_SERVER_PORT", "")]).unwrap();
    assert_eq!(config, Config { file: Some("stacyvm.yaml".into()), ..Config::default() });
}

/// Sets each key by its variable to another value than the default, and finds it.
#[test]
fn every_key_has_its_variable() {
    let default = Node::default_of(serde_json::to_value(Config::default()).unwrap());
    let keys = default.keys();
    assert!(keys.len() > 50 && keys.iter().any(|key| key == "providers.docker.socket"), "{keys:?}");
    let mut names: Vec<String> = keys.iter().map(|key| environment::variable_of(key)).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), keys.len(), "two keys have one variable");
    for key in keys {
        let name = environment::variable_of(&key);
        // One of them is a value of the key's kind.
        let values = [
            "true",
            "false",
            "7",
            "12",
            "10m",
            "48h",
            "[]",
            "x",
            "postgres",
            "s3",
            "info",
            "debug",
            "json",
            "never",
            "none",
            "bridge",
            "minimal",
            "owner",
            "127.0.0.1:1",
            "1.2.3.4,::1",
            "a:1=b",
            "https://a.example",
            "7s",
        ];
        let found = values.iter().find_map(|value| {
            let config = load("", &[(&name, value)]).ok()?;
            let tree = Node::default_of(serde_json::to_value(config).unwrap());
            Some(tree.get(&key) != default.get(&key)).filter(|changed| *changed)
        });
        // Lists of sections are written as in YAML.
        let lists = [
            r#"[{"id": "a", "tenant": "b", "sha256": "c"}]"#,
            r#"[{name: digits, pattern: "[0-9]+"}]"#,
            "[{tenant: red}]",
        ];
        let found = found.or_else(|| {
            lists.iter().find_map(|list| {
                let config = load("", &[(&name, list)]).ok()?;
                let tree = Node::default_of(serde_json::to_value(config).unwrap());
                Some(tree.get(&key) != default.get(&key)).filter(|changed| *changed)
            })
        });
        assert_eq!(found, Some(true), "{name} does not reach {key}");
    }
}

#[test]
fn two_variables_of_one_key_must_agree() {
    let lines = wrong("", &[("STACYVM_NODE", "a"), ("STACYVM_NODE_ID", "b")]);
    assert_eq!(lines, ["STACYVM_NODE: node.id: STACYVM_NODE_ID says something else: set one of the two"]);
    assert!(load("", &[("STACYVM_NODE", "a"), ("STACYVM_NODE_ID", "a")]).is_ok());
}

#[test]
fn a_port_is_not_a_variable_of_a_cluster() {
    assert_eq!(
        wrong("", &[("STACYVM_PORT", "8080")]),
        ["STACYVM_PORT: there is no such variable; did you mean STACYVM_SERVER_PORT?"]
    );
}

#[test]
fn variables_of_clients_scripts_and_clusters_are_no_error() {
    let around = [
        ("STACYVM_URL", "http://a"),
        ("STACYVM_DETACH_KEYS", "ctrl-a"),
        ("STACYVM_CHAOS_SEED", "1"),
        ("STACYVM_BIN", "/x"),
        ("STACYVM_CACHE", "/x"),
        ("STACYVM_PORT", "tcp://10.0.0.1:7423"),
        ("STACYVM_PORT_7423_TCP_ADDR", "10.0.0.1"),
        ("STACYVM_SERVICE_HOST", "10.0.0.1"),
        ("UNRELATED", "1"),
    ];
    load("", &around).unwrap();
    let default = Node::default_of(serde_json::to_value(Config::default()).unwrap());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut texts = vec![std::fs::read_to_string(root.join("compose.yaml")).unwrap()];
    for entry in std::fs::read_dir(root.join("scripts")).unwrap() {
        texts.extend(std::fs::read_to_string(entry.unwrap().path()));
    }
    for text in texts {
        for word in text
            .split(|letter: char| !letter.is_ascii_uppercase() && letter != '_' && !letter.is_ascii_digit())
        {
            // The port of compose.yaml is one of the host; whoever gives it to a server means another.
            if word.starts_with("STACYVM_") && word.len() > 8 && word != "STACYVM_PORT" {
                let mut problems = Vec::new();
                let said = [(word.to_owned(), "1".to_owned())].into_iter();
                environment::read(&default, said, &Args::command(), &mut problems);
                assert_eq!(problems, [], "{word} is used by a script, and no server would start with it");
            }
        }
    }
}

#[test]
fn hosts_may_be_names() {
    for (yaml, address) in [
        ("server:\n  host: localhost\n", "127.0.0.1:7423"),
        ("server:\n  host: 0.0.0.0\n", "0.0.0.0:7423"),
        ("server:\n  host: \"::\"\n", "[::]:7423"),
        ("server:\n  host: \"[::1]\"\n", "[::1]:7423"),
        ("server:\n  host: \"\"\n", "0.0.0.0:7423"),
        ("listen: localhost:0\n", "127.0.0.1:0"),
        ("listen: :8080\n", "0.0.0.0:8080"),
        ("listen: \"[::1]:80\"\n", "[::1]:80"),
    ] {
        assert_eq!(load(yaml, &[]).unwrap().listen_address().unwrap().to_string(), address, "{yaml}");
    }
}

#[test]
fn one_of_a_few_words_is_read_from_files_and_variables() {
    let config =
        load("defaults:\n  network: bridge\n", &[("STACYVM_DEFAULTS_CAPABILITIES", "minimal")]).unwrap();
    assert_eq!(
        (config.defaults.network, config.defaults.capabilities),
        (Network::Bridge, CapabilitySet::Minimal)
    );
    let lines = wrong("defaults:\n  network: host\n", &[("STACYVM_DEFAULTS_CAPABILITIES", "all")]);
    for line in [
        "stacyvm.yaml:2:3: defaults.network: \"host\" is not none or bridge",
        "STACYVM_DEFAULTS_CAPABILITIES: defaults.capabilities: \"all\" is not standard or minimal",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line}\nis not in\n{lines:#?}");
    }
}

/// A file as the Go server has it, with all of its keys.
const GO: &str = include_str!("go_server.yaml");

#[test]
fn a_file_of_the_go_server_starts_this_one_and_says_what_became_of_each_key() {
    let config = load(GO, &[]).unwrap();
    assert_eq!(config.server.allowed_origins[0].0.to_string(), "https://console.example");
    assert_eq!((config.node.id.as_deref(), config.providers.default.as_deref()), (Some("worker-1"), None));
    assert_eq!((config.database.driver.as_str(), config.defaults.memory_mb), ("postgres", 1024));
    assert_eq!(config.providers.docker.bridge_network, "stacyvm-network");
    let said =
        |key: &str| config.remarks.iter().find(|remark| remark.contains(&format!(" {key}: "))).unwrap();
    assert!(
        said("server.cors_allowed_origins")
            .ends_with("is called server.allowed_origins here, and taken for it")
    );
    assert!(said("server.preview_domain").contains("serves no previews"), "{:#?}", config.remarks);
    assert!(said("rate_limit.burst").contains("has no effect"), "{:#?}", config.remarks);
    assert_eq!(config.limits, Config::default().limits, "a limit of 0 is none, and the rate is off");
    assert!(said("providers.docker.runtime").starts_with("stacyvm.yaml:"));
}

#[test]
fn the_limit_of_processes_is_a_default_of_all_providers_and_its_old_key_is_taken_for_it() {
    let config = load("providers:\n  docker:\n    pids_limit: 77\n", &[]).unwrap();
    assert_eq!(config.defaults.pids_limit, 77);
    let remark =
        "stacyvm.yaml:3:5: providers.docker.pids_limit: is called defaults.pids_limit here, and taken for it";
    assert_eq!(config.remarks, [remark]);
    let config = load("", &[("STACYVM_PROVIDERS_DOCKER_PIDS_LIMIT", "78")]).unwrap();
    assert_eq!(config.defaults.pids_limit, 78);
    // Where both are there, it is the new one that counts, and what is wrong is said of the key that it was said under.
    let both = "defaults:\n  pids_limit: 5\nproviders:\n  docker:\n    pids_limit: 77\n";
    assert_eq!(load(both, &[]).unwrap().defaults.pids_limit, 5);
    assert!(wrong("providers:\n  docker:\n    pids_limit: many\n", &[])[0].contains("pids_limit"));
}

#[test]
fn what_the_go_server_does_and_this_one_does_not_is_refused_all_at_once() {
    let yaml = "rate_limit:\n  enabled: true\n  key_by: moon\npool:\n  enabled: true\ndefaults:\n  pool_size: 3\n\
                providers:\n  docker:\n    runtime: runsc\n    network_mode: host\n";
    let lines = wrong(yaml, &[("STACYVM_PROVIDERS_DOCKER_ADDED_CAPS", "SYS_ADMIN")]);
    for key in [
        "rate_limit.key_by",
        "pool.enabled",
        "defaults.pool_size",
        "providers.docker.added_caps",
        "providers.docker.runtime",
        "providers.docker.network_mode",
    ] {
        let line = lines.iter().find(|line| line.contains(&format!(" {key}: "))).unwrap();
        assert!(line.contains("cannot be had here"), "{line}");
    }
    assert_eq!(lines.iter().filter(|line| line.contains("cannot be had here")).count(), 6, "{lines:#?}");
}

#[test]
fn limits_of_the_go_server_are_ours() {
    let yaml = "rate_limit:\n  enabled: true\n  requests_per_minute: 240\n  burst: 40\n  key_by: owner\n\
                defaults:\n  max_sandboxes: 100\n";
    let limits = load(yaml, &[("STACYVM_DEFAULTS_MAX_SANDBOXES_PER_OWNER", "5")]).unwrap().limits;
    assert_eq!((limits.sandboxes, limits.tenant.sandboxes_per_owner), (100, 5));
    let rate = &limits.rate;
    assert_eq!((rate.by, rate.requests_per_minute, rate.burst), (api_gateway::RateBy::Owner, 240, 40));
    // What is on and says no numbers has those of the Go server, and what is off has none.
    let rate = load("rate_limit:\n  enabled: true\n", &[]).unwrap().limits.rate;
    assert_eq!((rate.requests_per_minute, rate.burst), (120, 30));
    let off = load("rate_limit:\n  enabled: false\n  requests_per_minute: 5\n", &[]).unwrap();
    assert_eq!(off.limits.rate.requests_per_minute, 0);
    assert!(off.remarks.iter().any(|remark| remark.contains("while rate_limit.enabled is not true")));
}

#[test]
fn the_store_of_artifacts_is_checked_and_its_secret_is_not_shown() {
    let s3 = "artifacts:\n  store: s3\n  bucket: jobs\n  access_key: public\n  secret_key: hunter2\n";
    let settings = |yaml: &str| load(yaml, &[]).unwrap().artifacts.settings(Path::new("/data"));
    let config = load(s3, &[("STACYVM_ARTIFACTS_MAX_ARTIFACT", "2m")]).unwrap();
    let (opened, idle) = config.artifacts.settings(Path::new("/data")).unwrap();
    assert_eq!((opened.limits.object_bytes, idle), (2 << 20, vec![]));
    assert!(!format!("{config:?} {opened:?}").contains("hunter2"));
    let (local, idle) = settings("artifacts:\n  bucket: jobs\n").unwrap();
    assert!(matches!(local.backend, objects::Backend::Local(dir) if dir == Path::new("/data/artifacts")));
    assert_eq!(idle, ["artifacts.bucket"]);
    for (yaml, key) in [
        ("artifacts:\n  store: gcs\n", "artifacts.store: \"gcs\" is neither"),
        ("artifacts:\n  prefix: ../x\n", "artifacts.prefix: must be names"),
        ("artifacts:\n  region: ''\n", "artifacts.region: must not"),
        ("artifacts:\n  max_artifact: 6g\n", "artifacts.max_artifact: must be"),
        ("artifacts:\n  max_count: 0\n", "artifacts.max_count: must be"),
        ("artifacts:\n  secret: x\n", "artifacts.secret: there is no such key"),
    ] {
        let lines = wrong(yaml, &[]);
        assert!(lines.len() == 1 && lines[0].contains(key), "{lines:?}");
    }
    for (yaml, key) in [
        (format!("{s3}  endpoint: http://127.0.0.1:9000\n"), "artifacts.endpoint: is http://"),
        (format!("{s3}  endpoint: ftp://x\n"), "artifacts.endpoint: must begin"),
        (format!("{s3}  secret_key_file: /x\n"), "artifacts.secret_key_file: artifacts.secret_key is there"),
        (s3.replace("bucket: jobs", "bucket: Jobs!"), "artifacts.bucket: must name"),
        (s3.replace("access_key: public", "access_key:"), "artifacts.access_key: is not set"),
        (s3.replace("secret_key: hunter2", "secret_key:"), "artifacts.secret_key: neither"),
        (
            s3.replace("secret_key: hunter2", "secret_key_file: /no/file"),
            "artifacts.secret_key_file: /no/file cannot",
        ),
    ] {
        let error = settings(&yaml).unwrap_err().to_string();
        assert!(error.starts_with(key) && !error.contains("hunter2"), "{yaml}: {error}");
    }
}
