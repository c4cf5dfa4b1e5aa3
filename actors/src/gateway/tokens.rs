//! `POST /tokenize` and `/detokenize`, in vLLM's form and in llama.cpp's, and how long other prompts are: agents budget
//! their contexts with them.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
};
use serde_json::{Value, json};

use super::{
    Shared,
    answer::aside,
    body,
    errors::ApiError,
    prompt,
    protocol::{
        Ask, Asked,
        chat::prompt_ask,
        completions::ids_of,
        fields::{Fields, boolean, given, object_of, string, wrong},
    },
};

/// The ids of what a request would show the model; nobody is told of the request.
pub async fn prompt_ids(
    shared: &Arc<Shared>,
    request: Request,
    read: impl FnOnce(&mut Fields) -> Result<Ask, ApiError> + Send + 'static,
) -> Result<Vec<u32>, ApiError> {
    Ok(prompt_and_fields(shared, request, read).await?.0)
}

async fn prompt_and_fields(
    shared: &Arc<Shared>,
    request: Request,
    read: impl FnOnce(&mut Fields) -> Result<Ask, ApiError> + Send + 'static,
) -> Result<(Vec<u32>, Fields), ApiError> {
    let (_, body, room) = body::receive_admitted(shared, request).await?;
    let (mut ask, fields) = aside(true, move || {
        let mut fields = object_of(&body)?;
        Ok((read(&mut fields)?, fields))
    })
    .await?;
    let mut asked = std::mem::take(&mut ask.asked);
    if let Asked::Messages(messages) = &mut asked {
        ask.take_begun(messages)?;
    }
    prompt::check(shared, &asked)?;
    let place = shared.admission.admit().await?;
    let shown = match &asked {
        Asked::Messages(messages) => Arc::new(messages.clone()),
        Asked::Text(_) | Asked::Ids(_) => Arc::default(),
    };
    let (prompt, _) = prompt::render(shared, asked, shown, &ask, place, room).await?;
    Ok((prompt.ids, fields))
}

/// `POST /tokenize`.
pub async fn tokenize(State(shared): State<Arc<Shared>>, request: Request) -> Result<Json<Value>, ApiError> {
    let (ids, fields) = prompt_and_fields(&shared, request, |fields| {
        let (prompt, content) = (string(fields, "prompt")?, string(fields, "content")?);
        match prompt.or(content) {
            Some(text) => Ok(Ask { asked: Asked::Text(text), ..Ask::default() }),
            None if given(fields, "messages").is_some() => prompt_ask(fields),
            None => {
                let message = "Missing required parameter: 'prompt', 'content' or 'messages'.";
                Err(ApiError::invalid("prompt", message))
            }
        }
    })
    .await?;
    let spell = |id: u32| String::from_utf8_lossy(&shared.tokenizer.token_bytes(id)).into_owned();
    let pieces = boolean(&fields, "with_pieces")?.unwrap_or(false);
    let strings = boolean(&fields, "return_token_strs")?.unwrap_or(false);
    let tokens: Value = if pieces {
        ids.iter().map(|&id| json!({"id": id, "piece": spell(id)})).collect()
    } else {
        ids.as_slice().into()
    };
    let strings = strings.then(|| ids.iter().map(|&id| spell(id)).collect::<Vec<_>>());
    Ok(Json(json!({"count": ids.len(), "max_model_len": shared.context_length, "tokens": tokens,
        "token_strs": strings})))
}

/// `POST /detokenize`.
pub async fn detokenize(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let (parts, body) = request.into_parts();
    let body = body::receive_small(&parts.headers, body, shared.config.max_body_bytes).await?;
    let fields = object_of(&body)?;
    let tokens = given(&fields, "tokens").unwrap_or(&Value::Null);
    let tokens = tokens.as_array().ok_or_else(|| wrong("tokens", "an array of token ids", tokens))?;
    let text = shared.tokenizer.decode(&ids_of(tokens, "tokens")?, false);
    Ok(Json(json!({"prompt": text, "content": text})))
}
