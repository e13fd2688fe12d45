use super::*;
use crate::config::read::parse as parse_ours;

/// As Debian's auditd 3.0.9 ships it.
const DEBIAN: &str = "\
#
# This file controls the configuration of the audit daemon
#

local_events = yes
write_logs = yes
log_file = /var/log/audit/audit.log
log_group = adm
log_format = ENRICHED
flush = INCREMENTAL_ASYNC
freq = 50
max_log_file = 8
num_logs = 5
priority_boost = 4
name_format = NONE
##name = mydomain
max_log_file_action = ROTATE
space_left = 75
space_left_action = SYSLOG
verify_email = yes
action_mail_acct = root
admin_space_left = 50
admin_space_left_action = SUSPEND
disk_full_action = SUSPEND
disk_error_action = SUSPEND
use_libwrap = yes
##tcp_listen_port = 60
tcp_listen_queue = 5
tcp_max_per_addr = 1
##tcp_client_ports = 1024-65535
tcp_client_max_idle = 0
transport = TCP
krb5_principal = auditd
##krb5_key_file = /etc/audit/audit.key
distribute_network = no
q_depth = 2000
overflow_action = SYSLOG
max_restarts = 10
plugin_dir = /etc/audit/plugins.d
end_of_event_timeout = 2
";

/// What the STIG of RHEL 9 asks for.
const STIG: &str = "\
log_file = /var/log/audit/audit.log
log_format = ENRICHED
flush = INCREMENTAL_ASYNC
freq = 100
name_format = hostname
max_log_file_action = ROTATE
max_log_file = 8
num_logs = 5
space_left = 25%
space_left_action = email
action_mail_acct = root
admin_space_left = 5%
admin_space_left_action = single
disk_full_action = HALT
disk_error_action = HALT
overflow_action = syslog
";

/// What auditd.conf(5) asks for under CAPP.
const CAPP: &str = "\
log_file = /audit/audit.log
log_format = RAW
flush = sync
max_log_file_action = keep_logs
space_left = 100
space_left_action = email
admin_space_left = 50
admin_space_left_action = single
disk_full_action = halt
disk_error_action = syslog
";

fn imported(text: &str) -> (crate::config::Config, Vec<String>) {
    let imported = import(text, "auditd.conf").expect("auditd takes it");
    let config = parse_ours(&imported.text).expect("it is a configuration of ours");
    for it in &imported.untranslated {
        let line = text.lines().nth(it.line - 1).expect("a line of the file");
        assert!(line.starts_with(&it.said), "{line}: {it:?}");
        assert!(it.why.len() > 10 && it.instead.len() > 10, "{it:?}");
    }
    let name = |it: &Untranslated| it.said.split(' ').next().unwrap_or_default().to_owned();
    (config, imported.untranslated.iter().map(name).collect())
}

/// Whether our configuration has this key: then what sets it is no option without counterpart.
fn has(section: &str, key: &str) -> bool {
    let of = Config::sections().into_iter().find(|(name, ..)| *name == section);
    of.is_some_and(|(.., keys)| keys.iter().any(|it| it.name == key))
}

#[test]
fn debians_file_is_imported_and_what_cannot_be_is_named() {
    let (config, untranslated) = imported(DEBIAN);
    assert_eq!(config.trail.dir, Path::new("/var/log/audit/graven"));
    assert_eq!(config.process.priority.0, -4);
    let named = |name: &str| untranslated.iter().any(|it| it == name);
    for name in [
        "log_group",
        "log_format",
        "admin_space_left_action",
        "disk_full_action",
        "disk_error_action",
        "q_depth",
        "overflow_action",
        "max_restarts",
        "plugin_dir",
    ] {
        assert!(named(name), "{name}");
    }
    // Neither is anything lost in silence that a section may have a key for.
    if !has("space", "space_left") {
        assert!(named("space_left") && named("admin_space_left") && named("space_left_action"));
        assert!(named("max_log_file_action"), "old segments are not removed");
    }
    for name in ["tcp_listen_queue", "transport", "krb5_principal", "flush", "freq", "verify_email"]
    {
        assert!(!named(name), "{name} says nothing here, or is so anyway");
    }
}

#[test]
fn the_set_ups_that_certification_asks_for_are_imported() {
    let (_, stig) = imported(STIG);
    for name in ["log_format", "name_format", "space_left_action", "action_mail_acct"] {
        assert!(stig.iter().any(|it| it == name), "{name}: {stig:?}");
    }
    let (config, capp) = imported(CAPP);
    assert_eq!(config.trail.dir, Path::new("/audit/graven"));
    assert!(capp.iter().any(|it| it == "space_left_action"), "{capp:?}");
    for name in ["flush", "log_format", "max_log_file_action"] {
        assert!(!capp.iter().any(|it| it == name), "{name} is so anyway");
    }
    for (text, actions) in [(STIG, 3), (CAPP, 3)] {
        let (_, untranslated) = imported(text);
        let left = untranslated.iter().filter(|it| it.ends_with("_action")).count();
        // Those of space, until there is a section that takes them.
        assert!(has("space", "space_left_action") || left >= actions, "{untranslated:?}");
    }
}

#[test]
fn what_auditd_would_not_take_is_refused_by_its_line() {
    for (text, line, what) in [
        ("\nlog_fle = /x\n", 2, "auditd has no option `log_fle`"),
        ("flush = sometimes\n", 1, "`flush` takes none, incremental"),
        ("freq = many\n", 1, "`freq` takes a whole number"),
        ("space_left = 100%\n", 1, "`space_left` takes MiB"),
        ("freq 50\n", 1, "the line of `freq` has another form"),
        ("freq = 50 60\n", 1, "`freq` takes one value"),
        ("write_logs = maybe\n", 1, "`write_logs` takes yes or no"),
        ("disk_full_action = exec\n", 1, "`disk_full_action = exec` takes a program"),
    ] {
        let wrong = import(text, "x").expect_err(text);
        assert_eq!(wrong[0].line, line, "{text}");
        assert!(wrong[0].what.starts_with(what), "{text}: {}", wrong[0].what);
    }
    let wrong = import("log_fle = /x\n", "x").expect_err("unknown");
    assert!(wrong[0].help.contains("`log_file`"), "{}", wrong[0].help);
}

/// auditd 4.2's options, as its own table has them.
#[test]
fn every_option_of_auditd_is_known() {
    for name in [
        "tls_psk_file",
        "tls_psk_identity",
        "tls_cipher_suites",
        "tls_key_exchange",
        "tls_require_pqc",
        "tls_auth",
        "tls_crypto_profile",
        "tls_allowed_clients",
        "report_interval",
        "enable_krb5",
        "dispatcher",
        "disp_qos",
    ] {
        assert_eq!(options::known(name), Some(name));
    }
    assert_eq!(options::known("LOG_FILE"), Some("log_file"));
    let (_, untranslated) =
        imported("tcp_listen_port = 60\ntcp_client_ports = 1-9\ntransport = TLS\n");
    assert_eq!(untranslated, ["tcp_listen_port", "tcp_client_ports", "transport"]);
}

/// The file of this machine, where auditd is installed.
#[test]
fn the_file_of_this_machine_is_imported() {
    match std::fs::read_to_string("/etc/audit/auditd.conf") {
        Ok(text) => drop(imported(&text)),
        Err(_) => eprintln!("SKIPPED: no /etc/audit/auditd.conf"),
    }
}
