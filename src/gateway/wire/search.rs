//! Lines of names, as Prometheus' search writes them.

use super::tokens::{push_comma, push_list, push_text, write_to};
use crate::query::Hit;

/// What they are.
pub const CONTENT_TYPE: &str = "application/x-ndjson; charset=utf-8";

/// Writes a line of names.
pub fn batch(hits: &[Hit], include_score: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + hits.iter().map(|hit| hit.name.len() + 32).sum::<usize>());
    out.extend_from_slice(br#"{"results":"#);
    push_list(&mut out, hits, |out, hit| {
        out.extend_from_slice(br#"{"name":"#);
        push_text(out, &hit.name);
        if include_score {
            write_to(out, format_args!(r#","score":{}"#, hit.score));
        }
        if let Some(metadata) = &hit.metadata {
            for (name, text) in
                [("type", metadata.kind.as_str()), ("help", &metadata.help), ("unit", &metadata.unit)]
            {
                if !text.is_empty() {
                    push_comma(out, 1);
                    push_text(out, name);
                    out.push(b':');
                    push_text(out, text);
                }
            }
        }
        out.push(b'}');
    });
    out.extend_from_slice(b"}\n");
    out
}

/// Writes the last line.
pub fn trailer(has_more: bool) -> Vec<u8> {
    format!("{{\"status\":\"success\",\"has_more\":{has_more}}}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Metadata, MetricType};

    fn written(hits: &[Hit], include_score: bool) -> String {
        String::from_utf8(batch(hits, include_score)).unwrap()
    }

    #[test]
    fn a_line_has_what_is_known() {
        assert_eq!(written(&[], true), "{\"results\":[]}\n");
        let metadata = Metadata {
            metric: "up".to_owned(),
            kind: MetricType::Gauge,
            help: "a <b>".to_owned(),
            unit: String::new(),
        };
        let hits = [
            Hit { name: "up".to_owned(), score: 1.0, metadata: Some(metadata) },
            Hit { name: "é\"".to_owned(), score: 0.9, metadata: None },
        ];
        assert_eq!(
            written(&hits, true),
            "{\"results\":[{\"name\":\"up\",\"score\":1,\"type\":\"gauge\",\"help\":\"a \\u003cb\\u003e\"},\
             {\"name\":\"é\\\"\",\"score\":0.9}]}\n"
        );
        assert_eq!(written(&hits[1..], false), "{\"results\":[{\"name\":\"é\\\"\"}]}\n");
        assert_eq!(trailer(true), b"{\"status\":\"success\",\"has_more\":true}\n");
    }
}
