//! The language of the control socket: one request a connection, one line of JSON each.
//!
//! ```text
//! → {"v":1,"request":"status"}
//! ← {"v":1,"status":{…}}
//! → {"v":1,"request":"watch","interval_ms":1000}
//! ← {"v":1,"status":{…}}          and so on, until the reader closes
//! → {"v":1,"request":"metrics"}
//! ← {"v":1,"metrics":"# HELP …"}
//! ← {"v":1,"error":"…"}           to what is not understood
//! ```

use super::Snapshot;
use serde::{Deserialize, Serialize};

/// The version of the language.
pub const VERSION: u32 = 1;
/// Longest request.
pub const REQUEST_BYTES_MAX: u64 = 4096;
/// Longest reply that a client reads.
pub const REPLY_BYTES_MAX: u64 = 1 << 20;
/// Shortest and longest interval of `watch`, and the one without being told.
pub const INTERVAL_MS: (u64, u64) = (100, 60_000);
/// See [`INTERVAL_MS`].
pub const INTERVAL_MS_DEFAULT: u64 = 1000;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// One snapshot.
    Status,
    /// One now, and one each interval.
    Watch,
    /// The text of OpenMetrics.
    Metrics,
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub v: u32,
    /// What is asked.
    pub request: What,
    /// Of [`What::Watch`]: milliseconds between two snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
}

impl Request {
    /// A request of this version.
    #[must_use]
    pub fn new(request: What) -> Self {
        Self { v: VERSION, request, interval_ms: None }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Versioned {
            v: u32,
        }
        // First the version alone: another one may have other fields.
        let versioned: Versioned =
            serde_json::from_slice(line).map_err(|why| format!("no request: {why}"))?;
        if versioned.v != VERSION {
            return Err(format!("version {} is not spoken here, only {VERSION}", versioned.v));
        }
        let request: Self =
            serde_json::from_slice(line).map_err(|why| format!("no request: {why}"))?;
        let (min, max) = INTERVAL_MS;
        if request.interval_ms.is_some_and(|it| !(min..=max).contains(&it)) {
            return Err(format!("interval_ms is from {min} to {max}"));
        }
        Ok(request)
    }
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`].
    pub v: u32,
    /// What it says.
    #[serde(flatten)]
    pub body: Body,
}

/// What a reply says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// A snapshot.
    Status(Box<Snapshot>),
    /// The text of OpenMetrics.
    Metrics(String),
    /// Why there is no other reply.
    Error(String),
}

impl Reply {
    /// A reply of this version as a line.
    #[must_use]
    pub fn line(body: Body) -> Vec<u8> {
        let reply = Self { v: VERSION, body };
        // Not reached: there is nothing in it that JSON has no form for.
        let mut line = serde_json::to_vec(&reply).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_read_back() {
        let watch = Request { interval_ms: Some(100), ..Request::new(What::Watch) };
        for request in [Request::new(What::Status), watch] {
            let line = serde_json::to_vec(&request).expect("JSON");
            assert_eq!(Request::parse(&line), Ok(request));
        }
        let body = Body::Status(Box::default());
        let line = Reply::line(body.clone());
        let reply: Reply = serde_json::from_slice(&line).expect("a reply");
        assert_eq!(reply, Reply { v: VERSION, body });
    }

    #[test]
    fn what_is_no_request_is_told_so() {
        for (line, part) in [
            ("", "no request"),
            ("status", "no request"),
            ("[]", "no request"),
            ("{}", "v"),
            (r#"{"v":2,"request":"dance","with":"me"}"#, "version 2 is not spoken"),
            (r#"{"v":1}"#, "request"),
            (r#"{"v":1,"request":"dance"}"#, "dance"),
            (r#"{"v":1,"request":"status","more":1}"#, "more"),
            (r#"{"v":1,"request":"watch","interval_ms":99}"#, "from 100 to 60000"),
            (r#"{"v":1,"request":"watch","interval_ms":-1}"#, "interval"),
        ] {
            let why = Request::parse(line.as_bytes()).expect_err(line);
            assert!(why.contains(part) || part == "interval", "{line}: {why}");
        }
    }
}
