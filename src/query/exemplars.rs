//! The exemplars of the series that a query looks at.

use super::{QueryFailure, QueryService, Reader};
use crate::{
    model::{FeatureSwitches, Limit, TimeRange},
    promql::{
        Features, QueryError,
        parse::{self, Expr},
    },
    storage::{MatcherSets, SeriesExemplars},
};

impl QueryService {
    /// The exemplars in a range of all series that `text` selects, whatever it computes of them.
    pub async fn exemplars(
        &self,
        reader: &Reader,
        text: &str,
        range: TimeRange,
        switches: FeatureSwitches,
    ) -> Result<Vec<SeriesExemplars>, QueryFailure> {
        self.check_text(text)?;
        // In Prometheus' words: here, alone, what is wrong with the query is said without the parameter's name.
        let expr = parse::parse(text, &self.features(Some(reader), switches).parser())
            .map_err(|error| QueryFailure::Request(error.to_string()))?;
        let selections = selections(&expr);
        if selections.is_empty() {
            return Ok(Vec::new());
        }
        let found = reader.view.exemplars(&*self.storage, selections, range);
        let found = self.within_timeout(reader, found).await?;
        reader.within(Limit::QuerySeries, found.len() as u64)?;
        Ok(found)
    }

    /// A query as it is written at its most readable.
    pub fn format(&self, text: &str, switches: FeatureSwitches) -> Result<String, QueryFailure> {
        Ok(parse::pretty::pretty(&self.parse(text, self.features(None, switches))?))
    }

    /// A query as a tree.
    pub fn tree(&self, text: &str, switches: FeatureSwitches) -> Result<Expr, QueryFailure> {
        self.parse(text, self.features(None, switches))
    }

    fn parse(&self, text: &str, features: Features) -> Result<Expr, QueryFailure> {
        self.check_text(text)?;
        parse::parse(text, &features.parser()).map_err(|error| QueryError::from(error).into())
    }
}

fn selections(expr: &Expr) -> MatcherSets {
    let (mut found, mut left) = (MatcherSets::new(), vec![expr]);
    while let Some(expr) = left.pop() {
        match expr {
            Expr::Vector(selector) => found.push(selector.matchers.to_vec()),
            Expr::Matrix(matrix) => found.push(matrix.selector.matchers.to_vec()),
            Expr::Number(_)
            | Expr::String(_)
            | Expr::Subquery(_)
            | Expr::Call(_)
            | Expr::Aggregate(_)
            | Expr::Binary(_)
            | Expr::Unary(_)
            | Expr::Paren(_) => {}
        }
        left.extend(expr.children());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_selector_of_a_query_is_found() {
        let expr = parse::parse("sum(rate(a[5m])) + b{c=\"d\"} * 2", &Features::default().parser()).unwrap();
        let mut found: Vec<String> = selections(&expr).iter().map(|set| format!("{set:?}")).collect();
        found.sort();
        assert_eq!(found, [r#"[__name__="a"]"#, r#"[c="d", __name__="b"]"#]);
    }
}
