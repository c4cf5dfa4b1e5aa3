//! OpenAI's chat completions, with the fields that vLLM adds.

mod read;
mod writer;

pub use self::{
    read::{choices, include_usage, prompt_ask, prompt_logprobs},
    writer::{ChatWriter, envelope, message, usage},
};
use super::{super::errors::ApiError, Ask, Protocol, fields::Fields};

/// `POST /v1/chat/completions`.
#[derive(Debug)]
pub struct Chat;

impl Protocol for Chat {
    const NAME: &'static str = "chat_completions";
    const ID_PREFIX: &'static str = "chatcmpl-";
    type Writer = ChatWriter;

    fn read(fields: &mut Fields) -> Result<(Ask, ChatWriter), ApiError> {
        read::read(fields)
    }
}
