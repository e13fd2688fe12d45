//! The bounded queue between sources and engine: full means the producer waits.
