//! What proves `graven-format`: one binary, one module an idea.

mod common;
mod damage;
mod hostile;
mod round_trip;
