//! A request to the model, in whatever format. The order matters: sessions hear of a request before it is answered, so
//! that it is the next state of the turn before; and of the answer before the client sees its end, so that no later
//! request can overtake it.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use axum::{
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue},
    response::Response,
};
use openclaw_journal::{SessionId, Turn, TurnId, TurnKind};
use openclaw_model::{Constraint, FinishReason, GenerateRequest, SamplingParams, ScoreRequest};
use serde_json::{Value, json};
use tracing::{Span, debug_span, field::Empty, warn};

use super::{
    Shared,
    admission::Admitted,
    body, completion,
    draft::Draft,
    errors::ApiError,
    generation::{self, Ending, Generation},
    marks::request_marks,
    models::unix_secs,
    prompt::{self, Prompt},
    protocol::{
        Ask, Asked, Continues, Head, Part, PromptLogprobs, Protocol, Reply,
        chat::message,
        fields::{Fields, object_of},
        shape,
    },
    recall, stream, whole,
};
use crate::{
    conversation,
    engine::Engine,
    sessions::{Arrival, ArrivedRequest, TurnCompleted},
};

/// From here on, reading a body as JSON takes longer than a stream should wait.
const LARGE_BODY_BYTES: usize = 64 << 10;

/// Told with a reply that may be lost with the process.
pub const JOURNAL: &str = "x-journal";
/// See [`JOURNAL`].
pub const FAILING: HeaderValue = HeaderValue::from_static("failing");

/// The handler of a format.
pub async fn post<P: Protocol>(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
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
    let (parts, body, room) = body::receive_admitted(&shared, request).await?;
    let (mut ask, writer, fields) = read::<P>(&shared, body).await?;
    let (model, side_model) = shared.models.resolve(ask.model.as_deref())?;
    let mut marks = request_marks(&parts.headers, &fields, side_model);
    drop(fields);

    let mut asked = match std::mem::take(&mut ask.asked) {
        Asked::Messages(messages) => {
            let (mut messages, session) = continued(&shared, ask.continues.as_ref(), messages).await?;
            ask.take_begun(&mut messages)?;
            marks.session_body = marks.session_body.or(session.map(|session| session.0.to_string()));
            Asked::Messages(messages)
        }
        raw => {
            marks.turn_type = Some("side".to_owned());
            raw
        }
    };
    prompt::check(&shared, &asked)?;
    ask.shape.check_ids(&shared.tokenizer)?;
    let (ask, constraint) = constrain(&shared, ask).await?;
    let shown = Arc::new(match &mut asked {
        Asked::Messages(messages) => std::mem::take(messages),
        Asked::Text(text) => vec![json!({"role": "user", "content": text})],
        Asked::Ids(ids) => vec![json!({"role": "user", "content": shared.tokenizer.decode(ids, false)})],
    });
    let arrived = ArrivedRequest::new(marks, shown.clone(), !ask.tools.is_empty());
    let arrival = shared.sessions.arrive(arrived).await;
    let kind = if arrival.kind == TurnKind::Main { "main" } else { "side" };
    metrics::counter!("openclaw_gateway_turns_total", "kind" => kind).increment(1);
    span.record("kind", kind);

    let place = shared.admission.admit().await?;
    let (mut prompt, place) = prompt::render(&shared, asked, shown, &ask, place, room).await?;
    let room = shared.context_length.saturating_sub(prompt.ids.len());
    if room == 0 {
        return Err(ApiError::context_length(prompt.ids.len(), shared.context_length));
    }
    metrics::counter!("openclaw_gateway_prompt_tokens_total").increment(prompt.ids.len() as u64);
    for (kind, parts) in &ask.unseen {
        *prompt.unseen.entry(kind).or_default() += parts;
    }
    for (kind, parts) in &prompt.unseen {
        metrics::counter!("openclaw_gateway_parts_not_shown_total", "kind" => *kind).increment(*parts);
    }
    let generate = GenerateRequest {
        prompt_ids: prompt.ids.clone(),
        drawn_ids: Vec::new(),
        sampling: sampling(&shared, &ask),
        max_new_tokens: ask.max_tokens.unwrap_or(shared.config.default_max_tokens).clamp(1, room),
        stop: ask.stop.clone(),
        top_logprobs: ask.top_logprobs,
        constraint,
    };
    let turns: Vec<TurnId> = (0..ask.choices).map(|_| new_id(P::ID_PREFIX, ask.unstored)).collect();
    let head = Head {
        id: turns[0].clone(),
        created: unix_secs(SystemTime::now()),
        model,
        session: arrival.session.clone(),
        policy_version: shared.engines.iter().map(Engine::version).max().unwrap_or(0),
        choices: ask.choices,
        prompt_ids: prompt.ids.clone(),
        prompt_logprobs: prompt_logprobs(&shared, &ask, &prompt.ids).await?,
        tokenizer: shared.tokenizer.clone(),
    };
    let answer = Answer { turns, shared, ask, arrival, prompt, generate, received, span, _place: place };
    answer.tell_of(&head, &parts.headers);
    if answer.ask.stream {
        stream::respond(answer, head, writer).await
    } else {
        whole::respond(answer, head, writer).await
    }
}

async fn read<P: Protocol>(shared: &Shared, body: Bytes) -> Result<(Ask, P::Writer, Fields), ApiError> {
    let is_large = body.len() >= LARGE_BODY_BYTES;
    let mut fields = aside(is_large, move || object_of(&body)).await?;
    P::resolve(&mut fields, shared).await?;
    aside(is_large, move || {
        let (ask, writer) = P::read(&mut fields)?;
        Ok((ask, writer, fields))
    })
    .await
}

/// What takes its time is done on a thread of its own: the async ones have streams to serve.
pub async fn aside<T: Send + 'static>(
    takes_time: bool,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if !takes_time {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        warn!(%error, "reading a request failed");
        Err(ApiError::internal("The request could not be read."))
    })
}

/// The messages behind those of the turn that they continue and its reply, and that turn's session.
async fn continued(
    shared: &Shared,
    continues: Option<&Continues>,
    messages: Vec<Value>,
) -> Result<(Vec<Value>, Option<SessionId>), ApiError> {
    let turn = match continues {
        None => return Ok((messages, None)),
        Some(Continues::Turn(id)) => recall::turn(shared, id).await?.0,
        Some(Continues::Session(name)) => {
            let session = SessionId(name.as_str().into());
            match recall::last_turn(shared, &session).await? {
                Some(turn) => turn,
                None => return Ok((messages, Some(session))),
            }
        }
    };
    let reply = conversation::reply(&turn);
    // As in OpenAI's API: instructions are said anew with each request, and stand first.
    let leads =
        |messages: &[Value]| messages.iter().take_while(|message| message["role"] == "system").count();
    let mut said = messages;
    let mut messages: Vec<Value> = said.drain(..leads(&said)).collect();
    messages.extend(turn.messages[leads(&turn.messages)..].iter().cloned());
    messages.push(reply);
    messages.append(&mut said);
    Ok((messages, Some(turn.session.clone())))
}

/// Compiles what the answer is held to, on a thread of its own: a large schema takes its time.
async fn constrain(shared: &Arc<Shared>, ask: Ask) -> Result<(Ask, Option<Constraint>), ApiError> {
    if !shape::is_constrained(&ask) {
        return Ok((ask, None));
    }
    if ask.begun.is_some() {
        let message = "A reply that goes on from the assistant's last message cannot be held to a form.";
        return Err(ApiError::invalid("messages", message));
    }
    let (turn, shared) = (shared.admission.turn().await, shared.clone());
    aside(true, move || {
        let _held = turn;
        let constraint = shape::constraint(shared.grammars()?, &ask)?;
        Ok((ask, constraint))
    })
    .await
}

async fn prompt_logprobs(
    shared: &Shared,
    ask: &Ask,
    prompt_ids: &[u32],
) -> Result<Option<PromptLogprobs>, ApiError> {
    let Some(top_k) = ask.prompt_logprobs else { return Ok(None) };
    if prompt_ids.len() < 2 {
        return Ok(Some(PromptLogprobs::default()));
    }
    let request =
        ScoreRequest { ids: prompt_ids.to_vec(), start: 1, temperature: 1.0, top_k, ..Default::default() };
    let scored = generation::score(shared, request).await?;
    Ok(Some(PromptLogprobs { logprobs: scored.logprobs, top: scored.top }))
}

fn new_id(prefix: &str, unstored: bool) -> TurnId {
    let mark = if unstored { recall::UNSTORED } else { "" };
    TurnId(format!("{prefix}{mark}{}", uuid::Uuid::new_v4().simple()).into())
}

/// A request that is being answered.
pub struct Answer {
    /// What the gateway serves with.
    pub shared: Arc<Shared>,
    /// What the client asked for.
    pub ask: Ask,
    /// Names of the answers' turns.
    turns: Vec<TurnId>,
    arrival: Arrival,
    prompt: Prompt,
    generate: GenerateRequest,
    received: Instant,
    span: Span,
    _place: Admitted,
}

impl Answer {
    /// An empty reply to fill.
    pub fn draft(&self, choice: usize) -> Draft {
        Draft::new(&self.turns[choice], self.prompt.parser.clone(), self.ask.wants_tokens)
    }

    /// Tells its span what is known before the first token.
    fn tell_of(&self, head: &Head, headers: &HeaderMap) {
        let (id, session) = (tracing::field::display(&head.id), tracing::field::display(&head.session));
        self.span.record("turn", id).record("session", session);
        self.span.record("model", &*head.model);
        self.span.record("temperature", f64::from(self.generate.sampling.temperature));
        self.span.record("prompt_tokens", self.prompt.ids.len());
        if let Some(caller) = headers.get("traceparent").and_then(|value| value.to_str().ok()) {
            self.span.record("traceparent", caller);
        }
    }

    /// Begins to draw one of the answers and waits for its first token. The first should begin before the others, which
    /// then find its prompt in the cache.
    pub async fn begin(&self, choice: usize) -> Result<Generation, ApiError> {
        let mut request = self.generate.clone();
        // Else all would be the same.
        request.sampling.seed = request.sampling.seed.map(|seed| seed.wrapping_add(choice as u64));
        let generation = Generation::begin(self.shared.clone(), &self.arrival.session, request).await?;
        if choice == 0 {
            let waited = self.received.elapsed().as_secs_f64();
            metrics::histogram!("openclaw_gateway_time_to_first_token_seconds").record(waited);
            self.span.record("first_token_secs", waited);
        }
        Ok(generation)
    }

    /// Hands a finished turn on, and returns its reply and whether it is recorded. The client must not see its end
    /// before.
    pub async fn complete(
        &self,
        choice: usize,
        mut draft: Draft,
        ending: Ending,
    ) -> Result<(Reply, bool), ApiError> {
        let drawn = draft.response_ids().len();
        let id = self.turns[choice].clone();
        let reply = Reply {
            choice,
            turn: id.clone(),
            parts: draft.parts().to_vec(),
            reason: ending.reason,
            stopped_by: self.stopped_by(&draft, ending.reason),
            tokens: draft.take_tokens(),
            text: draft.text().to_owned(),
            drawn,
            cached: ending.cached_tokens,
        };
        let reason = finish_reason(&reply);
        self.span.record("version", ending.policy_version).record("completion_tokens", drawn);
        self.span.record("cached_tokens", ending.cached_tokens).record("finish_reason", reason);
        let completion = draft.into_completion(
            self.prompt.ids.clone(),
            ending.policy_version,
            self.generate.sampling.temperature,
            ending.reason,
        );
        let turn = Arc::new(Turn {
            id,
            session: self.arrival.session.clone(),
            index: self.arrival.index,
            kind: self.arrival.kind,
            trainable: self.arrival.trainable && !ending.mixed_versions && self.ask.begun.is_none(),
            messages: self.prompt.messages.clone(),
            tools: self.prompt.tools.clone(),
            template_kwargs: self.prompt.kwargs.clone(),
            completion,
        });
        if turn.kind == TurnKind::Main && !turn.trainable {
            let reason = match &self.ask.begun {
                _ if ending.mixed_versions => "mixed_versions",
                // Its beginning is not the model's, and a teacher could not be shown it.
                Some(_) if self.arrival.trainable => "begun_by_client",
                _ => "no_train",
            };
            metrics::counter!("openclaw_gateway_turns_dropped_total", "reason" => reason).increment(1);
        }
        // It comes back as one message.
        let begun = self.ask.begun.clone().map(Part::Content);
        let said: Vec<Part> = begun.into_iter().chain(reply.parts.iter().cloned()).collect();
        let mark = self.arrival.fingerprint.mark(&message(&said));
        let recorded = completion::complete(self.shared.clone(), TurnCompleted { turn, mark }).await?;
        metrics::counter!("openclaw_gateway_completion_tokens_total").increment(drawn as u64);
        metrics::counter!("openclaw_gateway_replies_total", "finish_reason" => reason).increment(1);
        metrics::histogram!("openclaw_gateway_reply_seconds").record(self.received.elapsed());
        Ok((reply, recorded))
    }

    /// Engines do not say which stop string ended a reply: the first that the drawn text completes.
    fn stopped_by(&self, draft: &Draft, reason: FinishReason) -> Option<String> {
        if reason != FinishReason::Stop || self.generate.stop.is_empty() {
            return None;
        }
        let drawn = self.shared.tokenizer.decode(draft.response_ids(), true);
        let ends = |stop: &&String| drawn.find(stop.as_str()).map(|start| (start + stop.len(), start));
        let first = self.generate.stop.iter().filter(|stop| ends(stop).is_some()).min_by_key(ends);
        first.cloned()
    }

    /// `X-Session-Id`, `X-Policy-Version`, `X-Request-Id`; `X-Parts-Not-Shown` where the model was not shown all, and
    /// `X-Journal: failing` while it is.
    pub fn headers(&self, head: &Head) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-policy-version", HeaderValue::from(head.policy_version));
        if self.shared.journal_fails() {
            headers.insert(JOURNAL, FAILING);
        }
        // A name that no header can carry is still in the body.
        for (name, value) in [("x-session-id", &head.session.0), ("x-request-id", &head.id.0)] {
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
}

/// OpenAI's word for the end.
fn finish_reason(reply: &Reply) -> &'static str {
    match reply.reason {
        FinishReason::Length => "length",
        _ if reply.has_calls() => "tool_calls",
        _ => "stop",
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

fn sampling(shared: &Shared, ask: &Ask) -> SamplingParams {
    let base = SamplingParams {
        temperature: ask.temperature.unwrap_or(shared.config.default_temperature),
        // 0 means the likeliest token alone.
        top_p: ask.top_p.unwrap_or(shared.config.default_top_p).max(f32::MIN_POSITIVE),
        top_k: ask.top_k.unwrap_or(shared.config.default_top_k),
        min_p: ask.min_p.unwrap_or(0.0).min(1.0 - f32::EPSILON),
        seed: ask.seed,
        ..SamplingParams::default()
    };
    ask.shape.sampling(base)
}
