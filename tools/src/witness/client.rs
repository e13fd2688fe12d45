//! What is said to a witness, and how it is heard: one request, bounded in time and bytes.

use super::WitnessError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use graven_format::merkle::Hash;
use std::fmt::Write as _;
use std::time::Duration;
use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{RootCerts, TlsConfig};

/// Longest answer: as many signatures as a note may have, of the longest algorithm.
const ANSWER_BYTES_MAX: u64 = 128 * 1024;

/// Longest headers of an answer.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// The prefix of a witness's URLs, without a slash at the end.
pub(super) fn prefix(url: &str) -> Result<String, String> {
    let wrong =
        || format!("{url} is no URL of a witness: http or https, a host, and a path if any");
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    let host = uri.host().is_some_and(|host| !host.is_empty());
    if !known || !host || url.contains(['?', '#']) {
        return Err(wrong());
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// The body of a request: the old size, the hashes that lead from there, and the checkpoint with its own
/// signature and `line`.
pub(super) fn request(old: u64, path: &[Hash], note: &str, line: &str) -> String {
    let mut body = format!("old {old}\n");
    for hash in path {
        // Writing to a String does not fail.
        let _ = writeln!(body, "{}", BASE64.encode(hash));
    }
    body + "\n" + note + line
}

/// The size that a conflict names.
pub(super) fn size(answer: &[u8]) -> Result<u64, WitnessError> {
    let digits = answer.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
    digits
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|digits| *digits == "0" || !digits.starts_with('0'))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| WitnessError::Answer("status 409 without a tree's size".into()))
}

/// A connection to a witness that is kept open between requests.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    url: String,
}

impl Client {
    pub(super) fn new(prefix: &str) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            // Where a witness is, its operator says, and not whoever answers there.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(HEADER_BYTES_MAX)
            .user_agent(concat!("graven/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.new_agent(), url: format!("{prefix}/add-checkpoint") }
    }

    /// Status and body of the answer.
    pub(super) fn add_checkpoint(
        &self,
        body: &str,
        timeout: Duration,
    ) -> Result<(u16, Vec<u8>), WitnessError> {
        let sent =
            self.agent.post(&self.url).config().timeout_global(Some(timeout)).build().send(body);
        let mut response = sent.map_err(failed)?;
        let answer = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        Ok((response.status().as_u16(), answer.map_err(failed)?))
    }
}

fn failed(why: ureq::Error) -> WitnessError {
    match why {
        ureq::Error::BodyExceedsLimit(max) => {
            WitnessError::Answer(format!("it is longer than {max} bytes"))
        }
        ureq::Error::Protocol(why) => WitnessError::Answer(why.to_string()),
        why => WitnessError::Unreachable(why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_as_the_specification_has_it() {
        let note = "origin\n3\nroot\n\n\u{2014} origin AAAA\n";
        let body = request(2, &[[0; 32], [255; 32]], note, "\u{2014} origin BBBB\n");
        let expected = "old 2\n\
            AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\
            //////////////////////////////////////////8=\n\
            \n\
            origin\n3\nroot\n\n\u{2014} origin AAAA\n\u{2014} origin BBBB\n";
        assert_eq!(body, expected);
        assert!(request(0, &[], note, "").starts_with("old 0\n\norigin\n"));
    }

    #[test]
    fn a_conflict_names_a_size_and_nothing_else() {
        for (text, expected) in [("0\n", 0), ("7\n", 7), ("18446744073709551615\n", u64::MAX)] {
            assert_eq!(size(text.as_bytes()).ok(), Some(expected));
        }
        for wrong in [
            "",
            "\n",
            "7",
            "07\n",
            "+7\n",
            "-1\n",
            "7\n\n",
            " 7\n",
            "18446744073709551616\n",
            "x\n",
        ] {
            assert!(size(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
    }
}
