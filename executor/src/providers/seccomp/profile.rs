use serde_json::{Value, json};

use super::syscalls::{
    ALLOWED, AUDIT, CLONE, CLONE3, FAMILIES, IO_SETUP, NAMESPACE_FLAGS, PERSONALITIES, PERSONALITY, SOCKET,
    Syscall, name,
};

/// The profile in the Docker engine's form.
pub(crate) fn profile() -> String {
    let names: Vec<_> = ALLOWED.iter().map(|syscall| name(*syscall)).collect();
    let mut rules = vec![json!({ "names": names, "action": "SCMP_ACT_ALLOW" })];
    rules.extend(
        FAMILIES
            .iter()
            .filter(|family| **family != libc::AF_NETLINK)
            .map(|family| first_argument_is(SOCKET, *family as u32)),
    );
    rules.extend(netlink());
    rules.extend(PERSONALITIES.map(|domain| first_argument_is(PERSONALITY, domain)));
    rules.push(json!({
        "names": [name(CLONE)],
        "action": "SCMP_ACT_ALLOW",
        "args": [{ "index": 0, "value": NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }],
    }));
    rules.push(json!({ "names": [name(CLONE3), name(IO_SETUP)], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS }));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        // No sub-architectures: a call of another ABI ends the process.
        "architectures": [ARCHITECTURE],
        "syscalls": rules,
    })
    .to_string()
}

/// Netlink, but for audit.
fn netlink() -> [Value; 2] {
    let rule = |action: &str, comparison: &str| {
        json!({
            "names": [name(SOCKET)],
            "action": action,
            "args": [
                { "index": 0, "value": libc::AF_NETLINK, "op": "SCMP_CMP_EQ" },
                { "index": 2, "value": AUDIT, "op": comparison },
            ],
        })
    };
    let mut refused = rule("SCMP_ACT_ERRNO", "SCMP_CMP_EQ");
    refused["errnoRet"] = json!(libc::EPROTONOSUPPORT);
    [rule("SCMP_ACT_ALLOW", "SCMP_CMP_NE"), refused]
}

const ARCHITECTURE: &str = "SCMP_ARCH_X86_64";

fn first_argument_is(syscall: Syscall, value: u32) -> Value {
    json!({
        "names": [name(syscall)],
        "action": "SCMP_ACT_ALLOW",
        "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_is_an_allow_list() {
        let profile: Value = serde_json::from_str(&profile()).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        for rule in profile["syscalls"].as_array().unwrap() {
            let special = rule["errnoRet"] != Value::Null;
            assert_eq!(rule["action"] == "SCMP_ACT_ALLOW", !special, "{rule}");
        }
    }
}
