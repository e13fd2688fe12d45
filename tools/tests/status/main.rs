//! What a running writer tells: `graven status`, `graven watch`, the control socket, metrics.

#[path = "../common/mod.rs"]
mod common;
mod control;
mod metrics;
mod rig;
mod status;
mod watch;
