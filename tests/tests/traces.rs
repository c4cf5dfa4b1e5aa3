//! With the feature `otel`: a collector is sent a trace for each turn, which its completion's id names.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, body::Bytes, extract::State, routing::post};
use openclaw_runtime::telemetry::Traces;
use openclaw_tests::{HostedNode, eventually};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::any_value::Value,
    trace::v1::Span,
};
use prost::Message;
use serde_json::json;
use tokio::sync::watch;
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

type Sent = Arc<watch::Sender<Vec<ExportTraceServiceRequest>>>;

/// A collector on a port of its own, and what it was sent.
async fn collector() -> (String, Sent) {
    async fn take(State(sent): State<Sent>, body: Bytes) -> Vec<u8> {
        let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
        sent.send_modify(|sent| sent.push(request));
        ExportTraceServiceResponse::default().encode_to_vec()
    }
    let sent = Sent::default();
    let routes = Router::new().route("/v1/traces", post(take)).with_state(sent.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1/traces", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (url, sent)
}

/// The spans of one trace, by name.
fn spans(sent: &Sent, trace: &str) -> BTreeMap<String, Span> {
    let requests = sent.borrow();
    let all = requests.iter().flat_map(|request| &request.resource_spans);
    let all = all.flat_map(|of_resource| &of_resource.scope_spans).flat_map(|of_scope| &of_scope.spans);
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    all.filter(|span| hex(&span.trace_id) == trace).map(|span| (span.name.clone(), span.clone())).collect()
}

fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|pair| pair.key == key)?.value.as_ref()?.value.as_ref()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_a_turn_is_one_trace_which_its_completion_names() {
    let (url, sent) = collector().await;
    let traces = Traces::to(&url).expect("it can be sent to");
    tracing_subscriber::registry().with(traces.layer()).init();
    let dir = tempfile::tempdir().expect("a folder can be made");
    let node = HostedNode::start(
        "configs/personal-agent.toml",
        dir.path(),
        &[
            "actors.optimizer.batch_samples=1",
            "actors.judge.votes=1",
            // The complaint is the last that is said.
            "actors.sessions.settle_secs=0",
        ],
    )
    .await;

    let ask =
        json!({"role": "user", "content": "A shop sells 3 quagga for 4 coins each. How much are they?"});
    let request = node.client.post(format!("{}/chat/completions", node.url));
    let answer = request
        .header("x-session-id", "a conversation")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .json(&json!({"model": "policy", "messages": [ask.clone()], "max_tokens": 24}))
        .send();
    let answer: serde_json::Value = answer.await.expect("an answer").json().await.expect("JSON");
    let reply = answer["choices"][0]["message"].clone();
    let complaint = json!({"role": "user", "content": "Please do not use bold or numbered lists, this looks machine-written."});
    node.ask("a conversation", json!([ask, reply, complaint])).await;

    let id = answer["id"].as_str().expect("an id");
    let trace = id.strip_prefix("chatcmpl-").expect("OpenAI's form");
    let is_whole = async || spans(&sent, trace).contains_key("train");
    eventually(is_whole).await.expect("it is sent once it was learnt from");
    let spans = spans(&sent, trace);

    let (chat, judge, train) = (&spans["chat"], &spans["judge"], &spans["train"]);
    assert!(chat.parent_span_id.is_empty() && chat.start_time_unix_nano < chat.end_time_unix_nano);
    assert_eq!(attribute(chat, "gen_ai.response.id"), Some(&Value::StringValue(id.to_owned())));
    assert_eq!(
        attribute(chat, "gen_ai.conversation.id"),
        Some(&Value::StringValue("a conversation".to_owned()))
    );
    let drawn = answer["usage"]["completion_tokens"].as_i64().expect("a count");
    assert_eq!(attribute(chat, "gen_ai.usage.output_tokens"), Some(&Value::IntValue(drawn)));
    assert_eq!(chat.links[0].span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31], "the client's own");
    for (name, stage) in &spans {
        assert!(name == "chat" || stage.parent_span_id == chat.span_id, "{name} lies below the reply");
        let told = format!("{stage:?}");
        assert!(!told.contains("quagga") && !told.contains("machine-written"), "{name} tells what was said");
    }
    assert!(attribute(judge, "gen_ai.evaluation.score.value").is_some(), "{judge:?}");
    assert_eq!(attribute(train, "openclaw.version"), Some(&Value::IntValue(1)));
    assert!(judge.start_time_unix_nano >= chat.end_time_unix_nano, "it is judged by what followed");
    node.supervisor.stop().await;
}
