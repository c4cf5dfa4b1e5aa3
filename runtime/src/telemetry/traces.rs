//! Traces over OTLP, in a build with the feature `otel`: what became of each turn, as spans. The id of a turn's trace is the one
//! in its completion's id (`chatcmpl-`, `resp_` or the like and 32 digits), so every stage joins it with nothing handed on, after a crash, too; a
//! trace that the client sent (`traceparent`) is linked. Names of attributes are those of OpenTelemetry's GenAI
//! conventions where they have one. Nothing that was said is in them.

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Array, InstrumentationScope, KeyValue, Value,
    trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, filter::FilterFn, layer::Context, registry::LookupSpan};

/// The span of the reply itself; the stages that follow lie below it.
const REPLY: &str = "chat";
const STAGES: [&str; 4] = [REPLY, "judge", "teach", "train"];
/// Of a trace's id, and of a span's.
const TRACE_DIGITS: usize = 32;
const SPAN_DIGITS: usize = 16;
/// The end of a process waits this long for the last spans.
const LAST_SPANS: Duration = Duration::from_secs(2);
/// Either turns traces on.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// Sends spans of a turn's life to a collector; what it does not take in time is dropped.
#[derive(Debug)]
pub struct Traces {
    processor: Arc<BatchSpanProcessor>,
    scope: InstrumentationScope,
}

impl Traces {
    /// To where OpenTelemetry's variables say (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`, ..); none when they name
    /// nothing.
    pub fn from_env() -> Result<Option<Self>, ExporterBuildError> {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_off = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|off| off.eq_ignore_ascii_case("true"));
        if is_off || !ENDPOINTS.into_iter().any(is_set) {
            return Ok(None);
        }
        Ok(Some(Self::over(SpanExporter::builder().with_http().build()?)))
    }

    /// To this address, such as `http://127.0.0.1:4318/v1/traces`.
    pub fn to(endpoint: &str) -> Result<Self, ExporterBuildError> {
        Ok(Self::over(SpanExporter::builder().with_http().with_endpoint(endpoint).build()?))
    }

    fn over(exporter: SpanExporter) -> Self {
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        let service = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "openclaw-rl".to_owned());
        processor.set_resource(&Resource::builder().with_service_name(service).build());
        let scope =
            InstrumentationScope::builder("openclaw-rl").with_version(env!("CARGO_PKG_VERSION")).build();
        Self { processor: Arc::new(processor), scope }
    }

    /// Sends, when it is dropped, what was not sent yet: a subscriber is never dropped itself.
    pub fn last_spans(&self) -> LastSpans {
        LastSpans { processor: self.processor.clone() }
    }

    /// As a layer that hears of these spans alone.
    pub fn layer<S>(self) -> impl Layer<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let wanted = |metadata: &Metadata<'_>| {
            metadata.target().starts_with("openclaw_")
                && match metadata.is_span() {
                    true => STAGES.contains(&metadata.name()),
                    false => *metadata.level() <= Level::WARN,
                }
        };
        self.with_filter(FilterFn::new(wanted).with_max_level_hint(Level::DEBUG))
    }
}

/// The spans at the end of a process.
#[derive(Debug)]
pub struct LastSpans {
    processor: Arc<BatchSpanProcessor>,
}

impl Drop for LastSpans {
    fn drop(&mut self) {
        // A collector that is away must not hold up the end.
        let _ = self.processor.shutdown_with_timeout(LAST_SPANS);
    }
}

/// What is known of a span that is not over.
struct Stage {
    started: SystemTime,
    fields: Fields,
}

#[derive(Default)]
struct Fields {
    /// Whose trace it belongs to; a request that was refused has none, and is not sent.
    turn: Option<TraceId>,
    /// The client's own trace.
    caller: Option<SpanContext>,
    attributes: Vec<KeyValue>,
    /// What was warned of within it.
    problem: Option<String>,
    /// The reply came to its end.
    is_over: bool,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Traces {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut stage = Stage { started: SystemTime::now(), fields: Fields::default() };
        attributes.record(&mut stage.fields);
        let span = context.span(id).expect("a span is known while it is told of");
        span.extensions_mut().insert(stage);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).expect("a span is known while it is told of");
        if let Some(stage) = span.extensions_mut().get_mut::<Stage>() {
            values.record(&mut stage.fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(span) = context.event_span(event) else { return };
        if let Some(stage) = span.extensions_mut().get_mut::<Stage>() {
            event.record(&mut Problem(&mut stage.fields.problem));
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).expect("a span is known while it is told of");
        let Some(Stage { started, fields }) = span.extensions_mut().remove::<Stage>() else { return };
        let Some(trace) = fields.turn else { return };
        self.processor.on_end(self.data(span.name(), trace, started, fields));
    }
}

impl Traces {
    fn data(&self, name: &'static str, trace: TraceId, started: SystemTime, fields: Fields) -> SpanData {
        let root = root_of(trace);
        let (id, parent) = match name {
            REPLY => (root, SpanId::INVALID),
            _ => (SpanId::from_bytes(rand::random::<u64>().max(1).to_be_bytes()), root),
        };
        let mut links = SpanLinks::default();
        links.links.extend(fields.caller.map(Link::with_context));
        let mut attributes = fields.attributes;
        if name == REPLY {
            attributes.push(KeyValue::new("gen_ai.operation.name", "chat"));
            attributes.push(KeyValue::new("gen_ai.provider.name", "openclaw-rl"));
        }
        let cut = || (name == REPLY && !fields.is_over).then(|| "the reply was cut".to_owned());
        let problem = fields.problem.or_else(cut);
        SpanData {
            span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::default()),
            parent_span_id: parent,
            parent_span_is_remote: false,
            span_kind: if name == REPLY { SpanKind::Server } else { SpanKind::Internal },
            name: Cow::Borrowed(name),
            start_time: started,
            end_time: SystemTime::now(),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: problem.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.scope.clone(),
        }
    }
}

/// The span of the reply in a turn's trace: told by the trace alone, so that later stages find it.
fn root_of(trace: TraceId) -> SpanId {
    let bytes = trace.to_bytes();
    let low = u64::from_be_bytes(bytes[8..].try_into().expect("half of sixteen bytes"));
    SpanId::from_bytes(low.max(1).to_be_bytes())
}

fn trace_of(turn: &str) -> Option<TraceId> {
    // Whatever an API puts before them.
    let digits = turn.rsplit_once(['-', '_']).map(|(_, digits)| digits);
    let digits = digits.filter(|digits| digits.len() == TRACE_DIGITS)?;
    let trace = TraceId::from_hex(digits).ok()?;
    (trace != TraceId::INVALID).then_some(trace)
}

/// W3C's `00-TRACE-SPAN-FLAGS`.
fn caller(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-');
    let (_, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    if (trace.len(), span.len()) != (TRACE_DIGITS, SPAN_DIGITS) {
        return None;
    }
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, TraceFlags::default(), true, TraceState::default());
    context.is_valid().then_some(context)
}

/// The conventions' names for what our spans call otherwise.
fn attribute(field: &'static str) -> Cow<'static, str> {
    Cow::Borrowed(match field {
        "model" => "gen_ai.request.model",
        "temperature" => "gen_ai.request.temperature",
        "session" => "gen_ai.conversation.id",
        "prompt_tokens" => "gen_ai.usage.input_tokens",
        "completion_tokens" => "gen_ai.usage.output_tokens",
        "reward" => "gen_ai.evaluation.score.value",
        other => return Cow::Owned(format!("openclaw.{other}")),
    })
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.attributes.push(KeyValue::new(attribute(field.name()), value));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "turn" => {
                self.turn = trace_of(value);
                self.attributes.push(KeyValue::new("gen_ai.response.id", value.to_owned()));
            }
            "traceparent" => self.caller = caller(value),
            "withheld" => {
                self.problem = Some(format!("withheld: {value}"));
                self.put(field, value.to_owned());
            }
            "finish_reason" => {
                self.is_over = true;
                let reasons = Value::Array(Array::String(vec![value.to_owned().into()]));
                self.attributes.push(KeyValue::new("gen_ai.response.finish_reasons", reasons));
            }
            _ => self.put(field, value.to_owned()),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

/// Takes the message of a warning.
struct Problem<'a>(&'a mut Option<String>);

impl Visit for Problem<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            *self.0 = Some(format!("{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_names_its_trace_and_nothing_else_does() {
        let trace = trace_of("chatcmpl-4bf92f3577b34da6a3ce929d0e0e4736").expect("it is one");
        assert_eq!(trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace_of("resp_unstored_4bf92f3577b34da6a3ce929d0e0e4736"), Some(trace));
        assert_eq!(root_of(trace).to_string(), "a3ce929d0e0e4736");
        for other in [
            "",
            "chatcmpl-",
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "chatcmpl-zz",
            "chatcmpl-4bf9",
            &format!("chatcmpl-{:032}", 0),
        ] {
            assert_eq!(trace_of(other), None, "{other}");
        }
    }

    #[test]
    fn only_a_whole_traceparent_is_linked() {
        let whole = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(caller(whole).expect("it is whole").span_id().to_string(), "00f067aa0ba902b7");
        for torn in [
            "",
            "00",
            "00-4bf9-00f0-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "é-é-é-é",
        ] {
            assert_eq!(caller(torn), None, "{torn}");
        }
    }
}
