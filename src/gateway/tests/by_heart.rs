//! An engine that answers by heart, also what the real one says seldom.

use std::time::Duration;

use async_trait::async_trait;

use super::labels;
use crate::{
    model::{Millis, Timestamp},
    promql::{
        Answer, MatrixSeries, ParseError, Point, QueryError, QueryOptions, QueryStats, Reads, Value,
        VectorElement, When, parse::Span,
    },
    query::Evaluate,
    storage::{StorageError, View},
};

/// An engine that answers by heart.
#[derive(Debug)]
pub(super) struct ByHeart;

fn answer(value: Value) -> Answer {
    Answer { value, warnings: vec![], infos: vec![], stats: QueryStats::default() }
}

#[async_trait]
impl Evaluate for ByHeart {
    async fn instant(
        &self,
        view: &View,
        text: &str,
        at: Timestamp,
        options: &QueryOptions,
    ) -> Result<Answer, QueryError> {
        let timestamp = at.millis();
        let element = |name: &str, value| VectorElement {
            labels: labels(&[("__name__", "up"), ("job", name)]),
            timestamp,
            value: Point::Float(value),
        };
        match text {
            "1+1" => Ok(answer(Value::Scalar { timestamp, value: 2.0 })),
            "tenant" => Ok(answer(Value::String { timestamp, value: view.tenants()[0].to_string() })),
            "lookback" => {
                let value = format!("{:?}", options.lookback.map(Millis::millis));
                Ok(answer(Value::String { timestamp, value }))
            }
            "up" => Ok(answer(Value::Vector(vec![element("a", 1.0), element("b", 0.0)]))),
            "many" => Ok(answer(Value::Vector(vec![element("a", 1.0); 30_000]))),
            "noted" => Ok(Answer {
                warnings: vec!["PromQL warning: a<b (1:1)".to_owned()],
                infos: vec!["PromQL info: c (1:1)".to_owned()],
                ..answer(Value::Vector(vec![]))
            }),
            "m:n" => Err(QueryError::Execution("many-to-many matching not allowed".to_owned())),
            "slow" => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(answer(Value::Vector(vec![])))
            }
            "damaged" => Err(QueryError::Storage(StorageError::Corrupt {
                path: "/secret".into(),
                offset: 1,
                detail: "checksum".to_owned(),
            })),
            "panic" => panic!("the engine fell over"),
            _ => Err(QueryError::Parse(ParseError {
                message: "unexpected end of input".to_owned(),
                span: Span::default(),
                line: 1,
                column: 3,
            })),
        }
    }

    async fn range(
        &self,
        _: &View,
        text: &str,
        start: Timestamp,
        end: Timestamp,
        _: Millis,
        _: &QueryOptions,
    ) -> Result<Answer, QueryError> {
        let series = |job: &str| MatrixSeries {
            labels: labels(&[("job", job)]),
            floats: vec![(start.millis(), 1.0), (end.millis(), 2.5)],
            histograms: vec![],
        };
        match text {
            "up" => Ok(answer(Value::Matrix(vec![series("a"), series("b")]))),
            _ => Err(QueryError::BadData(
                "invalid expression type \"range vector\" for range query, must be Scalar or instant Vector"
                    .to_owned(),
            )),
        }
    }

    fn reads(&self, _: &str, _: When, _: &QueryOptions) -> Result<Reads, QueryError> {
        Ok(Reads { requests: vec![], too_far: None, max_samples: u64::MAX })
    }
}
