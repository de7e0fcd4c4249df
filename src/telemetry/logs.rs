//! Log lines: one JSON object each for a machine, or coloured text for a person.
//!
//! ```text
//! {"timestamp":"2026-01-01T00:00:00.123Z","level":"info","service":"luminate",
//!  "event":"request","data":{"status":200},"request_id":"…","tenant":"anonymous"}
//! ```
//!
//! `event` is the field of that name, or else the message. `request_id` and `tenant` are taken from
//! the event or the spans around it; all other fields of the event go into `data`. A line is
//! written whole, so that lines of two threads never mix.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::Arc,
};

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::clock::Clock;

/// For whom the lines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a machine.
    Json,
    /// For a person.
    Console,
}

impl Format {
    /// The format that suits what standard error is connected to.
    pub fn of_terminal() -> Self {
        if io::stderr().is_terminal() { Self::Console } else { Self::Json }
    }
}

/// Starts writing log lines to standard error, panics included. Later calls change nothing.
pub fn install(level: &str, format: Format, clock: Arc<dyn Clock>) {
    let filter = filter(level);
    let registry = tracing_subscriber::registry().with(filter);
    // An error means that somebody in this process, a test, logs already.
    let _ = match format {
        Format::Json => registry.with(JsonLines::new(clock, Box::new(io::stderr))).try_init(),
        Format::Console => {
            let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(colours);
            registry.with(layer).try_init()
        }
    };
    let inherited = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(event = "panic", at = place, "{}", panic_message(panic.payload()));
        if format == Format::Console {
            inherited(panic);
        }
    }));
}

/// A plain level is ours; of the libraries only warnings are wanted then.
fn filter(level: &str) -> EnvFilter {
    let directives = match level.to_ascii_lowercase().as_str() {
        plain @ ("info" | "debug" | "trace") => format!("warn,luminate={plain}"),
        _ => level.to_owned(),
    };
    EnvFilter::builder().parse_lossy(directives)
}

fn panic_message(payload: &dyn std::any::Any) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panicked")
}

/// Where lines go.
trait Sink: Send + Sync {
    /// Writes one line, ended.
    fn write(&self, line: &[u8]);
}

impl<W: Write, F: Fn() -> W + Send + Sync> Sink for F {
    fn write(&self, line: &[u8]) {
        // There is nobody to tell that nothing can be told.
        let _ = self().write_all(line);
    }
}

/// Writes each event as a line of JSON.
struct JsonLines {
    clock: Arc<dyn Clock>,
    sink: Box<dyn Sink>,
}

impl JsonLines {
    fn new(clock: Arc<dyn Clock>, sink: Box<dyn Sink>) -> Self {
        Self { clock, sink }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'a str,
    service: &'a str,
    event: Value,
    #[serde(skip_serializing_if = "Map::is_empty")]
    data: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<Value>,
}

/// The fields of a span, kept with it.
struct SpanFields(Map<String, Value>);

impl<S> Layer<S> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanFields(fields.0));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(SpanFields(known)) = span.extensions_mut().get_mut()
        {
            let mut fields = Fields(std::mem::take(known));
            values.record(&mut fields);
            *known = fields.0;
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut data = fields.0;
        let around = |name: &str| {
            let scope = context.event_scope(event)?;
            scope.into_iter().find_map(|span| span.extensions().get::<SpanFields>()?.0.get(name).cloned())
        };
        // A request about no tenant's data has an empty one, which says nothing.
        let says = |value: &Value| value.as_str() != Some("");
        let request_id = data.remove("request_id").filter(says).or_else(|| around("request_id"));
        let tenant = data.remove("tenant").filter(says).or_else(|| around("tenant"));
        let named = data.remove("event").or_else(|| data.remove("message"));
        let line = Line {
            timestamp: self.clock.now().rfc3339(),
            level: level(event),
            service: "luminate",
            event: named.unwrap_or_else(|| event.metadata().target().into()),
            data,
            request_id,
            tenant,
        };
        if let Ok(mut text) = serde_json::to_vec(&line) {
            text.push(b'\n');
            self.sink.write(&text);
        }
    }
}

fn level(event: &Event<'_>) -> &'static str {
    match *event.metadata().level() {
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warn",
        tracing::Level::INFO => "info",
        tracing::Level::DEBUG => "debug",
        tracing::Level::TRACE => "trace",
    }
}

/// Collects fields as JSON.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        let number = serde_json::Number::from_f64(value);
        self.put(field, number.map_or_else(|| Value::String(value.to_string()), Value::Number));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::{clock::HandClock, model::Timestamp};

    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Sink for Kept {
        fn write(&self, line: &[u8]) {
            self.0.lock().extend_from_slice(line);
        }
    }

    fn lines(log: impl FnOnce()) -> Vec<Value> {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let layer = JsonLines::new(HandClock::at(Timestamp(1_000)), Box::new(Kept(Arc::clone(&kept))));
        let subscriber = tracing_subscriber::registry().with(filter("info")).with(layer);
        tracing::subscriber::with_default(subscriber, log);
        let text = String::from_utf8(kept.lock().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_has_the_fields_everybody_agreed_on() {
        let lines = lines(|| {
            tracing::info!(event = "request", request_id = "r1", tenant = %"t", status = 200, "done");
        });
        let expected = serde_json::json!({
            "timestamp": "1970-01-01T00:00:01.000Z", "level": "info", "service": "luminate",
            "event": "request", "data": {"status": 200, "message": "done"},
            "request_id": "r1", "tenant": "t",
        });
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn the_request_is_found_in_the_spans_around() {
        let lines = lines(|| {
            let request = tracing::info_span!("request", request_id = "r2", tenant = tracing::field::Empty);
            request.record("tenant", "late");
            let _in = request.enter();
            let _deeper = tracing::info_span!("inner", step = 1).entered();
            tracing::warn!("slow");
        });
        assert_eq!(lines[0]["request_id"], "r2");
        assert_eq!(lines[0]["tenant"], "late");
        assert_eq!(lines[0]["event"], "slow");
        assert_eq!(lines[0]["level"], "warn");
        assert!(lines[0].get("data").is_none());
    }

    #[test]
    fn a_tenant_that_is_empty_is_left_out() {
        let lines = lines(|| tracing::info!(event = "request", tenant = "", "x"));
        assert!(lines[0].get("tenant").is_none(), "{}", lines[0]);
    }

    #[test]
    fn what_json_cannot_say_is_text() {
        let lines = lines(|| tracing::info!(a = f64::NAN, b = f64::INFINITY, c = "\u{1}\"\n", "x"));
        assert_eq!(lines[0]["data"], serde_json::json!({"a": "NaN", "b": "inf", "c": "\u{1}\"\n"}));
    }

    #[test]
    fn a_plain_level_does_not_open_the_libraries() {
        let lines = lines(|| {
            tracing::info!(target: "hyper::proto", "chatter");
            tracing::warn!(target: "hyper::proto", "trouble");
            tracing::debug!("detail");
        });
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["event"], "trouble");
    }

    #[test]
    fn a_time_beyond_the_calendar_is_its_number() {
        assert_eq!(Timestamp::MAX.rfc3339(), i64::MAX.to_string());
    }
}
