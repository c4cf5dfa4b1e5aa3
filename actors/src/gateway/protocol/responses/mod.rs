//! OpenAI's Responses: what Codex, openai-agents and ai-sdk speak by default.

mod items;
mod read;
mod stored;
mod writer;

pub use self::stored::get;
use self::writer::ResponsesWriter;
use super::{
    super::{Shared, errors::ApiError},
    Ask, Protocol,
    fields::Fields,
};

/// `POST /v1/responses`.
#[derive(Debug)]
pub struct Responses;

impl Protocol for Responses {
    const NAME: &'static str = "responses";
    const ID_PREFIX: &'static str = "resp_";
    type Writer = ResponsesWriter;

    async fn resolve(fields: &mut Fields, shared: &Shared) -> Result<(), ApiError> {
        stored::resolve_references(fields, shared).await
    }

    fn read(fields: &mut Fields) -> Result<(Ask, ResponsesWriter), ApiError> {
        read::read(fields)
    }
}
