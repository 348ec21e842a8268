//! What must not be told: the master key and what is sealed under it, secrets that deliveries are signed with, and the masking
//! of secrets in what is recorded.
//!
//! It keeps nothing and sends nothing; it knows neither the transport nor the store.

mod master_key;
mod redaction;
mod webhook_secret;

pub use master_key::{MasterKey, MasterKeyError, SealError, decrypt, encrypt, random};
pub use redaction::{
    MAX_SECRETS, MAX_SECRETS_BYTES, MIN_SECRET_BYTES, Redaction, RedactionRuleError, RedactionRules,
    RedactionStream,
};
pub use webhook_secret::{SecretFormatError, WebhookSecret};
