//! What a panic said.

use std::any::Any;

/// The text of a panic.
pub fn panic_message(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => panic.downcast_ref::<&str>().map_or("panicked", |message| message).to_owned(),
    }
}
