//! Graven in guests: Debian's kernels under QEMU, for what no test may do to the machine it runs on.
//!
//! Whatever cannot be done here (no QEMU, nothing fetched) a test says in a line that begins with
//! `SKIPPED:`. Set `GRAVEN_E2E_STRICT` to make each such line a failure.
//!
//! Environment
//! - `GRAVEN_GUEST_SEED`: the seed of power cuts; printed with every run.
//! - `GRAVEN_GUEST_CUTS`: power cuts, 6 unless told otherwise.
//! - `GRAVEN_GUEST_SHIM_ROUNDS`: kills of the shim's reader, loads of the module, power cuts under it, 4 unless told otherwise; rounds of
//!   its measurements, 3.
//! - `GRAVEN_GUEST_AUDITD_ROUNDS`: how many rounds of the measurements are auditd's too, all unless told otherwise.
//! - `GRAVEN_GUEST_SHIM_THREADS`: if set, a thread of QEMU's for each processor of these guests: really at the same time, and with
//!   QEMU 7.2 now and then its own panic ("Oops: int3"). `tests/guest/newer-qemu` has one without.
//! - `GRAVEN_GUEST_STALL_SECONDS`: how long a disk stalls, 10 unless told otherwise.
//! - `GRAVEN_GUEST_ACCEL`: `kvm` to use it if a guest starts under it.

mod actions;
mod audit;
mod hello;
mod power;
mod rig;
mod service;
mod shim;
mod stall;
