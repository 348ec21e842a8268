use super::*;

fn with(yaml: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let figment = Figment::from(Serialized::defaults(Config::default())).merge(Yaml::string(yaml));
    let figment = environment::merge(figment, |name| {
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
    .unwrap();
    figment.extract::<Config>().map_err(|error| error.to_string())
}

#[test]
fn the_file_is_over_the_defaults_and_the_environment_over_the_file() {
    let config =
        with("server:\n  port: 8000\ndefaults:\n  ttl: 1h\n", &[("STACYVM_SERVER_PORT", "9000")]).unwrap();
    assert_eq!(config.server.port, 9000);
    assert_eq!(config.defaults.ttl.0.as_secs(), 3600);
    assert_eq!(config.defaults.image, "alpine:latest");
}

#[test]
fn a_wrong_key_is_named() {
    let error = with("server:\n  prot: 8000\n", &[]).unwrap_err();
    assert!(error.contains("prot") && error.contains("server"), "{error}");
}

#[test]
fn a_wrong_value_is_named() {
    let error = with("defaults:\n  ttl: 1d\n", &[]).unwrap_err();
    assert!(error.contains("1d") && error.contains("ttl"), "{error}");
    let error = with("", &[("STACYVM_SERVER_PORT", "many")]).unwrap_err();
    assert!(error.contains("port"), "{error}");
}

#[test]
fn a_key_that_looks_like_a_number_is_a_key() {
    let config = with("", &[("STACYVM_API_KEY", "12345")]).unwrap();
    assert_eq!(config.auth.api_key.unwrap().text(), "12345");
}

#[test]
fn text_may_consist_of_digits() {
    let config = with("", &[("STACYVM_NATS_PASSWORD", "12345"), ("STACYVM_NODE", "7")]).unwrap();
    assert_eq!(config.nats.password.as_deref(), Some("12345"));
    assert_eq!(config.node.id.as_deref(), Some("7"));
}

#[test]
fn a_level_that_is_none_is_refused() {
    let config = with("logging:\n  level: loud\n", &[]).unwrap();
    assert!(config.check().unwrap_err().to_string().contains("loud"));
}

#[test]
fn a_printed_configuration_shows_no_key() {
    let config = with("auth:\n  api_key: secret-key\n", &[]).unwrap();
    assert!(!format!("{config:?}").contains("secret-key"));
}

#[test]
fn every_variable_is_declared_once_and_has_a_key() {
    let mut names: Vec<_> = environment::VARIABLES.iter().map(|(name, _, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), environment::VARIABLES.len());
    let value = serde_json::to_value(Config::default()).unwrap();
    for (name, key, _) in environment::VARIABLES {
        let mut at = &value;
        for part in key.split('.') {
            at = at.get(part).unwrap_or_else(|| panic!("{name}: there is no key {key}"));
        }
    }
}
