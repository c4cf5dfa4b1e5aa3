//! Models of the Hugging Face hub, by name: `openclaw-rl pull OWNER/NAME`, and `path = "hf:OWNER/NAME"` in a topology. Files
//! lie in the cache that the Python library keeps, too, so that what one of them has fetched the other finds.

mod listing;
mod name;
mod pull;

pub use name::HubName;
pub use pull::{EXAMPLES, PullArgs, pull_missing, run};
