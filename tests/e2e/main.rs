//! End-to-end tests: the command as a process, on real filesystems, with real errors of the kernel.
//!
//! Whatever a test cannot do here (no root, no strace, no loop devices) it says in a line that
//! begins with `SKIPPED:`. Set `GRAVEN_E2E_STRICT` to make each such line a failure.
//!
//! Environment
//! - `GRAVEN_E2E_SEED`: the seed of everything random; printed with every failure.
//! - `GRAVEN_E2E_KILL_ROUNDS`: rounds of kill -9, 200 unless told otherwise.
//! - `GRAVEN_E2E_KEPT_ROUNDS`: rounds of a storm in which keeper or writer is killed, 4 unless told otherwise.
//! - `GRAVEN_E2E_INJECT_ALL`: inject into every system call and not into a sample.

mod applications;
mod away;
mod beside;
mod daemon;
mod errors;
mod flips;
mod full;
mod inject;
mod input;
mod kept;
mod kill;
mod rig;
mod salvage;
mod seeds;
mod signals;
mod space;
mod status;
mod storm;
mod threads;
