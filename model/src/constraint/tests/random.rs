//! Schemas by chance, of the keywords that are held.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

/// A schema, or one with definitions that it refers to.
pub fn schema(rng: &mut ChaCha8Rng) -> Value {
    let mut schema = of_depth(rng, 3);
    if rng.random_bool(0.2) {
        let definition = of_depth(rng, 1);
        schema = json!({"$defs": {"part": definition}, "type": "object", "required": ["part"],
            "properties": {"part": {"$ref": "#/$defs/part"}, "rest": schema}, "additionalProperties": false});
    }
    schema
}

fn of_depth(rng: &mut ChaCha8Rng, depth: usize) -> Value {
    let kinds = if depth == 0 { 8 } else { 12 };
    match rng.random_range(0..kinds) {
        0 => json!({"type": "boolean"}),
        1 => json!({"type": "null"}),
        2 => integer(rng),
        3 => number(rng),
        4 => string(rng),
        5 => {
            let values = [json!("red"), json!("blue"), json!(7), json!(null), json!(true), json!("日本")];
            json!({"enum": values[..rng.random_range(1..6)]})
        }
        6 => {
            let texts = ["a \"quoted\" one", "", "ß", "tab\t"];
            json!({"const": texts[rng.random_range(0..texts.len())]})
        }
        7 => {
            let formats = ["uuid", "ipv4"];
            json!({"type": "string", "format": formats[rng.random_range(0..formats.len())]})
        }
        8 => {
            let least = rng.random_range(0..3);
            let most = least + rng.random_range(0..3);
            json!({"type": "array", "items": of_depth(rng, depth - 1), "minItems": least, "maxItems": most})
        }
        9 => json!({"anyOf": [of_depth(rng, depth - 1), of_depth(rng, depth - 1)]}),
        _ => object(rng, depth),
    }
}

fn integer(rng: &mut ChaCha8Rng) -> Value {
    let least = rng.random_range(-200..200);
    match rng.random_range(0..4) {
        0 => json!({"type": "integer", "minimum": least, "maximum": least + rng.random_range(0..300)}),
        1 => json!({"type": "integer", "exclusiveMinimum": least, "exclusiveMaximum": least + 9}),
        2 => json!({"type": "integer", "minimum": 0, "maximum": 1000, "multipleOf": rng.random_range(1..9)}),
        _ => json!({"type": "integer"}),
    }
}

fn number(rng: &mut ChaCha8Rng) -> Value {
    match rng.random_range(0..3) {
        0 => json!({"type": "number", "minimum": -1.5, "maximum": 2.25}),
        1 => json!({"type": ["number", "null"], "exclusiveMinimum": 0}),
        _ => json!({"type": "number"}),
    }
}

fn string(rng: &mut ChaCha8Rng) -> Value {
    let least = rng.random_range(0..4);
    match rng.random_range(0..4) {
        0 => json!({"type": "string", "minLength": least, "maxLength": least + rng.random_range(0..20)}),
        1 => json!({"type": "string", "pattern": "^[A-Z][a-z]{1,6}( [0-9]+)?$"}),
        2 => json!({"type": "string", "pattern": "[xyz]", "maxLength": 8}),
        _ => json!({"type": "string"}),
    }
}

fn object(rng: &mut ChaCha8Rng, depth: usize) -> Value {
    let names = ["id", "name", "größe", "a b", "quoted\"", "x"];
    let mut properties = Map::new();
    let mut required = Vec::new();
    for name in &names[..rng.random_range(0..names.len())] {
        properties.insert((*name).to_owned(), of_depth(rng, depth - 1));
        if rng.random_bool(0.6) {
            required.push(*name);
        }
    }
    let mut schema = json!({"type": "object", "properties": properties, "required": required});
    match rng.random_range(0..4) {
        0 => {}
        1 => schema["additionalProperties"] = json!({"type": "integer"}),
        _ => schema["additionalProperties"] = json!(false),
    }
    schema
}
