//! The parser of audit netlink messages over arbitrary datagrams: it never panics, and what it
//! hands out is part of the datagram.
#![no_main]

use graven_writer::source::nlmsg::{self, Status};

libfuzzer_sys::fuzz_target!(|datagram: &[u8]| {
    let _ = nlmsg::parse(datagram);
    let _ = Status::parse(datagram);
    if let Some(stamp) = nlmsg::stamp(datagram) {
        assert!(datagram.starts_with(b"audit("), "{stamp:?} of something else");
    }
});
