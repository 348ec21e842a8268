//! Names that become parts of subjects: none may reach into another's.

use events::{
    Actor, ApiKeyId, ChainHash, CommandId, EventId, ExecId, JobId, NodeId, PoolName, RequestId, SandboxId,
    Subjects, TenantId, WebhookId,
};
use secrets::WebhookSecret;

/// One text, read as each kind of name.
pub fn subjects(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let subjects = Subjects::new(&TenantId::default_tenant());
    if let Ok(tenant) = text.parse::<TenantId>() {
        token(&subjects.event(&tenant, None, "exec"), 5, text);
        token(&Subjects::new(&tenant).spawn(&pool()), 4, text);
    }
    if let Ok(node) = text.parse::<NodeId>() {
        token(&subjects.node_command(&node, "destroy"), 5, text);
        token(&subjects.link(&node), 3, text);
        token(&subjects.heartbeat(&node), 3, text);
    }
    if let Ok(provider) = text.parse::<PoolName>() {
        token(&subjects.spawn(&provider), 4, text);
    }
    if let Ok(sandbox) = text.parse::<SandboxId>() {
        token(&subjects.event(&TenantId::system(), Some(sandbox), "exec"), 5, text);
    }
    if let Ok(event) = text.parse::<EventId>() {
        token(&subjects.spent_of(event), 3, text);
    }
    if let Ok(job) = text.parse::<JobId>() {
        token(&subjects.sealed_of(job), 3, text);
    }
    same::<ExecId>(text);
    same::<CommandId>(text);
    same::<WebhookId>(text);
    same::<ApiKeyId>(text);
    same::<ChainHash>(text);
    if let Ok(actor) = text.parse::<Actor>() {
        assert_eq!(actor.to_string().parse::<Actor>(), Ok(actor));
    }
    if let Ok(request) = RequestId::try_from(text.to_owned()) {
        assert!(request.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
    }
    if let Ok(secret) = text.parse::<WebhookSecret>() {
        assert!(secret.reveal().parse::<WebhookSecret>().is_ok());
    }
}

fn pool() -> PoolName {
    match "docker".parse() {
        Ok(name) => name,
        Err(error) => panic!("{error}"),
    }
}

/// It has so many tokens and no wildcard, and the name is one of them as it came.
fn token(subject: &str, count: usize, name: &str) {
    let tokens: Vec<&str> = subject.split('.').collect();
    assert_eq!(tokens.len(), count, "{subject}");
    assert!(tokens.iter().all(|token| !token.is_empty()), "{subject}");
    assert!(
        !subject.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>'),
        "{subject}"
    );
    assert!(tokens.contains(&name), "{subject} is not about {name}");
}

/// Only one text is the name of one thing.
fn same<T: std::str::FromStr + ToString>(text: &str) {
    if let Ok(id) = text.parse::<T>() {
        assert!(id.to_string().eq_ignore_ascii_case(text), "{text} is also {}", id.to_string());
    }
}
