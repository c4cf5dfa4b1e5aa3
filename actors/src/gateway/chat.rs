//! `POST /v1/chat/completions`. The order matters: sessions hear of a request before it is answered, so that it is
//! the next state of the turn before; and of the answer before the client sees its end, so that no later request can
//! overtake it.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use axum::{
    Json,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue},
    response::{IntoResponse, Response},
};
use openclaw_journal::{Turn, TurnId, TurnKind};
use openclaw_model::{
    Constraint, GenerateRequest, ParserConfig, SamplingParams, TextError, normalize_messages, unseen_parts,
};
use serde_json::{Map, Value, json};
use tracing::{Span, debug_span, field::Empty, warn};

use super::{
    Shared,
    admission::{Admitted, BodyRoom},
    body, completion,
    draft::Draft,
    errors::ApiError,
    generation::{Drawn, Ending, Generation},
    models::unix_secs,
    openai::{ChatRequest, request_marks},
    shape, stream,
};
use crate::sessions::{Arrival, ArrivedRequest, TurnCompleted};

/// From here on, reading a body as JSON takes longer than a stream should wait.
const LARGE_BODY_BYTES: usize = 64 << 10;

/// Told with a reply that may be lost with the process.
const JOURNAL: &str = "x-journal";
const FAILING: HeaderValue = HeaderValue::from_static("failing");

/// The handler.
pub async fn post(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, ApiError> {
    let received = Instant::now();
    let span = debug_span!(
        "chat",
        turn = Empty,
        session = Empty,
        kind = Empty,
        model = Empty,
        temperature = Empty,
        prompt_tokens = Empty,
        completion_tokens = Empty,
        cached_tokens = Empty,
        first_token_secs = Empty,
        version = Empty,
        finish_reason = Empty,
        traceparent = Empty,
    );
    if shared.config.refuse_unrecorded && shared.journal_fails() {
        return Err(ApiError::not_kept("A reply"));
    }
    let (parts, body) = request.into_parts();
    let limit_bytes = shared.config.max_body_bytes;
    // One that announces no length may take the most.
    let bytes = body::announced(&parts.headers).map_or(limit_bytes, |bytes| bytes.min(limit_bytes));
    let room = shared.admission.admit_body(bytes).await?;
    let body = body::receive(&parts.headers, body, limit_bytes).await?;
    let (chat, fields) = parse(body).await?;
    check_length(&shared, &chat)?;
    chat.shape.check_ids(&shared.tokenizer)?;
    let (mut chat, constraint) = constrain(&shared, chat).await?;
    let (model, side_model) = shared.models.resolve(chat.model.as_deref())?;
    let marks = request_marks(&parts.headers, &fields, side_model);
    drop(fields);

    let messages = Arc::new(std::mem::take(&mut chat.messages));
    let arrived = ArrivedRequest::new(marks, messages.clone(), !chat.tools.is_empty());
    let arrival = shared.sessions.arrive(arrived).await;
    let kind = if arrival.kind == TurnKind::Main { "main" } else { "side" };
    metrics::counter!("openclaw_gateway_turns_total", "kind" => kind).increment(1);
    span.record("kind", kind);

    let place = shared.admission.admit().await?;
    let (prompt, place) = render(&shared, messages, &chat, place, room).await?;
    let room = shared.context_length.saturating_sub(prompt.ids.len());
    if room == 0 {
        return Err(ApiError::context_length(prompt.ids.len(), shared.context_length));
    }
    metrics::counter!("openclaw_gateway_prompt_tokens_total").increment(prompt.ids.len() as u64);
    for (kind, parts) in &prompt.unseen {
        metrics::counter!("openclaw_gateway_parts_not_shown_total", "kind" => *kind).increment(*parts);
    }
    let generate = GenerateRequest {
        prompt_ids: prompt.ids.clone(),
        drawn_ids: Vec::new(),
        sampling: sampling(&shared, &chat),
        max_new_tokens: chat.max_tokens.unwrap_or(shared.config.default_max_tokens).clamp(1, room),
        stop: chat.stop.clone(),
        top_logprobs: chat.top_logprobs,
        constraint,
    };
    let answer = Answer {
        id: TurnId(format!("chatcmpl-{}", uuid::Uuid::new_v4().simple()).into()),
        created: unix_secs(),
        shared,
        chat,
        model,
        arrival,
        prompt,
        generate,
        received,
        span,
        _place: place,
    };
    answer.tell_of(&parts.headers);
    if answer.chat.stream { stream::respond(answer).await } else { whole(answer).await }
}

/// A request that is being answered.
pub struct Answer {
    /// What the gateway serves with.
    pub shared: Arc<Shared>,
    /// Names the turn and the completion.
    pub id: TurnId,
    /// What the client asked for.
    pub chat: ChatRequest,
    /// The model name in the response.
    pub model: String,
    /// Unix time of the response.
    pub created: u64,
    /// What sessions made of the request.
    pub arrival: Arrival,
    prompt: Prompt,
    generate: GenerateRequest,
    received: Instant,
    span: Span,
    _place: Admitted,
}

struct Prompt {
    ids: Vec<u32>,
    messages: Vec<Value>,
    tools: Vec<Value>,
    kwargs: Map<String, Value>,
    parser: ParserConfig,
    /// Parts of the messages that the model is shown a placeholder for, by kind.
    unseen: BTreeMap<&'static str, u64>,
}

/// A complete turn, recorded.
pub struct Completed {
    /// The reply as an assistant message.
    pub message: Value,
    /// OpenAI's word.
    pub finish_reason: &'static str,
    /// Token counts.
    pub usage: Value,
    /// The turn is in the journal.
    pub recorded: bool,
}

impl Answer {
    /// An empty reply to fill.
    pub fn draft(&self) -> Draft {
        Draft::new(self.prompt.parser.clone(), self.chat.logprobs)
    }

    /// Tells its span what is known before the first token.
    fn tell_of(&self, headers: &HeaderMap) {
        let (id, session) =
            (tracing::field::display(&self.id), tracing::field::display(&self.arrival.session));
        self.span.record("turn", id).record("session", session);
        self.span.record("model", &*self.model);
        self.span.record("temperature", f64::from(self.generate.sampling.temperature));
        self.span.record("prompt_tokens", self.prompt.ids.len());
        if let Some(caller) = headers.get("traceparent").and_then(|value| value.to_str().ok()) {
            self.span.record("traceparent", caller);
        }
    }

    /// Begins to draw and waits for the first token.
    pub async fn begin(&self) -> Result<Generation, ApiError> {
        let session = &self.arrival.session;
        let generation = Generation::begin(self.shared.clone(), session, self.generate.clone()).await?;
        let waited = self.received.elapsed().as_secs_f64();
        metrics::histogram!("openclaw_gateway_time_to_first_token_seconds").record(waited);
        self.span.record("first_token_secs", waited);
        Ok(generation)
    }

    /// Hands the finished turn on. The client must not see its end before this returns.
    pub async fn complete(self, draft: Draft, ending: Ending) -> Result<Completed, ApiError> {
        let prompt_tokens = self.prompt.ids.len();
        let completion_tokens = draft.tokens();
        self.span.record("version", ending.policy_version).record("completion_tokens", completion_tokens);
        self.span.record("cached_tokens", ending.cached_tokens);
        let mut completed = Completed {
            message: draft.message(),
            finish_reason: draft.finish_reason(ending.reason),
            usage: json!({
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
                "prompt_tokens_details": {"cached_tokens": ending.cached_tokens},
            }),
            recorded: false,
        };
        self.span.record("finish_reason", completed.finish_reason);
        let completion = draft.into_completion(
            self.prompt.ids,
            ending.policy_version,
            self.generate.sampling.temperature,
            ending.reason,
        );
        let turn = Arc::new(Turn {
            id: self.id,
            session: self.arrival.session,
            index: self.arrival.index,
            kind: self.arrival.kind,
            trainable: self.arrival.trainable && !ending.mixed_versions,
            messages: Arc::new(self.prompt.messages),
            tools: Arc::new(self.prompt.tools),
            template_kwargs: Arc::new(self.prompt.kwargs),
            completion,
        });
        if turn.kind == TurnKind::Main && !turn.trainable {
            let reason = if ending.mixed_versions { "mixed_versions" } else { "no_train" };
            metrics::counter!("openclaw_gateway_turns_dropped_total", "reason" => reason).increment(1);
        }
        let mark = self.arrival.fingerprint.mark(&completed.message);
        completed.recorded = completion::complete(self.shared, TurnCompleted { turn, mark }).await?;
        metrics::counter!("openclaw_gateway_completion_tokens_total").increment(completion_tokens as u64);
        let reason = completed.finish_reason;
        metrics::counter!("openclaw_gateway_replies_total", "finish_reason" => reason).increment(1);
        metrics::histogram!("openclaw_gateway_reply_seconds").record(self.received.elapsed());
        Ok(completed)
    }

    /// `X-Session-Id`, `X-Policy-Version`, `X-Request-Id`; `X-Parts-Not-Shown` where the model was not shown all, and
    /// `X-Journal: failing` while it is.
    pub fn headers(&self, policy_version: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-policy-version", HeaderValue::from(policy_version));
        if self.shared.journal_fails() {
            headers.insert(JOURNAL, FAILING);
        }
        // A name that no header can carry is still in the body.
        for (name, value) in [("x-session-id", &self.arrival.session.0), ("x-request-id", &self.id.0)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        let unseen = self.prompt.unseen.iter().map(|(kind, parts)| format!("{kind}={parts}"));
        let unseen = Vec::from_iter(unseen).join(", ");
        if !unseen.is_empty() {
            let value = HeaderValue::from_str(&unseen).expect("kinds and numbers are letters and digits");
            headers.insert("x-parts-not-shown", value);
        }
        headers
    }

    /// What every body and chunk begins with.
    pub fn envelope(&self, object: &str, policy_version: u64) -> Map<String, Value> {
        let mut envelope = Map::new();
        envelope.insert("id".into(), (*self.id.0).into());
        envelope.insert("object".into(), object.into());
        envelope.insert("created".into(), self.created.into());
        envelope.insert("model".into(), self.model.as_str().into());
        envelope.insert("session_id".into(), (*self.arrival.session.0).into());
        envelope.insert("policy_version".into(), policy_version.into());
        envelope
    }
}

/// Counts an answer that its client did not wait for; such a turn is not trained on.
pub struct Uncut {
    armed: bool,
}

impl Uncut {
    /// From here on, being dropped means being cut.
    pub fn watch() -> Self {
        Self { armed: true }
    }

    /// The answer came to an end of its own.
    pub fn ended(mut self) {
        self.armed = false;
    }
}

impl Drop for Uncut {
    fn drop(&mut self) {
        if self.armed {
            metrics::counter!("openclaw_gateway_turns_dropped_total", "reason" => "cut").increment(1);
        }
    }
}

async fn whole(answer: Answer) -> Result<Response, ApiError> {
    let uncut = Uncut::watch();
    let (mut draft, ending) = match draw(&answer).await {
        Ok(drawn) => drawn,
        Err(error) => {
            uncut.ended();
            return Err(error);
        }
    };
    let mut headers = answer.headers(ending.policy_version);
    let mut body = answer.envelope("chat.completion", ending.policy_version);
    let logprobs = draft.take_logprobs();
    let completed = answer.complete(draft, ending).await;
    uncut.ended();
    let completed = completed?;
    if !completed.recorded {
        headers.insert(JOURNAL, FAILING);
    }
    let choice = json!({"index": 0, "message": completed.message, "logprobs": logprobs,
        "finish_reason": completed.finish_reason});
    body.insert("choices".into(), json!([choice]));
    body.insert("usage".into(), completed.usage);
    Ok((headers, Json(Value::Object(body))).into_response())
}

async fn draw(answer: &Answer) -> Result<(Draft, Ending), ApiError> {
    let mut generation = answer.begin().await?;
    let mut draft = answer.draft();
    loop {
        match generation.next().await? {
            Drawn::Token(token, text) => {
                draft.push(&token, &text, &answer.shared.tokenizer);
            }
            Drawn::End(ending, text) => {
                draft.close(&text);
                return Ok((draft, ending));
            }
        }
    }
}

/// A body that takes its time is read on a thread of its own: the async ones have streams to serve.
async fn parse(body: Bytes) -> Result<(ChatRequest, Map<String, Value>), ApiError> {
    if body.len() < LARGE_BODY_BYTES {
        return ChatRequest::parse(&body);
    }
    let parsed = tokio::task::spawn_blocking(move || ChatRequest::parse(&body)).await;
    parsed.unwrap_or_else(|error| {
        warn!(%error, "reading a body failed");
        Err(ApiError::internal("The body could not be read."))
    })
}

/// Refuses what people and tools say when it cannot fit, before anything is made of it. What an assistant said may be
/// left out by the template.
fn check_length(shared: &Shared, chat: &ChatRequest) -> Result<(), ApiError> {
    let said = chat.messages.iter().filter(|message| message["role"] != "assistant");
    let bytes = said.map(|message| match &message["content"] {
        Value::String(text) => text.len(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).map(str::len).sum(),
        _ => 0,
    });
    let tokens = shared.tokenizer.least_tokens(bytes.sum());
    if tokens >= shared.context_length {
        return Err(ApiError::context_length_at_least(tokens, shared.context_length));
    }
    Ok(())
}

/// Compiles what the answer is held to, on a thread of its own: a large schema takes its time.
async fn constrain(
    shared: &Arc<Shared>,
    chat: ChatRequest,
) -> Result<(ChatRequest, Option<Constraint>), ApiError> {
    if !shape::is_constrained(&chat) {
        return Ok((chat, None));
    }
    let (turn, shared) = (shared.admission.turn().await, shared.clone());
    let compiled = tokio::task::spawn_blocking(move || {
        let _held = turn;
        let constraint = shape::constraint(shared.grammars()?, &chat)?;
        Ok((chat, constraint))
    });
    compiled.await.unwrap_or_else(|error| {
        warn!(%error, "compiling a constraint failed");
        Err(ApiError::internal("The form of the answer could not be compiled."))
    })
}

/// The place is held until the work ends, even when the client hangs up meanwhile.
async fn render(
    shared: &Arc<Shared>,
    raw: Arc<Vec<Value>>,
    chat: &ChatRequest,
    place: Admitted,
    room: BodyRoom,
) -> Result<(Prompt, Admitted), ApiError> {
    let turn = shared.admission.turn().await;
    let (tools, mut kwargs) = (chat.shown_tools(), chat.template_kwargs.clone());
    let (most, shared) = (shared.context_length, shared.clone());
    // A long prompt takes its time, and the async threads have streams to serve.
    let rendered = tokio::task::spawn_blocking(move || {
        let _held = (turn, room);
        let unseen = unseen_parts(&raw);
        let prompt = normalize_messages(&raw).and_then(|mut messages| {
            drop(raw);
            let (tokenizer, template) = (&shared.tokenizer, &shared.template);
            template.keep_shown(&mut messages, &mut kwargs);
            let prompt =
                openclaw_model::Prompt::within(most, tokenizer, template, &messages, &tools, &kwargs)?;
            let parser = ParserConfig::new(&tools, prompt.ends_in_thinking);
            Ok(Prompt { ids: prompt.ids, messages, tools, kwargs, parser, unseen })
        });
        (prompt, place)
    });
    match rendered.await {
        Ok((Ok(prompt), _)) if prompt.ids.is_empty() => {
            Err(ApiError::invalid("messages", "The messages make an empty prompt."))
        }
        Ok((Ok(prompt), place)) => Ok((prompt, place)),
        Ok((Err(TextError::TooLong { tokens, most }), _)) => {
            Err(ApiError::context_length_at_least(tokens, most))
        }
        Ok((Err(error), _)) => {
            Err(ApiError::invalid("messages", format!("The messages cannot be rendered: {error}.")))
        }
        Err(error) => {
            warn!(%error, "rendering a prompt failed");
            Err(ApiError::internal("The prompt could not be rendered."))
        }
    }
}

fn sampling(shared: &Shared, chat: &ChatRequest) -> SamplingParams {
    let base = SamplingParams {
        temperature: chat.temperature.unwrap_or(shared.config.default_temperature),
        // 0 means the likeliest token alone.
        top_p: chat.top_p.unwrap_or(shared.config.default_top_p).max(f32::MIN_POSITIVE),
        top_k: chat.top_k.unwrap_or(shared.config.default_top_k),
        min_p: chat.min_p.unwrap_or(0.0).min(1.0 - f32::EPSILON),
        seed: chat.seed,
        ..SamplingParams::default()
    };
    chat.shape.sampling(base)
}
