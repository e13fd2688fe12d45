//! What the kernel shim recorded, made readable: as audit's own records ([`audit`]) and as a line for people
//! ([`text`]). `docs/kernel-shim.md`, "As audit's records", says what stands where.

pub mod audit;
mod execve;
pub mod gather;
pub mod text;
mod value;
