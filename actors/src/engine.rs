//! The async side's handle on a model that runs on its own OS thread.
