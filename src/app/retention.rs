//! What the rules of `storage.retention.rules` select.

use anyhow::Context;

use crate::{
    config::{RetentionRule, Storage},
    promql::parse::parse_selector,
    storage::embedded::KeepRule,
};

/// The rules of retention as our own engine has them; an error says which one's selector is none.
pub(super) fn rules(config: &Storage) -> anyhow::Result<Vec<KeepRule>> {
    let rule = |(i, rule): (usize, &RetentionRule)| {
        let matchers = parse_selector(&rule.selector)
            .with_context(|| format!("storage.retention.rules: the selector of rule {}", i + 1))?;
        Ok(KeepRule { tenant: rule.tenant.clone(), matchers, keep: rule.keep })
    };
    config.retention_rules.iter().enumerate().map(rule).collect()
}

/// Tells what is wrong with the rules' selectors.
pub fn check(config: &Storage) -> anyhow::Result<()> {
    rules(config).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigFile, Sources};

    #[test]
    fn a_selector_that_is_none_is_told() {
        let check = |selector: &str| {
            let yaml = format!("storage: {{retention: {{rules: [{{selector: '{selector}', keep: 1d}}]}}}}");
            let file = ConfigFile::parse("luminate.yaml", &yaml).unwrap();
            let (config, _) = Config::check(&Sources { file, ..Sources::none() }).unwrap();
            rules(&config.storage).map_err(|e| format!("{e:#}"))
        };
        assert_eq!(check("up{job=\"a\"}").unwrap()[0].matchers.len(), 2);
        let error = check("up{job=").unwrap_err();
        assert!(error.starts_with("storage.retention.rules: the selector of rule 1: "), "{error}");
        assert!(check("rate(up[5m])").is_err());
    }
}
