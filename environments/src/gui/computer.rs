//! The tool `computer_use`, as models that see a screen have learnt it: thirteen actions in one, places from 0 to 999.

use serde_json::{Value, json};

use super::act::{Act, Button, Deed, Fault, Point, typed};
use crate::world::{Call, Tool};

/// Of the tool.
pub(super) const NAME: &str = "computer_use";

/// Its actions.
const ACTIONS: [&str; 13] = [
    "key",
    "type",
    "mouse_move",
    "left_click",
    "left_click_drag",
    "right_click",
    "middle_click",
    "double_click",
    "triple_click",
    "scroll",
    "hscroll",
    "wait",
    "terminate",
];

/// Places go up to here, and not to it.
const SCALE: f64 = 1000.0;
/// The longest wait, in seconds.
const WAIT_SECS: f64 = 10.0;
/// The most pixels that are scrolled at once.
const SCROLL_PIXELS: f64 = 10_000.0;
/// The most keys at once.
const KEYS: usize = 8;

/// As it is offered.
pub(super) fn tool() -> Tool {
    let numbers = json!({"type": "integer", "minimum": 0, "maximum": 999});
    let properties = json!({
        "action": {"type": "string", "enum": ACTIONS},
        "coordinate": {
            "type": "array", "items": numbers, "minItems": 2, "maxItems": 2,
            "description": "Where: x and y, from 0 at the left and at the top to 999",
        },
        "text": {"type": "string", "description": "What to type; for type"},
        "keys": {"type": "array", "items": {"type": "string"}, "description": "Held together; for key"},
        "pixels": {"type": "number", "description": "For scroll, up where more than 0; for hscroll, to the right"},
        "time": {"type": "number", "description": "Seconds, at most 10; for wait"},
        "status": {"type": "string", "enum": ["success", "failure"], "description": "For terminate"},
    });
    Tool {
        name: NAME.to_owned(),
        description: "Use the mouse and the keyboard".to_owned(),
        parameters: json!({"type": "object", "properties": properties, "required": ["action"]}),
    }
}

/// What a call asks for.
pub(super) fn read(call: &Call, size: (u32, u32)) -> Result<Deed, Fault> {
    let action = call.text("action").unwrap_or_default();
    let click = |button, count| {
        let at = needed(place(call, size)?)?;
        Ok(Deed::Act(Act::Click { at, button, count, key: None }))
    };
    match action {
        "key" => Ok(Deed::Act(Act::Press { keys: keys(call)? })),
        "type" => Ok(Deed::Act(Act::Type { text: typed(call)?, into: None })),
        "mouse_move" => Ok(Deed::Act(Act::Move { to: needed(place(call, size)?)? })),
        "left_click" => click(Button::Left, 1),
        "left_click_drag" => Ok(Deed::Act(Act::Drag { to: needed(place(call, size)?)? })),
        "right_click" => click(Button::Right, 1),
        "middle_click" => click(Button::Middle, 1),
        "double_click" => click(Button::Left, 2),
        "triple_click" => click(Button::Left, 3),
        "scroll" => {
            let down = -number(call, "pixels", SCROLL_PIXELS)?;
            Ok(Deed::Act(Act::Scroll { at: place(call, size)?, right: 0.0, down }))
        }
        "hscroll" => {
            let right = number(call, "pixels", SCROLL_PIXELS)?;
            Ok(Deed::Act(Act::Scroll { at: place(call, size)?, right, down: 0.0 }))
        }
        "wait" => Ok(Deed::Act(Act::Wait { secs: number(call, "time", WAIT_SECS)?.max(0.0) })),
        "terminate" => match call.text("status") {
            Some("success") => Ok(Deed::Done),
            Some("failure") => Ok(Deed::Fail),
            _ => Err(Fault::call("The argument status is not one of success, failure.")),
        },
        _ => Err(Fault::call(format!("The argument action is not one of {}.", ACTIONS.join(", ")))),
    }
}

fn needed(place: Option<Point>) -> Result<Point, Fault> {
    place.ok_or_else(|| Fault::call("The argument coordinate is missing."))
}

fn place(call: &Call, (width, height): (u32, u32)) -> Result<Option<Point>, Fault> {
    let Some(value) = call.arguments.get("coordinate") else { return Ok(None) };
    let numbers: Option<Vec<f64>> =
        value.as_array().and_then(|items| items.iter().map(Value::as_f64).collect());
    let Some(&[x, y]) = numbers.as_deref() else {
        return Err(Fault::call("The argument coordinate is not two numbers."));
    };
    if ![x, y].iter().all(|at| (0.0..SCALE).contains(at)) {
        let why = format!("{x},{y} is outside the screen, which goes from 0 to 999 in both directions.");
        return Err(Fault::outside(why));
    }
    // The middle of the place, so that 999 is inside as 0 is.
    let pixel = |at: f64, size: u32| ((at + 0.5) / SCALE * f64::from(size)) as f32;
    Ok(Some(Point { x: pixel(x, width), y: pixel(y, height) }))
}

fn number(call: &Call, argument: &str, most: f64) -> Result<f32, Fault> {
    match call.arguments.get(argument).and_then(Value::as_f64) {
        Some(number) => Ok(number.clamp(-most, most) as f32),
        None => Err(Fault::call(format!("The argument {argument} is missing, or no number."))),
    }
}

fn keys(call: &Call) -> Result<Vec<String>, Fault> {
    let keys: Option<Vec<String>> = match call.arguments.get("keys") {
        Some(Value::Array(keys)) => keys.iter().map(|key| key.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    match keys {
        Some(keys) if (1..=KEYS).contains(&keys.len()) => Ok(keys),
        _ => Err(Fault::call(format!("The argument keys is not a list of 1 to {KEYS} keys."))),
    }
}
