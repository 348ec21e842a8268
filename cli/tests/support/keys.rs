use reqwest::header::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

/// The keys of a server: each with its tenant, and whether it is an operator's. Its id is `TENANT-key`.
pub fn config(keys: &[(&str, &str, bool)]) -> String {
    let mut yaml = "auth:\n  keys:\n".to_owned();
    for (tenant, key, admin) in keys {
        let digest = hex::encode(Sha256::digest(key.as_bytes()));
        yaml +=
            &format!("    - {{ id: {tenant}-key, tenant: {tenant}, sha256: {digest}, admin: {admin} }}\n");
    }
    yaml
}

/// What every request of a client with this key says.
pub fn headers(key: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", HeaderValue::from_static(key));
    headers
}
