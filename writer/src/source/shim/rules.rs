//! Rules as people write them, after auditctl: `-a always,exit -F arch=b64 -S openat,execve -F auid=1000 -F success=0`.
//!
//! | part | meaning |
//! |---|---|
//! | `-a always,exit` | record what fits; `-a never,exit`: do not |
//! | `-F arch=b64`, `b32` | the architecture that a call is made for |
//! | `-S NAME,…` | these calls, by name or number; with `-F arch` only |
//! | `-F uid=N`, `-F uid=N-M` | the real user |
//! | `-F auid=N`, `-F sessionid=N`, `-F pid=N` | who logged in, in which session; the process. `unset` is nobody |
//! | `-F success=1`, `0` | by the outcome |
//!
//! Of all rules the first one that fits decides; what none fits is not recorded. An empty line, and what follows a `#`, says nothing.

use crate::source::calls::CallSet;
use graven_shim_abi::{
    RULE_ARCH, RULE_AUDIT, RULE_AUID, RULE_CALLS, RULE_FAILURE, RULE_FOLLOWED, RULE_NEVER,
    RULE_PID, RULE_SESSION, RULE_SUCCESS, RULE_UID, RULES_MAX, Rule, Rules,
};
use syscalls::{x86, x86_64};

/// `AUDIT_ARCH_X86_64`.
pub const ARCH_X86_64: u32 = 0xc000_003e;
/// `AUDIT_ARCH_I386`.
pub const ARCH_I386: u32 = 0x4000_0003;

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Something that there is not.
    #[error("line {line}: {word}: {why}")]
    Word {
        /// Its line, from 1.
        line: usize,
        /// What is there.
        word: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The kernel side has no room for more.
    #[error("{0} rules: there may be {RULES_MAX} at most")]
    TooMany(usize),
}

/// Reads rules, one a line.
///
/// # Errors
/// [`RuleError`] names the line.
pub fn parse(text: &str) -> Result<Rules, RuleError> {
    let mut rules = Vec::new();
    for (line, words) in (1..).zip(text.lines()) {
        let words = words.split('#').next().unwrap_or_default();
        let words: Vec<&str> = words.split_whitespace().collect();
        if !words.is_empty() {
            rules.push(one(&words).map_err(|(word, why)| RuleError::Word { line, word, why })?);
        }
    }
    Rules::of(&rules).ok_or(RuleError::TooMany(rules.len()))
}

/// `io_uring_setup` to `io_uring_register`, on both architectures: what opens a way past all rules is never left out.
const IO_URING: std::ops::RangeInclusive<usize> = 425..=427;

/// These calls of whoever is followed.
#[must_use]
pub fn followed(calls: &CallSet) -> Rules {
    let of = |arch, mask: &[u32]| {
        let mut rule = Rule {
            action: RULE_AUDIT,
            fields: RULE_FOLLOWED | RULE_ARCH | RULE_CALLS,
            arch,
            ..Rule::default()
        };
        for (at, word) in mask.iter().enumerate() {
            if let Some(to) = rule.calls.get_mut(at / 2) {
                *to |= u64::from(*word) << (at % 2 * 32);
            }
        }
        for call in IO_URING {
            rule.calls[call / 64] |= 1 << (call % 64);
        }
        rule
    };
    if *calls == CallSet::all() {
        let all = Rule { action: RULE_AUDIT, fields: RULE_FOLLOWED, ..Rule::default() };
        return Rules::of(&[all]).unwrap_or_default();
    }
    Rules::of(&[of(ARCH_X86_64, &calls.x86_64), of(ARCH_I386, &calls.i386)]).unwrap_or_default()
}

type Wrong = (String, &'static str);

fn one(words: &[&str]) -> Result<Rule, Wrong> {
    let mut rule = Rule::default();
    let mut action = None;
    let mut calls = Vec::new();
    let mut words = words.iter();
    while let Some(&option) = words.next() {
        let Some(&value) = words.next() else {
            return Err((option.to_owned(), "a value is missing behind it"));
        };
        match option {
            "-a" | "-A" => {
                action = Some(match value {
                    "always,exit" | "exit,always" => RULE_AUDIT,
                    "never,exit" | "exit,never" => RULE_NEVER,
                    _ => return Err((value.to_owned(), "expected always,exit or never,exit")),
                });
            }
            "-S" => calls.extend(value.split(',')),
            "-F" => field(&mut rule, value)?,
            _ => return Err((option.to_owned(), "expected -a, -S or -F")),
        }
    }
    rule.action =
        action.ok_or_else(|| (String::new(), "-a always,exit or -a never,exit is missing"))?;
    if !calls.is_empty() && calls != ["all"] {
        if rule.fields & RULE_ARCH == 0 {
            let why = "needs -F arch=b64 or -F arch=b32: a call has another number on each";
            return Err(("-S".to_owned(), why));
        }
        rule.fields |= RULE_CALLS;
        for name in calls {
            let number =
                call(rule.arch, name).ok_or((name.to_owned(), "no such system call there"))?;
            let word = rule.calls.get_mut(number / 64);
            *word.ok_or((name.to_owned(), "a number above 511"))? |= 1 << (number % 64);
        }
    }
    Ok(rule)
}

fn field(rule: &mut Rule, text: &str) -> Result<(), Wrong> {
    let wrong = |why| (text.to_owned(), why);
    let (name, value) = text.split_once('=').ok_or(wrong("expected NAME=VALUE"))?;
    let number = |value: &str| match value {
        "unset" | "-1" => Ok(u32::MAX),
        value => value.parse().map_err(|_| wrong("expected a number")),
    };
    rule.fields |= match name {
        "arch" => {
            rule.arch = match value {
                "b64" | "x86_64" => ARCH_X86_64,
                "b32" | "i386" => ARCH_I386,
                _ => return Err(wrong("expected b64 or b32")),
            };
            RULE_ARCH
        }
        "uid" => {
            let (from, to) = value
                .split_once('-')
                .filter(|(from, _)| !from.is_empty())
                .unwrap_or((value, value));
            (rule.uid_from, rule.uid_to) = (number(from)?, number(to)?);
            if rule.uid_from > rule.uid_to {
                return Err(wrong("the first is greater than the last"));
            }
            RULE_UID
        }
        "auid" => {
            rule.auid = number(value)?;
            RULE_AUID
        }
        "sessionid" => {
            rule.session = number(value)?;
            RULE_SESSION
        }
        "pid" => {
            rule.pid = number(value)?;
            RULE_PID
        }
        "success" => match value {
            "1" => RULE_SUCCESS,
            "0" => RULE_FAILURE,
            _ => return Err(wrong("expected 1 or 0")),
        },
        _ => return Err(wrong("expected arch, uid, auid, sessionid, pid or success")),
    };
    Ok(())
}

fn call(arch: u32, name: &str) -> Option<usize> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    if arch == ARCH_I386 {
        return name.parse::<x86::Sysno>().ok().map(|call| call as usize);
    }
    name.parse::<x86_64::Sysno>().ok().map(|call| call as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_with_all_that_it_asks_for() {
        let text = "# what this is\n\n-a never,exit -F uid=0\n-a always,exit -F arch=b64 -S openat,59 -F auid=unset -F success=0 -F uid=5-9\n";
        let rules = [
            Rule { action: RULE_NEVER, fields: RULE_UID, ..Rule::default() },
            Rule {
                action: RULE_AUDIT,
                fields: RULE_ARCH | RULE_CALLS | RULE_AUID | RULE_FAILURE | RULE_UID,
                arch: ARCH_X86_64,
                uid_from: 5,
                uid_to: 9,
                auid: u32::MAX,
                calls: [1 << 59, 0, 0, 0, 1 << (257 - 256), 0, 0, 0],
                ..Rule::default()
            },
        ];
        assert_eq!(parse(text), Ok(Rules::of(&rules).unwrap()));
    }

    #[test]
    fn what_is_no_rule_names_its_line() {
        for (text, word) in [
            ("-F uid=1", "-a always,exit or"),
            ("-a sometimes,exit", "sometimes,exit"),
            ("-a always,exit -S openat", "arch=b64"),
            ("-a always,exit -F arch=b64 -S opennat", "opennat"),
            ("-a always,exit -F arch=b64 -S 512", "512"),
            ("-a always,exit -F uid=9-5", "uid=9-5"),
            ("-a always,exit -F uid", "uid"),
            ("-a always,exit -F", "-F"),
            ("-a always,exit -w /etc", "-w"),
            ("-a always,exit -F exe=/bin/sh", "exe=/bin/sh"),
        ] {
            let said = parse(&format!("-a never,exit\n{text}")).unwrap_err().to_string();
            assert!(said.starts_with("line 2: ") && said.contains(word), "{text}: {said}");
        }
        let many = "-a never,exit\n".repeat(RULES_MAX + 1);
        assert_eq!(parse(&many), Err(RuleError::TooMany(65)));
    }
}
