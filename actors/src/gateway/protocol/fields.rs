//! Typed reads of a body's fields; every wrong value is a 400 that names its field, and null counts as left out.

use openclaw_model::exact_json;
use serde_json::{Map, Value};

use super::super::{body, errors::ApiError};

const MAX_STOPS: usize = 16;

/// A JSON object.
pub type Fields = Map<String, Value>;

/// Reads a body as a JSON object.
pub fn object_of(body: &[u8]) -> Result<Fields, ApiError> {
    match body::read_request(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(ApiError::not_json(format!("The body is {}, not a JSON object.", a_kind(&other)))),
        Err(error) => Err(ApiError::not_json(format!("The body is not valid JSON: {error}."))),
    }
}

/// A field's value; null counts as left out.
pub fn given<'a>(fields: &'a Fields, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

pub fn wrong(path: &str, expected: &str, value: &Value) -> ApiError {
    ApiError::invalid(
        path,
        format!("Invalid value for '{path}': expected {expected}, got {}.", a_kind(value)),
    )
}

pub fn a_kind(value: &Value) -> &'static str {
    match value {
        _ if exact_json::literal(value).is_some() => "a number out of range",
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

pub fn string(fields: &Fields, name: &str) -> Result<Option<String>, ApiError> {
    let Some(value) = given(fields, name) else { return Ok(None) };
    value.as_str().map(|text| Some(text.to_owned())).ok_or_else(|| wrong(name, "a string", value))
}

pub fn boolean(fields: &Fields, name: &str) -> Result<Option<bool>, ApiError> {
    let Some(value) = given(fields, name) else { return Ok(None) };
    value.as_bool().map(Some).ok_or_else(|| wrong(name, "a boolean", value))
}

pub fn object<'a>(fields: &'a Fields, name: &str) -> Result<Option<&'a Fields>, ApiError> {
    let Some(value) = given(fields, name) else { return Ok(None) };
    value.as_object().map(Some).ok_or_else(|| wrong(name, "an object", value))
}

pub fn number(fields: &Fields, name: &str, least: f64, most: f64) -> Result<Option<f32>, ApiError> {
    let Some(value) = given(fields, name) else { return Ok(None) };
    let number = value.as_f64().ok_or_else(|| wrong(name, "a number", value))?;
    if !(least..=most).contains(&number) {
        let message = format!("Invalid value for '{name}': {number} is not between {least} and {most}.");
        return Err(ApiError::invalid(name, message));
    }
    Ok(Some(number as f32))
}

pub fn integer(fields: &Fields, name: &str, least: i64, most: i64) -> Result<Option<i64>, ApiError> {
    let Some(value) = given(fields, name) else { return Ok(None) };
    // Some clients write whole numbers as 256.0.
    let whole =
        value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15).map(|n| n as i64);
    let number = value.as_i64().or(whole).ok_or_else(|| wrong(name, "an integer", value))?;
    if !(least..=most).contains(&number) {
        let message = format!("Invalid value for '{name}': {number} is out of range.");
        return Err(ApiError::invalid(name, message));
    }
    Ok(Some(number))
}

pub fn top_k(fields: &Fields) -> Result<Option<usize>, ApiError> {
    // -1 is how vLLM and SGLang say "all".
    Ok(integer(fields, "top_k", -1, i64::MAX)?.map(|k| usize::try_from(k).unwrap_or(0)))
}

pub fn stop(fields: &Fields) -> Result<Vec<String>, ApiError> {
    stops(fields, "stop")
}

/// Strings that end the answer, under any name.
pub fn stops(fields: &Fields, name: &str) -> Result<Vec<String>, ApiError> {
    let stops = match given(fields, name) {
        None => return Ok(Vec::new()),
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(Value::Array(stops)) => {
            let text = |(i, stop): (usize, &Value)| {
                let path = format!("{name}[{i}]");
                stop.as_str().map(str::to_owned).ok_or_else(|| wrong(&path, "a string", stop))
            };
            stops.iter().enumerate().map(text).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong(name, "a string or an array of strings", other)),
    };
    if stops.len() > MAX_STOPS {
        let message = format!("'{name}' has {} strings; at most {MAX_STOPS} are possible.", stops.len());
        return Err(ApiError::invalid(name, message));
    }
    if stops.iter().any(String::is_empty) {
        return Err(ApiError::invalid(
            name,
            format!("A string of '{name}' is empty: it would end every answer."),
        ));
    }
    Ok(stops)
}
