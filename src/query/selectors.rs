//! `match[]`: selectors that name series instead of asking for samples.

use super::{QueryFailure, QueryService};
use crate::{
    model::Matcher,
    promql::parse::{MAX_PATTERN_BYTES, matchers_all_match_empty, parse_selector},
    storage::MatcherSets,
};

/// The parameter selectors come in.
const MATCH: &str = "match[]";

/// Selectors of one request: each is looked for, and a body has room for a million.
const MAX_SELECTORS: usize = 1_000;

/// Reads selectors; none at all is no set at all, which matches every series. What is wrong with one is said
/// without the parameter's name, as Prometheus does where selectors may be left out.
pub fn parse_selectors(texts: &[String], max_bytes: usize) -> Result<MatcherSets, QueryFailure> {
    let sets = read(texts, max_bytes).and_then(|sets| select_something(&sets).map(|()| sets));
    sets.map_err(QueryFailure::Request)
}

impl QueryService {
    /// Looks whether selectors are ones, where nothing is looked for.
    pub fn check_selectors(&self, texts: &[String]) -> Result<(), QueryFailure> {
        parse_selectors(texts, self.limits.max_query_bytes).map(drop)
    }
}

/// Reads selectors where there must be at least one.
pub fn require_selectors(texts: &[String], max_bytes: usize) -> Result<MatcherSets, QueryFailure> {
    let sets = require_any_selectors(texts, max_bytes)?;
    select_something(&sets).map_err(|reason| QueryFailure::parameter(MATCH, reason))?;
    Ok(sets)
}

/// The same where one may select every series, which who federates may do.
pub fn require_any_selectors(texts: &[String], max_bytes: usize) -> Result<MatcherSets, QueryFailure> {
    if texts.is_empty() {
        return Err(QueryFailure::Request("no match[] parameter provided".to_owned()));
    }
    read(texts, max_bytes).map_err(|reason| QueryFailure::parameter(MATCH, reason))
}

fn read(texts: &[String], max_bytes: usize) -> Result<MatcherSets, String> {
    if texts.len() > MAX_SELECTORS {
        return Err(format!(
            "{MATCH} is given {} times, at most {MAX_SELECTORS} are looked for",
            texts.len()
        ));
    }
    let mut sets = MatcherSets::with_capacity(texts.len());
    let mut pattern_bytes = 0;
    for text in texts {
        if text.len() > max_bytes {
            return Err(format!("the selector is {} bytes long, the limit is {max_bytes}", text.len()));
        }
        let set = parse_selector(text).map_err(|e| e.to_string())?;
        pattern_bytes += set.iter().map(Matcher::compiled_bytes).sum::<usize>();
        if pattern_bytes > MAX_PATTERN_BYTES {
            let most = MAX_PATTERN_BYTES >> 20;
            return Err(format!("regular expressions of {MATCH} take more than {most} MiB when compiled"));
        }
        sets.push(set);
    }
    Ok(sets)
}

fn select_something(sets: &MatcherSets) -> Result<(), String> {
    if sets.iter().any(|set| matchers_all_match_empty(set)) {
        return Err(format!("{MATCH} must contain at least one non-empty matcher"));
    }
    Ok(())
}
