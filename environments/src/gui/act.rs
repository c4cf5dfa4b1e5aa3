//! What an agent can do on a screen, by the numbers of its list: the tools, and what is read out of their calls.

use serde_json::{Value, json};

use super::{Actions, Screen, computer};
use crate::world::{Call, Tool};

/// A place in pixels, from the upper left corner of the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// To the right.
    pub x: f32,
    /// Downwards.
    pub y: f32,
}

/// Of the pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Button {
    /// The first.
    Left,
    /// The second.
    Right,
    /// The third.
    Middle,
}

/// One thing that is done on a screen. Every place is on it.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// The pointer goes there.
    Move {
        /// Where to.
        to: Point,
    },
    /// The pointer goes there and clicks.
    Click {
        /// Where.
        at: Point,
        /// Which.
        button: Button,
        /// How often, 1 to 3.
        count: u8,
        /// The element that was named, by its key; none where a place was.
        key: Option<u64>,
    },
    /// The pointer goes there from where it is, its left button held.
    Drag {
        /// Where to.
        to: Point,
    },
    /// A text is typed; a line's end is the return key.
    Type {
        /// What.
        text: String,
        /// Into this element, by its key and its middle, in place of what is in it; none is wherever the keyboard is.
        into: Option<(u64, Point)>,
    },
    /// Keys are held together, in this order, as the agent names them: `ctrl`, `a`.
    Press {
        /// At least one, at most 8.
        keys: Vec<String>,
    },
    /// What is under the pointer is scrolled.
    Scroll {
        /// The pointer goes there first.
        at: Option<Point>,
        /// In pixels; less than 0 is to the left.
        right: f32,
        /// In pixels; less than 0 is up.
        down: f32,
    },
    /// Nothing is done for so long.
    Wait {
        /// 0 to 10.
        secs: f32,
    },
}

impl Act {
    /// Where it points, if it does.
    pub fn point(&self) -> Option<Point> {
        match self {
            Self::Move { to } | Self::Drag { to } => Some(*to),
            Self::Click { at, .. } => Some(*at),
            Self::Type { into, .. } => into.map(|(_, at)| at),
            Self::Scroll { at, .. } => *at,
            Self::Press { .. } | Self::Wait { .. } => None,
        }
    }
}

/// What a call asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Deed {
    Act(Act),
    /// The agent says that it is done.
    Done,
    /// The agent says that it cannot be done.
    Fail,
}

/// Nothing that can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// To the agent.
    pub(super) told: String,
    /// To whoever judges the step.
    pub(super) reason: &'static str,
}

impl Fault {
    pub(super) fn call(told: impl Into<String>) -> Self {
        Self { told: told.into(), reason: "not an action" }
    }

    pub(super) fn outside(told: impl Into<String>) -> Self {
        Self { told: told.into(), reason: "points outside the screen" }
    }
}

/// Pixels that `scroll` goes, of the height or the width of the screen.
const SCROLL_SHARE: f32 = 0.6;
/// Seconds that `wait` waits.
const WAIT_SECS: f32 = 1.0;
/// The most characters that are typed at once.
const TYPED_CHARS: usize = 10_000;

/// What can be called.
pub(super) fn tools(actions: Actions) -> Vec<Tool> {
    let mut tools = Vec::new();
    if actions.numbers() {
        let id = || json!({"type": "integer"});
        tools.extend([
            tool("click", "Clicks an element", [("id", id())]),
            // In place of what is in it.
            tool("type", "Types a text into an element", [("id", id()), ("text", json!({"type": "string"}))]),
        ]);
    }
    if actions.all_of_them() {
        let directions = json!({"type": "string", "enum": ["up", "down", "left", "right"]});
        let none: [(&str, Value); 0] = [];
        tools.extend([
            tool("scroll", "Scroll the page", [("direction", directions)]),
            tool("wait", "Wait a second", none.clone()),
            tool("done", "Say that the task is done", none.clone()),
            tool("fail", "Say that the task cannot be done", none),
        ]);
    }
    if actions.places() {
        tools.push(computer::tool());
    }
    tools
}

fn tool<const N: usize>(name: &str, description: &str, arguments: [(&str, Value); N]) -> Tool {
    let names: Vec<&str> = arguments.iter().map(|(name, _)| *name).collect();
    let mut parameters = json!({"type": "object", "properties": {}, "required": names});
    for (name, schema) in arguments {
        parameters["properties"][name] = schema;
    }
    Tool { name: name.to_owned(), description: description.to_owned(), parameters }
}

/// What a call asks for. Numbers are those of `shown`; what is found by them is where `now` has it.
pub(super) fn read(
    call: &Call,
    actions: Actions,
    shown: &Screen,
    now: &Screen,
    size: (u32, u32),
) -> Result<Deed, Fault> {
    let elements = actions.all_of_them();
    match call.name.as_str() {
        "click" if actions.numbers() => {
            let (key, at) = element(call, shown, now)?;
            Ok(Deed::Act(Act::Click { at, button: Button::Left, count: 1, key: Some(key) }))
        }
        "type" if actions.numbers() => {
            let into = Some(element(call, shown, now)?);
            Ok(Deed::Act(Act::Type { text: typed(call)?, into }))
        }
        "scroll" if elements => {
            let share = |size: u32| (size as f32 * SCROLL_SHARE).round();
            let (width, height) = (share(size.0), share(size.1));
            let (right, down) = match call.text("direction") {
                Some("up") => (0.0, -height),
                Some("down") => (0.0, height),
                Some("left") => (-width, 0.0),
                Some("right") => (width, 0.0),
                _ => return Err(Fault::call("The argument direction is not one of up, down, left, right.")),
            };
            let at = Some(Point { x: size.0 as f32 / 2.0, y: size.1 as f32 / 2.0 });
            Ok(Deed::Act(Act::Scroll { at, right, down }))
        }
        "wait" if elements => Ok(Deed::Act(Act::Wait { secs: WAIT_SECS })),
        "done" if elements => Ok(Deed::Done),
        "fail" if elements => Ok(Deed::Fail),
        computer::NAME if actions.places() => computer::read(call, size),
        other => Err(Fault::call(format!("There is no tool {other}."))),
    }
}

/// The key and the middle of the element that a call names.
fn element(call: &Call, shown: &Screen, now: &Screen) -> Result<(u64, Point), Fault> {
    let id = match call.arguments.get("id") {
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(value) => value.as_u64(),
        None => None,
    };
    let Some(id) = id else {
        return Err(Fault::call("The argument id is missing, or no number of the list."));
    };
    let Some(element) = shown.element(id) else {
        return Err(Fault::call(format!("There is no {id} in the list.")));
    };
    match now.by_key(element.key) {
        Some(there) => Ok((there.key, there.bounds.middle())),
        None => {
            let line = element.line();
            Err(Fault::call(format!("{id} {line} is not on the screen any more.")))
        }
    }
}

/// The argument `text`.
pub(super) fn typed(call: &Call) -> Result<String, Fault> {
    match call.text("text") {
        Some(text) if text.chars().count() > TYPED_CHARS => {
            Err(Fault::call(format!("The argument text has more than {TYPED_CHARS} characters.")))
        }
        Some(text) => Ok(text.to_owned()),
        None => Err(Fault::call("The argument text is missing, or no text.")),
    }
}
