//! Every environment variable of the server, declared once.

use figment::Figment;
use figment::value::Value;

/// Name, key, and what it is for.
pub const VARIABLES: &[(&str, &str, &str)] = &[
    ("STACYVM_LISTEN", "listen", "address and port of the gateway"),
    ("STACYVM_SERVER_HOST", "server.host", "address of the gateway, where `listen` is not given"),
    ("STACYVM_SERVER_PORT", "server.port", "port of the gateway, where `listen` is not given"),
    ("STACYVM_SERVER_PREVIEW_DOMAIN", "server.preview_domain", "domain of preview URLs"),
    ("STACYVM_SERVER_SLOW_READER_LIMIT", "server.slow_reader_limit", "how long a client may not read"),
    ("STACYVM_DATA_DIR", "data_dir", "where state lives"),
    ("STACYVM_NODE", "node.id", "name of this node"),
    ("STACYVM_NODE_CAPACITY", "node.capacity", "how many sandboxes this node takes"),
    ("STACYVM_AGENT", "agent", "path of the static agent binary"),
    ("STACYVM_API_KEY", "auth.api_key", "a key that clients may present"),
    ("STACYVM_AUTH_API_KEY", "auth.api_key", "the same"),
    ("STACYVM_AUTH_ADMIN_API_KEY", "auth.admin_api_key", "a key for X-Admin-API-Key"),
    ("STACYVM_NATS_URL", "nats.url", "NATS to use instead of an own one"),
    ("STACYVM_NATS_USER", "nats.user", "user for NATS"),
    ("STACYVM_NATS_PASSWORD", "nats.password", "password for NATS"),
    ("STACYVM_NATS_PREFIX", "nats.prefix", "what subjects and streams start with"),
    ("STACYVM_NATS_SERVER", "nats.server_path", "path of the nats-server binary that `serve` starts"),
    ("STACYVM_DATABASE_URL", "database.url", "sqlite:PATH or postgres://..."),
    ("STACYVM_DATABASE_DRIVER", "database.driver", "sqlite or postgres"),
    ("STACYVM_DATABASE_PATH", "database.path", "file of the SQLite database"),
    ("STACYVM_DATABASE_DSN", "database.dsn", "URL of the Postgres database"),
    ("STACYVM_PROVIDERS_DEFAULT", "providers.default", "box-maker of sandboxes that name none"),
    ("STACYVM_PROVIDERS_DOCKER_ENABLED", "providers.docker.enabled", "whether the Docker provider is on"),
    ("STACYVM_PROVIDERS_DOCKER_SOCKET", "providers.docker.socket", "socket of the Docker engine"),
    (
        "STACYVM_PROVIDERS_DOCKER_IMAGE_ALIASES",
        "providers.docker.image_aliases",
        "images that stand for others, as NAME=IMAGE, separated by commas",
    ),
    (
        "STACYVM_PROVIDERS_BUBBLEWRAP_ENABLED",
        "providers.bubblewrap.enabled",
        "whether the bubblewrap provider is on",
    ),
    ("STACYVM_DEFAULTS_TTL", "defaults.ttl", "time to live of sandboxes that name none"),
    ("STACYVM_DEFAULTS_IMAGE", "defaults.image", "image of sandboxes that name none"),
    ("STACYVM_DEFAULTS_MAX_TTL", "defaults.max_ttl", "greatest time to live"),
    ("STACYVM_DEFAULTS_MAX_QUEUE_WAIT", "defaults.max_queue_wait", "how long a spawn may wait for room"),
    ("STACYVM_SECRETS_KEY_FILE", "secrets.key_file", "file of the master key"),
    ("STACYVM_SECRETS_KEY", "secrets.key", "the master key itself"),
    ("STACYVM_ENCRYPTION_ENABLED", "encryption.enabled", "whether output is kept under a key of its sandbox"),
    ("STACYVM_AUDIT_KEY_FILE", "audit.key_file", "file of the key that signs checkpoints"),
    ("STACYVM_AUDIT_PUBLIC_KEY_FILE", "audit.public_key_file", "keys that checkpoints may be signed with"),
    ("STACYVM_AUDIT_CHECKPOINT_FILE", "audit.checkpoint_file", "where checkpoints are written"),
    ("STACYVM_AUDIT_CHECKPOINT_EVENTS", "audit.checkpoint_events", "events between two checkpoints"),
    ("STACYVM_AUDIT_CHECKPOINT_INTERVAL", "audit.checkpoint_interval", "time between two checkpoints"),
    ("STACYVM_AUDIT_MAX_LAG", "audit.max_lag", "how far the recorder may be behind"),
    ("STACYVM_RETENTION_OUTPUT", "retention.output", "how long output is kept"),
    ("STACYVM_RETENTION_LIFECYCLE", "retention.lifecycle", "how long events are kept"),
    ("STACYVM_WEBHOOKS_ALLOW_HTTP", "webhooks.allow_http", "whether webhooks may have http:// URLs"),
    (
        "STACYVM_WEBHOOKS_ALLOW_NETWORKS",
        "webhooks.allow_networks",
        "networks that webhooks may call though they are not public, separated by commas",
    ),
    (
        "STACYVM_WEBHOOKS_GIVE_UP_AFTER",
        "webhooks.give_up_after",
        "how long one event is tried before its webhook is suspended",
    ),
    ("STACYVM_LOGGING_LEVEL", "logging.level", "least important log lines to show"),
    ("STACYVM_LOGGING_FORMAT", "logging.format", "text or json"),
];

/// Puts what the environment says over what is there.
pub fn merge(mut figment: Figment, read: impl Fn(&str) -> Option<String>) -> anyhow::Result<Figment> {
    for (name, key, _) in VARIABLES {
        if let Some(text) = read(name).filter(|text| !text.is_empty()) {
            figment = figment.merge((*key, value(key, &text)));
        }
    }
    Ok(figment)
}

/// The keys that are numbers or truth values. All others are text, also where they look like a number: a password may.
const NUMBERS: &[&str] = &["server.port", "node.capacity", "audit.checkpoint_events"];
const FLAGS: &[&str] = &[
    "providers.docker.enabled",
    "providers.bubblewrap.enabled",
    "encryption.enabled",
    "webhooks.allow_http",
];
/// The keys that are lists, in the environment separated by commas.
const LISTS: &[&str] = &["webhooks.allow_networks", "providers.docker.image_aliases"];

fn value(key: &str, text: &str) -> Value {
    match (text.parse::<u32>(), text) {
        (Ok(number), _) if NUMBERS.contains(&key) => Value::from(number),
        (_, "true") if FLAGS.contains(&key) => Value::from(true),
        _ if LISTS.contains(&key) => {
            Value::from(text.split(',').map(|item| item.trim().to_owned()).collect::<Vec<String>>())
        }
        (_, "false") if FLAGS.contains(&key) => Value::from(false),
        _ => Value::from(text.to_owned()),
    }
}
