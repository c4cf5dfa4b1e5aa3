//! The page's data as JSON, for the run's owner and for whoever sends the operator's token.
//!
//! | route | parameters | answer |
//! |---|---|---|
//! | `GET /page/overview` | | `{answer, replies, ratings, pair, question}` |
//! | `GET /page/sessions` | `before` (a place), `limit` (25, at most 100) | `{sessions: [..], next, totals}`, newest first |
//! | `GET /page/session` | `id`, `after` (a place), `limit` (20, at most 50), `tokens` (512) | `{session, episode, turns: [..], next, batch, teaches}`, oldest first |
//! | `GET /page/episodes` | `before` (a place), `limit` (25, at most 100) | `{episodes: [..], next}`, newest first |
//! | `GET /page/episode` | `id`, `after` (a step), `limit` (20, at most 50) | `{episode, steps: [..], next}`, in order |
//! | `GET /page/film` | `id` of an episode | `{frames: [{step, image, width, height, point, score, reason}]}` |
//! | `GET /page/image` | `sha256` | a PNG |
//! | `GET /page/turn` | `id`, `tokens` (8192) | one turn |
//! | `GET /page/learning` | | `{replies, versions, steps, most_replies, most_steps}` |
//! | `GET /page/versions` | `skip`, `limit` (50, at most 200) | `{current, total, versions: [..]}`, newest first |
//! | `POST /page/compare` | `{turn or prompt, old, new}` | `{asked, prompt_tokens, recorded, old, new}` |
//!
//! `next` is the place that a further page starts at, or null. `tokens` is how many of a turn's tokens are shown, at most
//! as many as without it. `batch` is `{ready, of}`: samples that wait for a batch, and those of a full one. A text is
//! `{text, chars}`: `chars` is its whole length, more than `text` has where it was cut. Log-probabilities are in nats;
//! what is missing or not finite is null. Keys are added and never renamed. An error is `{"error": {kind, message}}`,
//! as for the operator's verbs.
//!
//! Looks answer 304 to an `If-None-Match` while nothing in the journal has moved, without reading it.

use axum::{
    Json, Router,
    extract::{Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use openclaw_actors::rollback::RollbackError;
use openclaw_journal::{SessionId, Totals, TurnId};
use serde::{Deserialize, Serialize};

use super::{
    Page,
    comparison::{CompareError, Compared, Question},
    episodes::{EpisodeName, EpisodeSteps, EpisodeView},
    film::Frame,
    learning::{Learning, Versions},
    overview::Overview,
    story::{SessionView, Shown, TurnView},
};
use crate::refusal::{Refusal, RefusalKind};

/// Tokens of each turn of a conversation that are shown with it.
const SESSION_TOKENS: usize = 512;
/// Tokens of a turn that is shown alone.
const TURN_TOKENS: usize = 8192;

/// The data, to whoever can connect.
pub(crate) fn router(page: Page) -> Router {
    let looks = Router::new()
        .route("/page/overview", get(overview))
        .route("/page/sessions", get(sessions))
        .route("/page/session", get(session))
        .route("/page/episodes", get(episodes))
        .route("/page/episode", get(episode))
        .route("/page/film", get(film))
        .route("/page/turn", get(turn))
        .route("/page/learning", get(learning))
        .route("/page/versions", get(versions))
        .route_layer(middleware::from_fn_with_state(page.clone(), unless_unchanged));
    looks.route("/page/compare", post(compare)).route("/page/image", get(image)).with_state(page)
}

/// Where a list starts and how long it is.
#[derive(Debug, Deserialize)]
struct Span {
    id: Option<String>,
    before: Option<u64>,
    after: Option<u64>,
    skip: Option<usize>,
    limit: Option<usize>,
    tokens: Option<usize>,
}

impl Span {
    fn limit(&self, usual: usize, most: usize) -> usize {
        self.limit.unwrap_or(usual).clamp(1, most)
    }

    fn tokens(&self, most: usize) -> usize {
        self.tokens.unwrap_or(most).min(most)
    }

    fn id(&self) -> Result<&str, Refusal> {
        self.id.as_deref().ok_or_else(|| Refusal::new(RefusalKind::Usage, "`id` is missing"))
    }
}

#[derive(Serialize)]
struct Sessions {
    sessions: Vec<SessionView>,
    next: Option<u64>,
    totals: Totals,
}

#[derive(Serialize)]
struct Session {
    session: String,
    episode: Option<EpisodeName>,
    turns: Vec<Shown>,
    next: Option<u64>,
    batch: Batch,
    teaches: bool,
}

/// How far the next batch is.
#[derive(Serialize)]
struct Batch {
    /// Samples that wait for it.
    ready: u64,
    /// Samples of a full one.
    of: usize,
}

async fn sessions(State(page): State<Page>, Query(span): Query<Span>) -> Result<Json<Sessions>, Refusal> {
    let limit = span.limit(25, 100);
    let mut rows = page.journal.sessions(span.before.unwrap_or(u64::MAX), limit + 1).await?;
    let is_more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| is_more).map(|row| row.place);
    let totals = *page.journal.totals().borrow();
    Ok(Json(Sessions { sessions: rows.into_iter().map(SessionView::from).collect(), next, totals }))
}

async fn session(State(page): State<Page>, Query(span): Query<Span>) -> Result<Json<Session>, Refusal> {
    let (id, limit, after) = (span.id()?, span.limit(20, 50), span.after.unwrap_or(0));
    let mut rows = page.journal.stories(&SessionId(id.into()), after, limit + 1).await?;
    if rows.is_empty() && after == 0 {
        return Err(Refusal::new(RefusalKind::Unknown, format!("no session `{id}`")));
    }
    let is_more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| is_more).map(|row| row.place);
    let tokens = span.tokens(SESSION_TOKENS);
    let turns = rows.into_iter().map(|row| Shown::new(row, &page.text.tokenizer, tokens)).collect();
    let batch = Batch { ready: page.journal.backlog().borrow().ready, of: page.batch_samples };
    let episode = page.journal.episode_in(&SessionId(id.into())).await?;
    let episode = episode.map(|row| EpisodeName::new(&row.episode));
    Ok(Json(Session { session: id.to_owned(), episode, turns, next, batch, teaches: page.teaches }))
}

#[derive(Serialize)]
struct Episodes {
    episodes: Vec<EpisodeView>,
    next: Option<u64>,
}

async fn episodes(State(page): State<Page>, Query(span): Query<Span>) -> Result<Json<Episodes>, Refusal> {
    let (episodes, next) = page.episodes(span.before.unwrap_or(u64::MAX), span.limit(25, 100)).await?;
    Ok(Json(Episodes { episodes, next }))
}

async fn episode(State(page): State<Page>, Query(span): Query<Span>) -> Result<Json<EpisodeSteps>, Refusal> {
    let (id, after) = (span.id()?, span.after.unwrap_or(0));
    let from = u32::try_from(after.saturating_add(1)).unwrap_or(u32::MAX);
    let found = page.episode_steps(id, from, span.limit(20, 50)).await?;
    Ok(Json(found.ok_or_else(|| Refusal::new(RefusalKind::Unknown, format!("no episode `{id}`")))?))
}

#[derive(Serialize)]
struct Film {
    frames: Vec<Frame>,
}

async fn film(State(page): State<Page>, Query(span): Query<Span>) -> Result<Json<Film>, Refusal> {
    Ok(Json(Film { frames: page.film(span.id()?).await? }))
}

/// Which image.
#[derive(Debug, Deserialize)]
struct Named {
    sha256: String,
}

async fn image(State(page): State<Page>, Query(named): Query<Named>) -> Result<Response, Refusal> {
    let bytes = page.image(named.sha256).await?;
    Ok(([(header::CONTENT_TYPE, "image/png")], bytes).into_response())
}

async fn turn(State(page): State<Page>, Query(span): Query<Span>) -> Result<Json<TurnView>, Refusal> {
    let id = span.id()?;
    let story = page.journal.story(&TurnId(id.into())).await?;
    let story = story.ok_or_else(|| Refusal::new(RefusalKind::Unknown, format!("no turn `{id}`")))?;
    Ok(Json(TurnView::new(&story, &page.text.tokenizer, span.tokens(TURN_TOKENS))))
}

async fn overview(State(page): State<Page>) -> Result<Json<Overview>, Refusal> {
    Ok(Json(page.overview().await?))
}

async fn learning(State(page): State<Page>) -> Result<Json<Learning>, Refusal> {
    Ok(Json(page.learning().await?))
}

async fn versions(State(page): State<Page>, Query(span): Query<Span>) -> Result<Json<Versions>, Refusal> {
    Ok(Json(page.versions(span.skip.unwrap_or(0), span.limit(50, 200)).await?))
}

async fn compare(
    State(page): State<Page>,
    question: Result<Json<Question>, axum::extract::rejection::JsonRejection>,
) -> Result<Json<Compared>, Refusal> {
    let Json(question) = question.map_err(|error| Refusal::new(RefusalKind::Usage, error.body_text()))?;
    Ok(Json(page.comparison.compare(question).await?))
}

impl From<CompareError> for Refusal {
    fn from(error: CompareError) -> Self {
        let kind = match &error {
            CompareError::Which | CompareError::Prompt { .. } => RefusalKind::Usage,
            CompareError::Unknown { .. } | CompareError::Version(RollbackError::Unknown { .. }) => {
                RefusalKind::Unknown
            }
            CompareError::TooLong { .. } => RefusalKind::NeverHere,
            CompareError::Busy
            | CompareError::Memory { .. }
            | CompareError::Version(RollbackError::NotKept { .. }) => RefusalKind::NotNow,
            CompareError::Late { .. }
            | CompareError::Cut { .. }
            | CompareError::Version(_)
            | CompareError::Engine(_)
            | CompareError::Journal(_) => RefusalKind::Failed,
        };
        Self { kind, ..Self::failed(error) }
    }
}

impl Page {
    /// Changes with everything that a look could show.
    fn moment(&self) -> String {
        let (totals, backlog) = (*self.journal.totals().borrow(), *self.journal.backlog().borrow());
        format!(
            "\"{:x}-{}-{}-{}-{}-{}\"",
            self.process,
            backlog.last_seq,
            backlog.dead,
            totals.steps + totals.withheld,
            totals.version,
            self.rollback.versions.number(),
        )
    }
}

async fn unless_unchanged(
    State(page): State<Page>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Response {
    // Before the look: what moves meanwhile is found by the next one.
    let moment = page.moment();
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == moment.as_bytes()) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    let mut response = next.run(request).await;
    if response.status() == StatusCode::OK {
        let moment = HeaderValue::from_str(&moment).expect("digits and dashes are visible");
        response.headers_mut().insert(header::ETAG, moment);
    }
    response
}
