//! Which conversation a request belongs to, whether it may be trained on, and what its arrival says of the turn before.
