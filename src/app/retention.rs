//! What the rules of `storage.retention.rules` and `storage.downsampling` select.

use anyhow::{Context, anyhow};

use crate::{
    config::{Downsampling, RetentionRule, Storage},
    promql::parse::parse_selector,
    storage::embedded::{DownsampleRule, KeepRule},
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

/// The rules of downsampling, likewise.
pub(super) fn downsampling(config: &Storage) -> anyhow::Result<Vec<DownsampleRule>> {
    let rule = |(i, rule): (usize, &Downsampling)| {
        let matchers = match &rule.selector {
            Some(selector) => parse_selector(selector)
                .with_context(|| format!("storage.downsampling: the selector of rule {}", i + 1))?,
            None => Vec::new(),
        };
        let Downsampling { tenant, after, resolution, .. } = rule;
        let (tenant, after, resolution) = (tenant.clone(), *after, *resolution);
        Ok(DownsampleRule { tenant, matchers, after, resolution })
    };
    let rules = config.downsampling.iter().enumerate().map(rule).collect::<anyhow::Result<Vec<_>>>()?;
    DownsampleRule::check_steps(&rules).map_err(|wrong| anyhow!("storage.downsampling: {wrong}"))?;
    Ok(rules)
}

/// Tells what is wrong with the rules' selectors, and with rules that do not fit together.
pub fn check(config: &Storage) -> anyhow::Result<()> {
    rules(config)?;
    downsampling(config).map(|_| ())
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

    #[test]
    fn downsampling_may_be_of_all_series() {
        let check = |rule: &str| {
            let yaml = format!("storage: {{downsampling: [{{{rule}, after: 30d, resolution: 5m}}]}}");
            let file = ConfigFile::parse("luminate.yaml", &yaml).unwrap();
            let (config, _) = Config::check(&Sources { file, ..Sources::none() }).unwrap();
            downsampling(&config.storage).map_err(|e| format!("{e:#}"))
        };
        assert_eq!(check("selector: 'up{job=\"a\"}'").unwrap()[0].matchers.len(), 2);
        assert!(check("selector: ''").unwrap()[0].matchers.is_empty());
        let error = check("selector: 'up{job='").unwrap_err();
        assert!(error.starts_with("storage.downsampling: the selector of rule 1: "), "{error}");
    }

    #[test]
    fn steps_of_the_same_series_fit_together_however_they_are_written() {
        let check = |rules: &str| {
            let file =
                ConfigFile::parse("luminate.yaml", &format!("storage: {{downsampling: [{rules}]}}")).unwrap();
            let (config, _) = Config::check(&Sources { file, ..Sources::none() }).unwrap();
            downsampling(&config.storage).map(|_| ()).map_err(|e| format!("{e:#}"))
        };
        let two = |one: &str, other: &str| check(&format!("{{{one}}}, {{{other}}}"));
        for (one, other, wrong) in [
            ("after: 30d, resolution: 5m", "after: 40d, resolution: 5m", "the longer after, the coarser"),
            ("after: 30d, resolution: 5m", "after: 20d, resolution: 1h", "the longer after, the coarser"),
            ("after: 30d, resolution: 20m", "after: 40d, resolution: 30m", "a multiple of the finer"),
            (
                "selector: 'up{a=\"1\",b=\"2\"}', after: 30d, resolution: 1h",
                "selector: '{b=\"2\", __name__=\"up\", a=\"1\"}', after: 40d, resolution: 5m",
                "the longer after, the coarser",
            ),
        ] {
            let error = two(one, other).unwrap_err();
            assert!(
                error.starts_with("storage.downsampling: has two rules") && error.contains(wrong),
                "{error}"
            );
        }
        two("after: 30d, resolution: 5m", "selector: up, after: 40d, resolution: 5m").unwrap();
        two("after: 30d, resolution: 1h", "tenant: x, after: 40d, resolution: 5m").unwrap();
    }
}
