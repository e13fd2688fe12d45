//! How the status is told.

use crate::recording::open::parse_time;
use std::path::PathBuf;
use std::time::Duration;

/// Options of every command that records.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Write metrics to this file, for the textfile collector of node_exporter; it is removed when recording
    /// ends
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// How often the metrics file is written, 1s to 1h
    #[arg(long, value_name = "TIME", value_parser = parse_interval, default_value = "15s",
          requires = "metrics_file")]
    pub metrics_interval: Duration,
}

/// How often metrics may be written.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    let time = parse_time(text)?;
    let in_range = (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&time);
    if in_range { Ok(time) } else { Err("expected 1s to 1h".to_owned()) }
}
