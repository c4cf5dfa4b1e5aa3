//! JSON as a template's values and back, with numbers as Python has them: whole ones of any size, others as floats.

use std::{fmt, sync::Arc};

use minijinja::{
    Error, ErrorKind,
    value::{Object, ObjectRepr, Serde, Value, ValueKind},
};
use serde::{Serialize, Serializer};
use serde_json::{Map, Number, Value as Json};

use crate::exact_json::{self, PythonNumber, python_number};

/// A whole number that has no place in 128 bits: its digits.
#[derive(Debug)]
struct BigInteger(String);

impl Object for BigInteger {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object as a template sees it.
pub(crate) fn template_object(fields: &Map<String, Json>) -> Value {
    Value::from(Serde(&ShownFields(fields)))
}

/// For minijinja's serializer, which takes a value of its own as it is.
struct Shown<'a>(&'a Json);

struct ShownFields<'a>(&'a Map<String, Json>);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Json::Array(items) => serializer.collect_seq(items.iter().map(Shown)),
            Json::Object(fields) => ShownFields(fields).serialize(serializer),
            other => match python_number(other) {
                Some(PythonNumber::Integer(digits)) => integer(digits).serialize(serializer),
                Some(PythonNumber::Float(float)) => serializer.serialize_f64(float),
                None => other.serialize(serializer),
            },
        }
    }
}

impl Serialize for ShownFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, Shown(value))))
    }
}

fn integer(digits: &str) -> Value {
    match (digits.parse::<i128>(), digits.parse::<u128>()) {
        (Ok(number), _) => Value::from(number),
        (_, Ok(number)) => Value::from(number),
        _ => Value::from_object(BigInteger(digits.to_owned())),
    }
}

/// What a template made, as JSON.
pub(crate) fn json_of(value: &Value) -> Result<Json, Error> {
    Ok(match value.kind() {
        ValueKind::Undefined | ValueKind::None => Json::Null,
        ValueKind::Bool => value.is_true().into(),
        ValueKind::Number => number(value)?,
        ValueKind::String => value.as_str().unwrap_or_default().into(),
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter()?.map(|item| json_of(&item)).collect::<Result<_, _>>()?
        }
        ValueKind::Map => {
            let field = |key: Value| {
                let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                Ok::<_, Error>((name, json_of(&value.get_item(&key)?)?))
            };
            Json::Object(value.try_iter()?.map(field).collect::<Result<_, _>>()?)
        }
        _ => match value.downcast_object_ref::<BigInteger>() {
            Some(BigInteger(digits)) => exact_json::number(digits),
            None => serde_json::to_value(value)
                .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))?,
        },
    })
}

fn number(value: &Value) -> Result<Json, Error> {
    if value.is_integer() {
        let digits = value.to_string();
        return Ok(digits
            .parse::<Number>()
            .ok()
            .filter(|number| !number.is_f64())
            .map_or_else(|| exact_json::number(&digits), Json::from));
    }
    let float = f64::try_from(value.clone())?;
    Ok(match Number::from_f64(float) {
        Some(number) => number.into(),
        None if float.is_nan() => Json::Null,
        // JSON has no word for it; Python's has.
        None => exact_json::number(if float > 0.0 { "1e999" } else { "-1e999" }),
    })
}
