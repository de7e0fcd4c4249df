//! `match[]`: selectors that name series instead of asking for samples.

use super::{QueryFailure, QueryService};
use crate::{
    promql::parse::{matchers_all_match_empty, parse_selector},
    storage::MatcherSets,
};

/// The parameter selectors come in.
const MATCH: &str = "match[]";

/// Selectors of one request: each is looked for, and a body has room for a million.
const MAX_SELECTORS: usize = 1_000;

/// Reads selectors; none at all is no set at all, which matches every series.
pub fn parse_selectors(texts: &[String], max_bytes: usize) -> Result<MatcherSets, QueryFailure> {
    if texts.len() > MAX_SELECTORS {
        let reason = format!("is given {} times, at most {MAX_SELECTORS} are looked for", texts.len());
        return Err(QueryFailure::parameter(MATCH, reason));
    }
    let mut sets = MatcherSets::with_capacity(texts.len());
    for text in texts {
        if text.len() > max_bytes {
            let reason = format!("the selector is {} bytes long, the limit is {max_bytes}", text.len());
            return Err(QueryFailure::parameter(MATCH, reason));
        }
        let set = parse_selector(text).map_err(|e| QueryFailure::parameter(MATCH, e.to_string()))?;
        if matchers_all_match_empty(&set) {
            return Err(QueryFailure::parameter(
                MATCH,
                "match[] must contain at least one non-empty matcher",
            ));
        }
        sets.push(set);
    }
    Ok(sets)
}

impl QueryService {
    /// Looks whether selectors are ones, where nothing is looked for.
    pub fn check_selectors(&self, texts: &[String]) -> Result<(), QueryFailure> {
        parse_selectors(texts, self.limits.max_query_bytes).map(drop)
    }
}

/// Reads selectors where there must be at least one.
pub fn require_selectors(texts: &[String], max_bytes: usize) -> Result<MatcherSets, QueryFailure> {
    if texts.is_empty() {
        return Err(QueryFailure::Request("no match[] parameter provided".to_owned()));
    }
    parse_selectors(texts, max_bytes)
}
