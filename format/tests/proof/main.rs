//! What proves `graven-format`: one binary, one module an idea.

mod checkpoints;
mod common;
mod compressed;
mod corpus;
mod damage;
mod golden;
mod hashing;
mod hostile;
mod layout;
mod limits;
mod oracle;
mod proofs;
mod recovery_model;
mod recovery_table;
mod round_trip;
