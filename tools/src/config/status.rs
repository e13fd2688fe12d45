use super::schema::section;
use super::value::Time;
use std::path::PathBuf;
use std::time::Duration;

section! {
    /// How the status is told beside the socket `control` in the trail's directory, which `graven status` and
    /// `graven watch` ask: docs/metrics.md.
    pub struct StatusSection in "status" {
        /// Write metrics to this file, for the textfile collector of node_exporter. It is removed when recording ends.
        [restart] metrics_file: Option<PathBuf> = None,
            like "\"/var/lib/prometheus/node-exporter/graven.prom\"";
        /// How often that file is written.
        [restart] metrics_interval: Time<1000, 3_600_000> = Time(Duration::from_secs(15));
    }
}
