//! How fine old samples are kept: `storage.downsampling`.

use std::time::Duration;

use serde_yaml::Value;

use super::{Downsampling, each_rule};
use crate::{
    config::parse::{duration, kind, text},
    model::TenantId,
};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// Before that a day's samples may still be on their way.
const SOONEST: Duration = Duration::from_secs(2 * 86_400);

/// A list of rules. Whether those about the same series fit together is seen when their selectors are read.
pub(super) fn rules(value: &Value) -> Result<Vec<Downsampling>, String> {
    each_rule(value, "[{after: 30d, resolution: 5m}]", rule)
}

fn rule(value: &Value) -> Result<Downsampling, String> {
    let entry = value.as_mapping().ok_or_else(|| format!("is {}, not a mapping", kind(value)))?;
    let (mut tenant, mut selector, mut after, mut resolution) = (None, None, None, None);
    for (name, value) in entry {
        let about = |wrong: String| format!("has a {} that {wrong}", name.as_str().unwrap_or_default());
        match name.as_str() {
            Some("tenant") => {
                let name = text(value).map_err(about)?;
                tenant = Some(TenantId::new(name).map_err(|e| format!("has a tenant that is none: {e}"))?);
            }
            Some("selector") => {
                let trimmed = text(value).map_err(about)?.trim();
                selector = Some(trimmed.to_owned()).filter(|text| !text.is_empty());
            }
            Some("after") => {
                after = Some(duration(value).map_err(|e| e.replace("30s", "30d")).map_err(about)?);
            }
            Some("resolution") => {
                resolution = Some(duration(value).map_err(|e| e.replace("30s", "5m")).map_err(about)?);
            }
            Some(_) | None => {
                return Err("has something else than tenant, selector, after and resolution".to_owned());
            }
        }
    }
    let after = after.ok_or("does not say after how long")?;
    let resolution = resolution.ok_or("does not say at which resolution")?;
    if after < SOONEST {
        return Err("has an after that is less than 2d, when samples may still be on their way".to_owned());
    }
    let divides = resolution >= MINUTE && DAY.as_millis().is_multiple_of(resolution.as_millis());
    if !divides || resolution.subsec_nanos() > 0 {
        return Err("has a resolution that does not divide a day, take for example 5m or 1h".to_owned());
    }
    Ok(Downsampling { tenant, selector, after, resolution })
}
