//! The socket filter: the instructions that put a datagram into the ring buffer.
//!
//! In C it would be:
//!
//! ```c
//! if (skb->len < 16 || state.spilled) goto keep;
//! for (each class of sizes)
//!     if (skb->len <= class - 8) {
//!         entry = bpf_ringbuf_reserve(ring, class, 0);
//!         if (!entry) goto spill;
//!         entry->len = skb->len;
//!         entry->kept = state.kept;                         // so many came before it, by the socket
//!         if (bpf_skb_load_bytes(skb, 0, entry->bytes, skb->len)) { discard; goto spill; }
//!         wake = atomic_xchg(&state.asleep, 0);
//!         bpf_ringbuf_submit(entry, wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
//!         return DROP;                                      // nobody queues it, because it is here
//!     }
//! spill: state.spilled = 1;
//! keep:  atomic_add(&state.kept, 1); return KEEP;           // the socket's queue has it
//! ```
//!
//! The kernel wants the size of a reservation as a constant, hence the classes.

/// Bytes in front of a datagram in its entry: its length, and how many were kept before it.
pub(super) const ENTRY_HEADER_BYTES: u32 = 8;
/// Bytes of an entry, header included. An openat event has records of 90 to 330 bytes; what is longer
/// than the last class stays in the socket.
pub(super) const CLASSES_BYTES: [u32; 12] =
    [128, 192, 256, 320, 384, 448, 512, 768, 1024, 2048, 4096, 16384];
/// Offset in the state of the word that says that the reader sleeps.
pub(super) const ASLEEP_OFFSET: i16 = 0;
/// Offset in the state of the word that says that datagrams stay in the socket.
pub(super) const SPILLED_OFFSET: i16 = 4;

/// Offset in the state of the number of datagrams that were left to the socket. One that the socket had no room
/// for is sent again and counted again.
pub(super) const KEPT_OFFSET: i16 = 8;
/// Offset in the state of the number of those that the reader has had. The program does not look at it.
pub(super) const RECEIVED_OFFSET: i16 = 12;
/// Bytes of the state.
pub(super) const STATE_BYTES: u32 = 16;

/// A netlink header: shorter ones are none, and the verifier wants a lower bound.
const DATAGRAM_BYTES_MIN: i32 = 16;

const SKB_LOAD_BYTES: i32 = 26;
const RINGBUF_RESERVE: i32 = 131;
const RINGBUF_SUBMIT: i32 = 132;
const RINGBUF_DISCARD: i32 = 133;
const NO_WAKEUP: i32 = 1;
const FORCE_WAKEUP: i32 = 2;

/// One instruction, as the kernel takes it (`struct bpf_insn` in `linux/bpf.h`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Insn {
    code: u8,
    /// Destination in the low half, source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const _: () = assert!(size_of::<Insn>() == 8);

/// Where a jump goes whose place is not known yet.
#[derive(Clone, Copy)]
enum Label {
    /// The next class.
    Next,
    Submit,
    Discard,
    Spill,
    Keep,
}

#[derive(Default)]
struct Assembler {
    insns: Vec<Insn>,
    open: Vec<(usize, Label)>,
}

impl Assembler {
    fn put(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.insns.push(Insn { code, registers: to | from << 4, offset, immediate });
    }

    fn copy(&mut self, to: u8, from: u8) {
        self.put(0xbf, to, from, 0, 0);
    }

    fn set(&mut self, to: u8, value: i32) {
        self.put(0xb7, to, 0, 0, value);
    }

    fn load(&mut self, to: u8, from: u8, offset: i16) {
        self.put(0x61, to, from, offset, 0);
    }

    fn store(&mut self, to: u8, offset: i16, value: i32) {
        self.put(0x62, to, 0, offset, value);
    }

    /// The address of a map, or of its first value.
    fn map(&mut self, to: u8, fd: i32, value: bool) {
        self.put(0x18, to, if value { 2 } else { 1 }, 0, fd);
        self.put(0, 0, 0, 0, 0);
    }

    fn call(&mut self, helper: i32) {
        self.put(0x85, 0, 0, 0, helper);
    }

    fn jump(&mut self, code: u8, register: u8, value: i32, label: Label) {
        self.open.push((self.insns.len(), label));
        self.put(code, register, 0, 0, value);
    }

    /// What jumps to this label lands here.
    fn here(&mut self, label: Label) {
        let target = self.insns.len();
        let insns = &mut self.insns;
        self.open.retain(|&(at, to)| {
            let lands = to as u8 == label as u8;
            if lands {
                insns[at].offset = (target - at - 1) as i16;
            }
            !lands
        });
    }
}

const JUMP: u8 = 0x05;
const IF_ZERO: u8 = 0x15;
const IF_ABOVE: u8 = 0x25;
const IF_NOT_ZERO: u8 = 0x55;
const IF_BELOW: u8 = 0xa5;

/// The program over these maps.
pub(super) fn assemble(ring: i32, state: i32) -> Vec<Insn> {
    let mut a = Assembler::default();
    // r6 the datagram, r7 its length, r8 the entry, r9 the state.
    a.copy(6, 1);
    a.load(7, 6, 0);
    a.map(9, state, true);
    a.jump(IF_BELOW, 7, DATAGRAM_BYTES_MIN, Label::Keep);
    a.load(0, 9, SPILLED_OFFSET);
    a.jump(IF_NOT_ZERO, 0, 0, Label::Keep);
    for class in CLASSES_BYTES {
        a.jump(IF_ABOVE, 7, (class - ENTRY_HEADER_BYTES) as i32, Label::Next);
        a.map(1, ring, false);
        a.set(2, class as i32);
        a.set(3, 0);
        a.call(RINGBUF_RESERVE);
        a.jump(IF_ZERO, 0, 0, Label::Spill);
        a.copy(8, 0);
        a.put(0x63, 8, 7, 0, 0); // entry->len = r7
        a.load(0, 9, KEPT_OFFSET);
        a.put(0x63, 8, 0, 4, 0); // entry->kept = r0
        a.copy(1, 6);
        a.set(2, 0);
        a.copy(3, 8);
        a.put(0x07, 3, 0, 0, ENTRY_HEADER_BYTES as i32); // r3 += 8
        a.copy(4, 7);
        a.call(SKB_LOAD_BYTES);
        a.jump(IF_NOT_ZERO, 0, 0, Label::Discard);
        a.jump(JUMP, 0, 0, Label::Submit);
        a.here(Label::Next);
    }
    a.jump(JUMP, 0, 0, Label::Spill);
    a.here(Label::Discard);
    a.copy(1, 8);
    a.set(2, NO_WAKEUP);
    a.call(RINGBUF_DISCARD);
    a.here(Label::Spill);
    a.store(9, SPILLED_OFFSET, 1);
    a.here(Label::Keep);
    a.set(0, 1);
    a.put(0xc3, 9, 0, KEPT_OFFSET, 0); // atomic_add(&state.kept, r0)
    a.set(0, -1);
    a.put(0x95, 0, 0, 0, 0);
    a.here(Label::Submit);
    a.set(0, 0);
    // r0 = atomic_xchg(&state.asleep, r0): the entry was reserved before, for whoever looks after it
    // has said that it sleeps.
    a.put(0xc3, 9, 0, ASLEEP_OFFSET, 0xe1);
    a.copy(1, 8);
    a.set(2, NO_WAKEUP);
    a.put(IF_ZERO, 0, 0, 1, 0);
    a.set(2, FORCE_WAKEUP);
    a.call(RINGBUF_SUBMIT);
    a.set(0, 0);
    a.put(0x95, 0, 0, 0, 0);
    debug_assert!(a.open.is_empty(), "every jump has landed");
    a.insns
}
