//! Each option of auditd.conf from auditd 3.0.9 to 4.2, and what it is here.

use super::Given;
use crate::config::value::quoted;
use std::collections::BTreeMap;
use std::path::Path;

/// What an option is here.
pub(super) enum Outcome {
    /// What it asks for is so anyway.
    Same,
    /// A key, or, if ours has no such key, an option without counterpart.
    Set {
        section: &'static str,
        key: &'static str,
        value: String,
        otherwise: (&'static str, &'static str),
    },
    /// There is no counterpart: why, and what to do instead.
    Cannot(&'static str, &'static str),
    /// auditd would not take it.
    Wrong(String),
}

use Outcome::{Cannot, Same};

type Options = BTreeMap<&'static str, Given>;

/// The kinds of option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// yes or no.
    YesNo,
    /// A whole number.
    Number,
    /// A whole number, or one with % behind it.
    Amount,
    /// One of these words.
    Words(&'static [&'static str]),
    /// Anything.
    Text,
}

/// The actions on a lack of space or an error of the disk.
const ACTIONS: Kind =
    Kind::Words(&["ignore", "syslog", "rotate", "email", "exec", "suspend", "single", "halt"]);

/// Every option and its kind.
const OPTIONS: &[(&str, Kind)] = &[
    ("local_events", Kind::YesNo),
    ("write_logs", Kind::YesNo),
    ("log_file", Kind::Text),
    ("log_format", Kind::Words(&["raw", "enriched", "nolog"])),
    ("log_group", Kind::Text),
    ("flush", Kind::Words(&["none", "incremental", "incremental_async", "data", "sync"])),
    ("freq", Kind::Number),
    ("num_logs", Kind::Number),
    ("dispatcher", Kind::Text),
    ("disp_qos", Kind::Words(&["lossy", "lossless"])),
    ("name_format", Kind::Words(&["none", "hostname", "fqd", "numeric", "user"])),
    ("name", Kind::Text),
    ("max_log_file", Kind::Number),
    (
        "max_log_file_action",
        Kind::Words(&["ignore", "syslog", "exec", "suspend", "rotate", "keep_logs"]),
    ),
    ("space_left", Kind::Amount),
    ("space_left_action", ACTIONS),
    ("action_mail_acct", Kind::Text),
    ("verify_email", Kind::YesNo),
    ("admin_space_left", Kind::Amount),
    ("admin_space_left_action", ACTIONS),
    ("disk_full_action", ACTIONS),
    ("disk_error_action", ACTIONS),
    ("priority_boost", Kind::Number),
    ("tcp_listen_port", Kind::Number),
    ("tcp_listen_queue", Kind::Number),
    ("tcp_max_per_addr", Kind::Number),
    ("use_libwrap", Kind::YesNo),
    ("tcp_client_ports", Kind::Text),
    ("tcp_client_max_idle", Kind::Number),
    ("transport", Kind::Words(&["tcp", "tls", "krb5"])),
    ("enable_krb5", Kind::YesNo),
    ("krb5_principal", Kind::Text),
    ("krb5_key_file", Kind::Text),
    ("tls_psk_file", Kind::Text),
    ("tls_psk_identity", Kind::Text),
    ("tls_cipher_suites", Kind::Text),
    ("tls_key_exchange", Kind::Text),
    ("tls_require_pqc", Kind::YesNo),
    ("tls_auth", Kind::Text),
    ("tls_crypto_profile", Kind::Text),
    ("tls_allowed_clients", Kind::Text),
    ("distribute_network", Kind::YesNo),
    ("q_depth", Kind::Number),
    ("overflow_action", Kind::Words(&["ignore", "syslog", "suspend", "single", "halt"])),
    ("max_restarts", Kind::Number),
    ("plugin_dir", Kind::Text),
    ("end_of_event_timeout", Kind::Number),
    ("report_interval", Kind::Text),
];

/// The option of this name, which auditd compares without case.
pub(super) fn known(name: &str) -> Option<&'static str> {
    names().into_iter().find(|known| known.eq_ignore_ascii_case(name))
}

pub(super) fn names() -> Vec<&'static str> {
    OPTIONS.iter().map(|(name, _)| *name).collect()
}

/// Whether a program may stand behind the value.
pub(super) fn takes_a_program(option: &str) -> bool {
    option.ends_with("_action") && option != "overflow_action"
}

fn check(option: &str, value: &str) -> Result<String, Outcome> {
    let kind = OPTIONS.iter().find(|(name, _)| *name == option).map(|(_, kind)| *kind);
    let value = value.to_lowercase();
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    let (right, takes) = match kind.unwrap_or(Kind::Text) {
        Kind::Text => (true, String::new()),
        Kind::YesNo => (value == "yes" || value == "no", "yes or no".to_owned()),
        Kind::Number => (is_number(&value), "a whole number".to_owned()),
        Kind::Amount => {
            let percent = value.strip_suffix('%').and_then(|it| it.parse::<u32>().ok());
            let right = percent.map_or(is_number(&value), |it| (1..100).contains(&it));
            (right, "MiB as a whole number, or 1% to 99%".to_owned())
        }
        Kind::Words(words) => (words.contains(&value.as_str()), words.join(", ")),
    };
    if right { Ok(value) } else { Err(Outcome::Wrong(format!("`{option}` takes {takes}"))) }
}

const NO_NETWORK: (&str, &str) = (
    "graven takes no records over the network",
    "keep auditd as the server that collects from other machines; each machine keeps its own trail, and copies \
     of its checkpoints elsewhere (`checkpoint.exec`)",
);
const NO_PLUGINS: (&str, &str) = (
    "graven starts no plugins: a slow one would hold up recording",
    "give a program what it needs from the trail: `graven export DIR | PROGRAM`",
);
const NO_THRESHOLDS: (&str, &str) = (
    "no key of this version takes it",
    "nothing is lost without it: while the disk is full the producers wait (`trail.on_full`); watch the free room \
     of the trail's file system",
);

/// What an option, all of which are in `all`, is here.
pub(super) fn outcome(option: &'static str, it: &Given, all: &Options) -> Outcome {
    let value = match check(option, &it.value) {
        Ok(value) => value,
        Err(wrong) => return wrong,
    };
    let cannot = |(why, instead)| Cannot(why, instead);
    match (option, value.as_str()) {
        ("local_events" | "write_logs", "yes") => Same,
        ("local_events", _) => Cannot(
            "recording this machine's events is all that it would do",
            "do not start graven there; auditd remains the server that collects from other machines",
        ),
        ("write_logs", _) | ("log_format", "nolog") => Cannot(
            "what graven records it writes to its trail",
            "for a watcher without a trail use the kernel's multicast group, which loses records",
        ),
        ("log_file", _) => trail_dir(&it.value),
        ("log_group", "root") => Same,
        ("log_group", _) => Cannot(
            "a trail is readable by its owner alone",
            "export what the group may read into a directory of theirs: `graven export DIR > FILE`",
        ),
        ("log_format", "enriched") => Cannot(
            "records are kept byte for byte as the kernel gave them",
            "names are resolved when they are read: `graven export DIR | ausearch -i`",
        ),
        // What was announced is behind a barrier, always, which is what sync asks for.
        ("log_format" | "flush" | "freq", _) => Same,
        ("priority_boost", _) => Outcome::Set {
            section: "process",
            key: "priority",
            value: format!("-{value}"),
            otherwise: ("niceness goes to -20", "use 20 or less"),
        },
        ("name_format", "none") | ("report_interval", "0") => Same,
        ("name_format" | "name", _) => Cannot(
            "the machine's name is in the header of each segment and not in each record",
            "tell machines apart by their trails",
        ),
        ("report_interval", _) => Cannot(
            "there is no file of the daemon's state that is written at intervals",
            "ask when you want to know: the trail says everything that was recorded",
        ),
        ("end_of_event_timeout", _) => Same,
        ("max_log_file" | "num_logs" | "max_log_file_action", _) => kept(option, &value, all),
        ("space_left" | "admin_space_left", _) => {
            let amount = if value.ends_with('%') { value.clone() } else { format!("{value}M") };
            set("space", option, quoted(&amount))
        }
        ("space_left_action" | "admin_space_left_action" | "disk_full_action", _)
        | ("disk_error_action", _) => action(option, &value, it),
        ("action_mail_acct" | "verify_email", _) if sends_mail(all) => {
            Cannot("graven sends no mail", "use the action `exec` with a program that does")
        }
        ("action_mail_acct" | "verify_email", _) => Same,
        // These say nothing unless there is a port, or plugins.
        ("tcp_listen_port" | "distribute_network", "no" | "0") => Same,
        ("tcp_listen_port" | "distribute_network", _) => cannot(NO_NETWORK),
        (name, _) if is_network(name) => {
            if all.contains_key("tcp_listen_port") {
                cannot(NO_NETWORK)
            } else {
                Same
            }
        }
        ("plugin_dir" | "q_depth" | "overflow_action" | "max_restarts" | "dispatcher", _) => {
            cannot(NO_PLUGINS)
        }
        ("disp_qos", _) => cannot(NO_PLUGINS),
        _ => Same,
    }
}

fn is_network(option: &str) -> bool {
    ["tcp_", "tls_", "krb5_"].iter().any(|start| option.starts_with(start))
        || ["use_libwrap", "transport", "enable_krb5"].contains(&option)
}

fn sends_mail(all: &Options) -> bool {
    all.values().any(|it| it.value.eq_ignore_ascii_case("email"))
}

fn set(section: &'static str, key: &'static str, value: String) -> Outcome {
    Outcome::Set { section, key, value, otherwise: NO_THRESHOLDS }
}

/// A trail is a directory of its own, beside the log, so on the partition that was set aside for it.
fn trail_dir(log_file: &str) -> Outcome {
    match Path::new(log_file).parent().filter(|_| log_file.starts_with('/')) {
        Some(dir) => Outcome::Set {
            section: "trail",
            key: "dir",
            value: quoted(&dir.join("graven").to_string_lossy()),
            otherwise: ("a trail is a directory", "set trail.dir"),
        },
        None => Outcome::Wrong("`log_file` takes an absolute path".to_owned()),
    }
}

/// How much is kept: auditd counts files, we count bytes.
fn kept(option: &'static str, value: &str, all: &Options) -> Outcome {
    let number = |name| all.get(name).and_then(|it| it.value.parse::<u64>().ok());
    let action = all.get("max_log_file_action").map(|it| it.value.to_lowercase());
    match (option, value, action.as_deref()) {
        // The one place where it is said; the other two count there.
        ("max_log_file_action", "rotate", _) => {
            match (number("num_logs"), number("max_log_file")) {
                (Some(files @ 2..), Some(mib @ 1..)) => Outcome::Set {
                    section: "space",
                    key: "max_total",
                    value: quoted(&format!("{}M", files * mib)),
                    otherwise: (
                        "no key of this version removes old segments",
                        "remove the oldest sealed segments yourself; `graven verify --part` checks what is left",
                    ),
                },
                _ => Same,
            }
        }
        ("max_log_file_action", "suspend" | "syslog" | "exec", _) => Cannot(
            "a segment that is full is followed by the next, always",
            "use the thresholds of free room for what is to happen before the disk is full",
        ),
        (_, _, Some("suspend" | "syslog" | "exec")) => Cannot(
            "the size of a file has no action here",
            "trail.segment_bytes is the size of a segment",
        ),
        // keep_logs and ignore keep everything, which is what happens unless something is set.
        _ => Same,
    }
}

/// What is done when room gets short or the disk fails.
fn action(option: &'static str, value: &str, it: &Given) -> Outcome {
    match (value, &it.option) {
        ("ignore", _) if !option.starts_with("disk") => Same,
        ("suspend", _) if option == "disk_error_action" => Cannot(
            "suspend goes on without recording",
            "nothing is to be done: after an error of the disk graven ends with exit code 5, and says what is \
             durable; the service is started again",
        ),
        ("suspend" | "ignore", _) => Cannot(
            "it goes on without recording",
            "nothing is to be done: producers wait until there is room (`trail.on_full = \"wait\"`)",
        ),
        ("rotate", _) => Cannot(
            "making room removes the oldest records",
            "use retention, by bytes or by age, which removes sealed segments only and records it",
        ),
        ("email", _) => {
            Cannot("graven sends no mail", "use the action `exec` with a program that does")
        }
        ("exec", Some(program)) => set("space", option, quoted(&format!("exec {program}"))),
        ("exec", None) => Outcome::Wrong(format!("`{option} = exec` takes a program")),
        ("syslog", _) => set("space", option, quoted("log")),
        (word, _) => set("space", option, quoted(word)),
    }
}
