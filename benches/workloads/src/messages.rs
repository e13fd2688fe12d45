//! What the kernel sends, taken apart: datagrams of kernel audit, and parts of the shim's rings.

use crate::{Unit, Work, Workload, text};
use graven_shim_abi::decode::{Body, parse};
use graven_shim_abi::encode::PartBuilder;
use graven_shim_abi::{
    Call, ITEM_CWD, ITEM_EXE, ITEM_PROCTITLE, ITEM_TTY, Item, Object, PART_LAST, ROLE_TARGET,
};
use graven_writer::source::nlmsg::{self, HEADER_BYTES, Message};

pub(crate) const NETLINK: Workload =
    Workload { name: "nlmsg/parse", unit: Unit::Items, prepare: netlink };

pub(crate) const SHIM: Workload = Workload { name: "shim/parse", unit: Unit::Items, prepare: shim };

/// A datagram as the kernel sends a record: the length counts the payload alone, and zeros fill up the last word.
#[expect(clippy::host_endian_bytes, reason = "netlink speaks the host's byte order")]
fn datagram(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend((payload.len() as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn netlink() -> Work {
    let lines = text::events(1000);
    let datagrams: Vec<_> = lines.iter().map(|line| datagram(line.kind, &line.text)).collect();
    let units = lines.len() as u64;
    let run = move || {
        for (datagram, line) in datagrams.iter().zip(&lines) {
            let Some(Message::Record { kind, payload }) = nlmsg::parse(datagram) else {
                panic!("a record");
            };
            let serial = nlmsg::stamp(payload).map(|stamp| stamp.serial);
            assert_eq!(
                (kind, payload.len(), serial),
                (line.kind, line.text.len(), Some(line.serial))
            );
        }
    };
    Work { units, run: Box::new(run) }
}

fn shim() -> Work {
    const ITEMS: usize = 5;
    let part = |order: u64| {
        PartBuilder::call(order, &Call::default())
            .flags(PART_LAST)
            .ring(1, order)
            .item(Item::of(ITEM_EXE), b"/usr/bin/python3")
            .item(Item::of(ITEM_CWD), b"/home/user7")
            .item(Item::of(ITEM_TTY), b"pts0")
            .item(Item::of(ITEM_PROCTITLE), b"python3\0-m\0http.server")
            .name(ROLE_TARGET, 0, &Object::default(), b"/usr/share/python3/part7/file12.conf")
            .build()
    };
    let parts: Vec<_> = (0..2000).map(part).collect();
    let units = parts.len() as u64;
    let run = move || {
        for (order, bytes) in parts.iter().enumerate() {
            let part = parse(bytes).expect("a part");
            let Body::Call(_, items) = part.body else { panic!("of a call") };
            let (names, bytes) = items.fold((0, 0), |(names, bytes), item| {
                (names + usize::from(item.object.is_some()), bytes + item.bytes.len())
            });
            assert!(part.is_last() && part.header.order == order as u64);
            assert!(names == 1 && bytes > ITEMS);
        }
    };
    Work { units, run: Box::new(run) }
}
