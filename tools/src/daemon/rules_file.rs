//! A file of audit rules, as `auditctl -R` reads it: what is said there to the kernel as a whole is taken out and
//! checked, what is left is for `auditctl`.
//!
//! What cannot be put back when recording ends, or would keep it from recording, is refused with its line.

use crate::config::read::ConfigError;

/// Longest file that is read.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// Options that begin a line for `auditctl`: rules.
const RULES: &[&str] = &["-a", "-A", "-d", "-w", "-W", "-p", "-k", "-F", "-S", "-C"];

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesFile {
    /// The lines for `auditctl`.
    pub lines: Vec<Line>,
    /// Whether the rules that are there are removed before.
    pub clear: bool,
    /// `-b`.
    pub backlog_limit: Option<u32>,
    /// `--backlog_wait_time`, in ticks.
    pub backlog_wait_ticks: Option<u32>,
    /// `-f`.
    pub failure: Option<u32>,
    /// Lines that have an effect until the next boot.
    pub for_good: Vec<usize>,
}

/// A line for `auditctl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// Its words, as `auditctl` takes them for arguments.
    pub words: Vec<String>,
    /// Whether loading goes on if it fails: `-i` or `-c` stands before it.
    pub may_fail: bool,
}

/// Reads a file. `may_panic` says whether `-f 2` was asked for elsewhere too.
///
/// # Errors
/// Each line that is refused.
pub fn parse(text: &str, may_panic: bool) -> Result<RulesFile, Vec<ConfigError>> {
    let mut file = RulesFile::default();
    let mut errors = Vec::new();
    let mut may_fail = false;
    for (index, text) in text.lines().enumerate() {
        let number = index + 1;
        let words = split(text);
        let shown: Vec<&str> = words.iter().map(String::as_str).collect();
        may_fail |= matches!(shown[..], ["-i" | "-c"]);
        match line(&mut file, number, &shown, may_panic) {
            Ok(true) => file.lines.push(Line { number, words, may_fail }),
            Ok(false) => {}
            Err((what, help)) => errors.push(ConfigError {
                at: Some((number, 1)),
                key: None,
                what,
                help: help.to_owned(),
            }),
        }
    }
    if errors.is_empty() { Ok(file) } else { Err(errors) }
}

/// The words of a line: between spaces, where a backslash keeps a space or another backslash.
fn split(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let kept = chars.peek().copied().filter(|next| c == '\\' && matches!(next, ' ' | '\\'));
        match (kept, words.last_mut()) {
            (Some(kept), Some(word)) => {
                chars.next();
                word.push(kept);
            }
            (None, _) if c.is_whitespace() => words.push(String::new()),
            (_, Some(word)) => word.push(c),
            _ => {}
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Takes a line; whether it is one for `auditctl`.
fn line(
    file: &mut RulesFile,
    number: usize,
    words: &[&str],
    may_panic: bool,
) -> Result<bool, (String, &'static str)> {
    let value = |help| match words {
        [_, value] => value.parse::<u32>().map_err(|_| (format!("`{value}` is no number"), help)),
        _ => Err((format!("`{}` takes one number", words[0]), help)),
    };
    match words {
        [] => return Ok(false),
        [first, ..] if first.starts_with('#') => return Ok(false),
        ["-D"] => {
            // What stood before it would be gone.
            file.lines.clear();
            file.clear = true;
        }
        ["-D", ..] => return Ok(true),
        ["-i" | "-c"] => {}
        ["-b", ..] => {
            file.backlog_limit = Some(value("the length of the kernel's queue in records")?)
        }
        ["--backlog_wait_time", ..] => {
            file.backlog_wait_ticks = Some(value("a time in the kernel's ticks")?);
        }
        ["-f", ..] => match value("0, 1 or 2")? {
            failure @ 0..=1 => file.failure = Some(failure),
            2 if may_panic => file.failure = Some(2),
            2 => {
                return Err((
                    "-f 2 has the kernel panic when it loses a record".to_owned(),
                    "if that is wanted, say so in the configuration too: netlink.failure = 2",
                ));
            }
            other => return Err((format!("-f {other} means nothing"), "write 0, 1 or 2")),
        },
        ["-e", ..] => match value("0, 1 or 2")? {
            1 => {}
            0 => {
                return Err((
                    "-e 0 turns audit off: there would be nothing to record".to_owned(),
                    "remove the line; audit is as it was before once recording ends",
                ));
            }
            2 => {
                return Err((
                    "-e 2 locks the kernel's audit until the next boot: nothing could be put back as it was when \
                     recording ends"
                        .to_owned(),
                    "lock it after all is set, at boot: `auditctl -e 2`; graven records a locked kernel if \
                     it needs to change nothing",
                ));
            }
            other => return Err((format!("-e {other} means nothing"), "write 1")),
        },
        ["-r", ..] => match value("records a second")? {
            0 => {}
            _ => {
                return Err((
                    "-r has the kernel drop records by their rate".to_owned(),
                    "remove the line; graven records without a limit",
                ));
            }
        },
        ["--loginuid-immutable"] => {
            file.for_good.push(number);
            return Ok(true);
        }
        ["--reset-lost", ..] => {
            return Err((
                "--reset-lost resets the counter by which losses are found".to_owned(),
                "remove the line",
            ));
        }
        [first, ..] if RULES.contains(first) => return Ok(true),
        [first, ..] => {
            return Err((
                format!("`{first}` is nothing that a file of rules says here"),
                "a line is a rule (-a, -A, -d, -w, -W) or one of -D, -b, -f, -e 1, -c, -i, --backlog_wait_time, \
                 --loginuid-immutable",
            ));
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_taken_out_and_rules_stay_in_their_lines() {
        let text = "## generated\n-w /gone -p wa\n-D\n-b 8192\n-f 1\n--backlog_wait_time 60000\n\n-e 1\n\
                    -a always,exit -F arch=b64 -S openat -k a\n-w /etc/passwd -p wa -k b\n-D -k c\n";
        let file = parse(text, false).expect("it is right");
        assert!(file.clear);
        assert_eq!((file.backlog_limit, file.failure), (Some(8192), Some(1)));
        assert_eq!(file.backlog_wait_ticks, Some(60_000));
        let numbers: Vec<_> = file.lines.iter().map(|line| line.number).collect();
        assert_eq!(numbers, [9, 10, 11], "what stood before -D is gone");
        for line in &file.lines {
            assert_eq!(text.lines().nth(line.number - 1), Some(line.words.join(" ").as_str()));
        }
    }

    #[test]
    fn words_are_those_of_auditctl() {
        assert_eq!(split(r"  -w /a\ b\\c\d -k  x\"), ["-w", "/a b\\c\\d", "-k", "x\\"]);
        assert!(split("   ").is_empty());
        let file = parse("-w /a\n-i\n-w /b\n", false).expect("it is right");
        assert_eq!(file.lines.iter().map(|it| it.may_fail).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn what_cannot_be_put_back_is_refused_by_its_line() {
        for (text, line, what) in [
            ("-D\n-e 2\n", 2, "-e 2 locks"),
            ("-e 0\n", 1, "-e 0 turns"),
            ("-f 2\n", 1, "-f 2 has the kernel panic"),
            ("-f 3\n", 1, "-f 3 means nothing"),
            ("-r 100\n", 1, "-r has the kernel drop"),
            ("--reset-lost\n", 1, "--reset-lost resets"),
            ("-b many\n", 1, "`many` is no number"),
            ("-b\n", 1, "`-b` takes one number"),
            ("-R other\n", 1, "`-R` is nothing"),
            ("rm -rf\n", 1, "`rm` is nothing"),
        ] {
            let errors = parse(text, false).expect_err(text);
            assert_eq!((errors.len(), errors[0].at), (1, Some((line, 1))), "{text}");
            assert!(errors[0].what.starts_with(what), "{text}: {}", errors[0].what);
        }
        assert_eq!(parse("-f 2\n", true).expect("asked for").failure, Some(2));
    }

    /// The file of this machine, where there is one.
    #[test]
    fn the_rules_of_this_machine_are_taken() {
        match std::fs::read_to_string("/etc/audit/audit.rules") {
            Ok(text) => drop(parse(&text, true)),
            Err(_) => eprintln!("SKIPPED: no /etc/audit/audit.rules"),
        }
    }
}
