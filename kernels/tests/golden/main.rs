//! The loss operations against vectors computed in float64 by automatic differentiation, from the workspace's
//! `tests/golden` or from the folder that `GOLDEN_DIR` names.

#[macro_use]
#[path = "../losses/device.rs"]
mod device;

mod logits;
mod policy;
mod vectors;
