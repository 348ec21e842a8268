//! Keys of the Go server's `stacyvm.yaml` that are none of ours, and what becomes of each.
//!
//! What means the same is taken. What changes nothing here is named in the log. What asks for something that this server
//! does not do stops the start: nobody should believe in a limit that nobody keeps.

use super::tree::{Node, Origin, Problem, Value};

/// What becomes of a key.
enum Fate {
    /// It is ours under this name.
    Is(&'static str),
    /// It has no effect here.
    Idle(&'static str),
    /// It has none as long as its value is one of these; any other asks for something that there is not.
    Only(&'static [&'static str], &'static str),
    /// The network of sandboxes: two keys of ours.
    Network,
    /// It is ours under this name while `rate_limit.enabled` is true.
    Rate(&'static str),
    /// By what requests are told apart.
    RateKey,
}

use Fate::{Idle, Is, Network, Only, Rate, RateKey};

const OFF: &[&str] = &["", "false", "0"];
const PROVIDERS: &str = "this server has the providers docker and bubblewrap";
const WORKERS: &str = "executors need no address and no port: they take their work from NATS (nats.url)";
const POOL: &str = "there are no machines that users share: each sandbox is one of its own";
const PREVIEWS: &str = "this version serves no previews";
const QUEUE: &str = "a spawn waits for a node with room";
const RATE: &str = "limits.rate says how often clients may ask, and limits.tenant how often each tenant";
const RATE_BY: &str = "limits.rate.by";
/// By what the Go server tells clients apart, and we.
const RATE_KEYS: [(&str, &str); 4] = [("", "key"), ("ip", "address"), ("api_key", "key"), ("owner", "owner")];
/// Those of the Go server, where it is on and says no others.
const RATES: [(&str, i64); 2] = [("limits.rate.requests_per_minute", 120), ("limits.rate.burst", 30)];

const FATES: &[(&str, Fate)] = &[
    ("server.cors_allowed_origins", Is("server.allowed_origins")),
    ("worker.id", Is("node.id")),
    ("worker.control_plane_url", Idle(WORKERS)),
    ("worker.listen_addr", Idle(WORKERS)),
    ("server.preview_domain", Idle(PREVIEWS)),
    ("worker.preview_domain", Idle(PREVIEWS)),
    ("worker.heartbeat_interval", Idle(WORKERS)),
    ("worker.shutdown_timeout", Idle("an executor that stops leaves its sandboxes running")),
    ("providers.mock", Idle(PROVIDERS)),
    ("providers.firecracker", Idle(PROVIDERS)),
    ("providers.e2b", Idle(PROVIDERS)),
    ("providers.custom", Idle(PROVIDERS)),
    ("providers.proot", Idle(PROVIDERS)),
    (
        "providers.docker.runtime",
        Only(
            &["", "runc"],
            "list it in providers.docker.runtimes: sandboxes that name no runtime get the first of that list",
        ),
    ),
    // Ours before it was that of all providers.
    ("providers.docker.pids_limit", Is("defaults.pids_limit")),
    ("providers.docker.default_image", Idle("defaults.image is the image of sandboxes that name none")),
    ("providers.docker.network_mode", Network),
    (
        "providers.docker.read_only_rootfs",
        Only(OFF, "a spawn or a template asks for it with `read_only_root`"),
    ),
    ("providers.docker.memory", Idle("defaults.memory_mb is the limit of sandboxes that name none")),
    ("providers.docker.cpus", Idle("defaults.vcpus is the limit of sandboxes that name none")),
    ("providers.docker.user", Only(OFF, "an exec names its `user`")),
    ("providers.docker.dropped_caps", Idle("which capabilities a sandbox has is in docs/providers.md")),
    ("providers.docker.added_caps", Only(OFF, "capabilities cannot be added by configuration")),
    ("providers.docker.tmpfs", Idle("a sandbox has the mounts that docs/providers.md lists")),
    ("providers.docker.pool_security", Idle(POOL)),
    ("defaults.disk_size_mb", Idle("the size of a sandbox's disk is the engine's matter")),
    ("defaults.pool_size", Only(OFF, "there are no warm sandboxes kept ready: set it to 0")),
    ("defaults.pool_template", Idle("there are no warm sandboxes kept ready")),
    ("defaults.max_sandboxes", Is("limits.sandboxes")),
    ("defaults.max_sandboxes_per_owner", Is("limits.tenant.sandboxes_per_owner")),
    ("defaults.spawn_overflow", Idle(QUEUE)),
    ("defaults.spawn_queue_timeout", Is("defaults.max_queue_wait")),
    ("defaults.max_spawn_queue", Idle(QUEUE)),
    ("auth.worker_token", Idle("executors show NATS who they are (nats.user, nats.password)")),
    (
        "auth.admin_fallback_enabled",
        Idle("only auth.admin_api_key and keys with `admin: true` are the operator's"),
    ),
    ("auth.admin_audit_retention", Idle("the audit trail is the log, which retention.lifecycle keeps")),
    ("rate_limit.enabled", Idle(RATE)),
    ("rate_limit.requests_per_minute", Rate("limits.rate.requests_per_minute")),
    ("rate_limit.burst", Rate("limits.rate.burst")),
    ("rate_limit.key_by", RateKey),
    ("rate_limit.bucket_ttl", Idle(RATE)),
    ("rate_limit.cleanup_interval", Idle(RATE)),
    ("pool.enabled", Only(OFF, POOL)),
    ("pool.max_vms", Idle(POOL)),
    ("pool.max_users_per_vm", Idle(POOL)),
    ("pool.image", Idle(POOL)),
    ("pool.memory_mb", Idle(POOL)),
    ("pool.vcpus", Idle(POOL)),
    ("pool.overflow", Idle(POOL)),
];

/// All of them.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    FATES.iter().map(|(key, _)| *key)
}

/// Takes them out of what was said, and puts what means the same where it belongs. `default` is what there is a place for;
/// `remarks` gets what has no effect, `problems` what there is not.
pub(super) fn adopt(
    said: &mut Node,
    default: &Node,
    remarks: &mut Vec<Problem>,
    problems: &mut Vec<Problem>,
) {
    let rated = said.get("rate_limit.enabled").is_some_and(|node| words(&node.value) == "true");
    for (key, fate) in FATES {
        // A key that has become ours is none of these any more.
        if default.get(key).is_some() {
            continue;
        }
        let Some(node) = said.take(key) else { continue };
        let value = words(&node.value);
        let about = |what: String| Problem { origin: node.origin.clone(), key: (*key).to_owned(), what };
        match fate {
            Is(ours) if value.is_empty() || said.get(ours).is_some() => {
                remarks.push(about(format!("is called {ours} here, which counts")));
            }
            Is(ours) => {
                remarks.push(about(format!("is called {ours} here, and taken for it")));
                said.set(ours, node.clone());
            }
            Rate(_) if !rated => {
                remarks.push(about("has no effect while rate_limit.enabled is not true".to_owned()))
            }
            Rate(ours) if value.is_empty() || said.get(ours).is_some() => {
                remarks.push(about(format!("is called {ours} here, which counts")));
            }
            Rate(ours) => {
                remarks.push(about(format!("is called {ours} here, and taken for it")));
                said.set(ours, node.clone());
            }
            RateKey if !rated => {
                remarks.push(about("has no effect while rate_limit.enabled is not true".to_owned()))
            }
            RateKey => match RATE_KEYS.iter().find(|(theirs, _)| *theirs == value) {
                Some((_, ours)) => {
                    remarks.push(about(format!("is called {RATE_BY} here: {ours}")));
                    if said.get(RATE_BY).is_none() {
                        said.set(RATE_BY, Node::text(node.origin.clone(), *ours));
                    }
                }
                None => {
                    problems.push(about(format!("{value:?} cannot be had here: it is ip, api_key or owner")))
                }
            },
            Idle(why) => remarks.push(about(format!("has no effect: {why}"))),
            Only(inert, why) if inert.contains(&value.as_str()) => {
                remarks.push(about(format!("has no effect, as it is: {why}")));
            }
            Only(_, why) => problems.push(about(format!("{value:?} cannot be had here: {why}"))),
            Network => network(said, default, &node, &value, &about, remarks, problems),
        }
    }
    if rated {
        for (ours, theirs) in RATES {
            if said.get(ours).is_none() {
                let origin = Origin::Default;
                said.set(ours, Node { origin, value: Value::Whole(theirs) });
                remarks.push(Problem {
                    origin: Origin::Default,
                    key: "rate_limit.enabled".to_owned(),
                    what: format!("{ours} is {theirs}, as in the Go server"),
                });
            }
        }
    }
    // A section of which nothing is left was one of theirs.
    for section in ["worker", "rate_limit", "pool"] {
        if default.get(section).is_none()
            && said.get(section).is_some_and(|node| words(&node.value).is_empty())
        {
            said.take(section);
        }
    }
}

fn network(
    said: &mut Node,
    default: &Node,
    node: &Node,
    value: &str,
    about: &dyn Fn(String) -> Problem,
    remarks: &mut Vec<Problem>,
    problems: &mut Vec<Problem>,
) {
    const DEFAULT: &str = "defaults.network";
    const BRIDGE: &str = "providers.docker.bridge_network";
    if value == "host" || value.starts_with("container:") {
        problems.push(about(format!("{value:?} cannot be had here: a sandbox has no network or a bridge")));
        return;
    }
    let network = if value.is_empty() || value == "none" { "none" } else { "bridge" };
    if network == "bridge" && value != "bridge" && said.get(BRIDGE).is_none() {
        said.set(BRIDGE, node.clone());
        remarks.push(about(format!("taken for {BRIDGE}")));
    }
    if default.get(DEFAULT).is_some() {
        if said.get(DEFAULT).is_none() {
            said.set(DEFAULT, Node::text(node.origin.clone(), network));
        }
        remarks.push(about(format!("is called {DEFAULT} here: {network}")));
    } else {
        remarks.push(about(
            "has no effect on sandboxes that do not ask: a spawn says `network`, none or bridge".to_owned(),
        ));
    }
}

/// A value as one word: empty for what says nothing.
fn words(value: &Value) -> String {
    match value {
        Value::Nothing => String::new(),
        Value::Flag(flag) => flag.to_string(),
        Value::Whole(number) => number.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Text(text) => text.trim().to_owned(),
        Value::List(items) => items.iter().map(|item| words(&item.value)).collect::<Vec<_>>().join(", "),
        Value::Section(entries) => entries
            .iter()
            .filter(|(_, node)| !words(&node.value).is_empty())
            .map(|(name, _)| name.as_str())
            .collect(),
    }
}
