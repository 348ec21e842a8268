//! Environment variables of a request: plain ones, and those that are marked as secrets.

use std::collections::BTreeMap;

use events::{SecretMap, TenantId};
use secrets::{MAX_SECRETS, MAX_SECRETS_BYTES, MIN_SECRET_BYTES, MasterKey};

use crate::error::ApiError;

/// The most arguments, and the most environment variables.
pub(crate) const MAX_ENTRIES: usize = 4096;
/// Linux takes no longer argument or variable (MAX_ARG_STRLEN), the closing NUL included.
pub(crate) const MAX_ARG_BYTES: usize = 128 << 10;

/// All variables, and which of them are secrets. Shows no value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Variables {
    /// Names and values.
    pub env: SecretMap,
    /// The secret ones, in order.
    pub secret_names: Vec<String>,
}

impl Variables {
    /// Reads the `env` and `secrets` of a request.
    pub fn read(
        env: Option<BTreeMap<String, String>>,
        secrets: Option<BTreeMap<String, String>>,
    ) -> Result<Self, ApiError> {
        let (mut all, secrets) = (env.unwrap_or_default(), secrets.unwrap_or_default());
        let secret_names: Vec<String> = secrets.keys().cloned().collect();
        for (name, value) in secrets {
            if value.len() < MIN_SECRET_BYTES {
                return Err(ApiError::bad_request(format!(
                    "a secret must have at least {MIN_SECRET_BYTES} bytes: a shorter value could not be told from other text"
                )));
            }
            if all.insert(name, value).is_some() {
                return Err(ApiError::bad_request("env and secrets must not have the same name"));
            }
        }
        check_env(&all)?;
        let read = Self { env: SecretMap(all), secret_names };
        read.check()?;
        Ok(read)
    }

    /// These over others.
    pub fn over(self, mut under: Self) -> Result<Self, ApiError> {
        under.secret_names.retain(|name| !self.env.0.contains_key(name));
        under.secret_names.extend(self.secret_names);
        under.secret_names.sort_unstable();
        under.env.0.extend(self.env.0);
        check_env(&under.env.0)?;
        under.check()?;
        Ok(under)
    }

    /// The values of the secrets.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.env.of(&self.secret_names)
    }

    fn check(&self) -> Result<(), ApiError> {
        let bytes: usize = self.secrets().map(str::len).sum();
        if self.secret_names.len() > MAX_SECRETS || bytes > MAX_SECRETS_BYTES {
            return Err(ApiError::bad_request(format!(
                "secrets must be at most {MAX_SECRETS} entries of together {MAX_SECRETS_BYTES} bytes"
            )));
        }
        Ok(())
    }
}

/// Names without `=`, nothing with NUL.
pub fn check_env(env: &BTreeMap<String, String>) -> Result<(), ApiError> {
    if env.len() > MAX_ENTRIES {
        return Err(ApiError::bad_request(format!("env has more than {MAX_ENTRIES} entries")));
    }
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(ApiError::bad_request(
                "env needs names that are not empty and hold no '=', and nothing may contain NUL characters",
            ));
        }
        if name.len() + value.len() + 2 > MAX_ARG_BYTES {
            return Err(ApiError::bad_request(format!(
                "Linux takes no environment variable of {MAX_ARG_BYTES} bytes or more"
            )));
        }
    }
    Ok(())
}

/// Keyed fingerprints of the values. Another tenant has another one for the same value: nobody can compare.
pub fn fingerprints(key: &MasterKey, tenant: &TenantId, env: &SecretMap) -> BTreeMap<String, String> {
    let purpose = format!("env/{tenant}");
    env.0.iter().map(|(name, value)| (name.clone(), key.fingerprint(&purpose, value.as_bytes()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    fn map(entries: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
        Some(entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_last_word_decides_what_is_secret() {
        let under =
            Variables::read(map(&[("A", "plain")]), map(&[("B", "secret-b"), ("C", "secret-c")])).unwrap();
        let over = Variables::read(map(&[("B", "plain")]), map(&[("A", "secret-a")])).unwrap();
        let all = over.over(under).unwrap();
        assert_eq!(all.secret_names, ["A", "C"]);
        assert_eq!(all.secrets().collect::<Vec<_>>(), ["secret-a", "secret-c"]);
        assert_eq!(all.env.names(), ["A", "B", "C"]);
        assert!(!format!("{all:?}").contains("secret-"));
    }

    #[test]
    fn what_cannot_be_masked_is_refused() {
        let long = "x".repeat(MAX_SECRETS_BYTES + 1);
        for (env, secrets) in [
            (None, map(&[("A", "abc")])),
            (map(&[("A", "plain")]), map(&[("A", "secret")])),
            (None, map(&[("A=", "secret")])),
            (None, map(&[("A", &long)])),
        ] {
            assert_eq!(Variables::read(env, secrets).unwrap_err().code(), ErrorCode::BadRequest);
        }
        let many: BTreeMap<_, _> =
            (0..=MAX_SECRETS).map(|n| (format!("S{n}"), "secret".to_owned())).collect();
        assert_eq!(Variables::read(None, Some(many)).unwrap_err().code(), ErrorCode::BadRequest);
    }

    #[test]
    fn tenants_cannot_compare_fingerprints() {
        let key = MasterKey::from_bytes([1; 32]);
        let env = Variables::read(map(&[("A", "same"), ("B", "same"), ("C", "other")]), None).unwrap().env;
        let red = fingerprints(&key, &"red".parse().unwrap(), &env);
        let blue = fingerprints(&key, &"blue".parse().unwrap(), &env);
        assert_eq!(red["A"], red["B"]);
        assert_ne!(red["A"], red["C"]);
        assert_ne!(red["A"], blue["A"]);
    }
}
