//! A bounded, leased queue that outlives the actor reading it.
