//! One part as a line for people.

use crate::escape::Escaped;
use graven_shim_abi::decode::{self, Body, Items, PartView};
use graven_shim_abi::{
    CAPTURED_COMM, CAPTURED_RESULT, CAPTURED_TASK, Call, PART_CUT, PART_LAST, PART_NO_RETURN,
    PART_ORPHAN, PART_REFUSED, PART_UNSEEN,
};
use graven_writer::source::calls;
use std::fmt;

const FLAGS: [(u16, &str); 6] = [
    (PART_LAST, "last"),
    (PART_ORPHAN, "orphan"),
    (PART_NO_RETURN, "no-return"),
    (PART_CUT, "cut"),
    (PART_REFUSED, "refused"),
    (PART_UNSEEN, "unseen"),
];

const ROLES: [&str; 8] =
    ["none", "target", "parent", "old", "new", "text", "program", "interpreter"];

/// A part's bytes; its kind, its numbers, the call and each item. What is no part prints as escaped bytes.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a>(pub &'a [u8]);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match decode::parse(self.0) {
            Ok(part) => write_part(f, &part),
            Err(why) => write!(f, "unreadable ({why}) {}", Escaped(self.0)),
        }
    }
}

fn write_part(f: &mut fmt::Formatter<'_>, part: &PartView<'_>) -> fmt::Result {
    let header = &part.header;
    match &part.body {
        Body::Call(..) => f.write_str("CALL")?,
        Body::More(_) => f.write_str("MORE")?,
        Body::Gap(_) => f.write_str("GAP")?,
        Body::Unknown(_) => write!(f, "part[{}]", header.kind)?,
    }
    write!(
        f,
        " order={} part={} ring={}:{}",
        header.order, header.part, header.ring, header.ring_seq
    )?;
    for (_, name) in FLAGS.iter().filter(|(flag, _)| part.has(*flag)) {
        write!(f, " {name}")?;
    }
    match &part.body {
        Body::Call(call, _) => write_call(f, call)?,
        Body::Gap(gap) => {
            write!(
                f,
                " count={} from_boot_ns={} to_boot_ns={}",
                gap.count, gap.from_ns, gap.to_ns
            )?;
        }
        Body::Unknown(bytes) => write!(f, " {}", Escaped(bytes))?,
        Body::More(_) => {}
    }
    write_items(f, part.items())
}

/// The call by its name, or by number and ABI; what was not captured is left out.
fn write_call(f: &mut fmt::Formatter<'_>, call: &Call) -> fmt::Result {
    match calls::name(call.arch, call.nr) {
        Some(name) => write!(f, " {name}")?,
        None => write!(f, " call[{}]", call.nr)?,
    }
    if call.arch != calls::ARCH_X86_64 {
        write!(f, " arch={:x}", call.arch)?;
    }
    let has = |bit| call.captured & bit != 0;
    if has(CAPTURED_RESULT) {
        write!(f, " = {}", call.result)?;
    }
    if has(CAPTURED_TASK) {
        write!(f, " pid={} tid={}", call.pid, call.tid)?;
    }
    if has(CAPTURED_COMM) {
        write!(f, " comm=\"{}\"", Escaped(super::value::until_zero(&call.comm)))?;
    }
    Ok(())
}

fn write_items(f: &mut fmt::Formatter<'_>, items: Items<'_>) -> fmt::Result {
    for item in items {
        let header = &item.header;
        let role = ROLES.get(usize::from(header.role)).filter(|_| header.role > 0);
        match item.kind() {
            decode::ItemKind::Name => write!(f, " {}=", role.unwrap_or(&"name"))?,
            decode::ItemKind::Cwd => f.write_str(" cwd=")?,
            decode::ItemKind::Exe => f.write_str(" exe=")?,
            decode::ItemKind::Argv => write!(f, " argv[{}..]=", header.index)?,
            decode::ItemKind::Sockaddr => f.write_str(" sockaddr=")?,
            decode::ItemKind::Proctitle => f.write_str(" proctitle=")?,
            decode::ItemKind::Tty => f.write_str(" tty=")?,
            decode::ItemKind::Unknown(kind) => write!(f, " item[{kind}]=")?,
        }
        if item.is_captured() {
            write!(f, "\"{}\"", Escaped(item.bytes))?;
        } else {
            f.write_str("not-captured")?;
        }
        f.write_str(if item.is_cut() { "(cut)" } else { "" })?;
        f.write_str(if item.continues() { "(continues)" } else { "" })?;
        f.write_str(if item.is_from_user() { "(from-user)" } else { "" })?;
        f.write_str(if item.is_made() { "(made)" } else { "" })?;
    }
    Ok(())
}
