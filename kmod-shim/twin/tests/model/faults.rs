//! Faults, each put into a copy of the core: one that the tests do not find would be a hole in the tests.

/// Which test must find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Model,
    /// Needs two at once, so it may need more than one run.
    Threads,
    /// Is wrong by the rules of the language, whatever comes of it on this machine.
    Sanitizer,
}

/// Text of a file of `core/` that is there once, and what stands there instead.
pub(crate) struct Fault {
    pub(crate) what: &'static str,
    pub(crate) by: By,
    pub(crate) file: &'static str,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
}

const fn fault(what: &'static str, from: &'static str, to: &'static str) -> Fault {
    Fault { what, by: By::Model, file: "graven_core.c", from, to }
}

const fn race(
    what: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
) -> Fault {
    Fault { what, by: By::Threads, file, from, to }
}

const fn unordered(what: &'static str, from: &'static str, to: &'static str) -> Fault {
    Fault { what, by: By::Sanitizer, file: "graven_core.c", from, to }
}

pub(crate) const FAULTS: &[Fault] = &[
    fault(
        "a tail beyond the head is believed",
        "return tail >= ring->tail && tail <= ring->head;",
        "return tail >= ring->tail;",
    ),
    fault(
        "a tail that went back is believed",
        "return tail >= ring->tail && tail <= ring->head;",
        "return tail <= ring->head;",
    ),
    fault("the believed tail is not kept", "\tgs_store(&ring->tail, tail);\n", ""),
    fault("the believed tail is not published", "\tgs_store(&ring->producer->tail, tail);\n", ""),
    fault("bad tails are not counted", "gs_store(&ring->bad_tails, ring->bad_tails + 1);", ""),
    fault(
        "the gate believes any tail",
        "if (tail < believed || tail > head || head - tail > core->slots)",
        "if (0)",
    ),
    fault("the gate asks for too little room", ">= 2 * slots_of(core", ">= slots_of(core"),
    fault(
        "the gate is open while there are orphans",
        "if (!gs_load(&core->orphan_count)) {",
        "if (1) {",
    ),
    fault(
        "room is off by one",
        "\treturn core->slots - (__u32)(ring->head - tail);",
        "\treturn core->slots - (__u32)(ring->head - tail) + 1;",
    ),
    fault("what fills up to the end takes no room", ">= fill + need) {", ">= need) {"),
    fault("a part that just fits is put off to the beginning", "need > to_end", "need >= to_end"),
    fault("a part goes over the end", "need > to_end ? to_end : 0", "need > to_end ? 0 : 0"),
    fault(
        "the pad's length is in slots",
        "part->bytes = slots * GRAVEN_SHIM_SLOT_BYTES;",
        "part->bytes = slots;",
    ),
    fault("the pad is not written", "\t\tif (fill)\n\t\t\tpad(core, ring, fill);\n", ""),
    fault("the head forgets the pad", "ring->head + fill + need);", "ring->head + need);"),
    fault("ring_seq is not advanced", "\t\tring->ring_seq++;\n", ""),
    fault(
        "a pad takes a ring_seq",
        "\t\t\tpad(core, ring, fill);",
        "\t\t\tpad(core, ring, fill), ring->ring_seq++;",
    ),
    fault("the part does not say its ring", "\t\tpart->ring = ring->index;\n", ""),
    fault(
        "hints that overflow leave out a ring",
        "(hint % core->ring_count + i) % core->ring_count",
        "(hint + i) % core->ring_count",
    ),
    fault(
        "only the ring of the hint is tried",
        "if (put(core, nth(core, hint, i), part))",
        "if (put(core, nth(core, hint, 0), part))",
    ),
    fault(
        "a number is taken twice",
        "\tbuffer->order = gs_counter_take",
        "\tgs_counter_take(&core->order_next);\n\tbuffer->order = gs_counter_take",
    ),
    fault(
        "a number is not taken",
        "buffer->order = gs_counter_take(&core->order_next);",
        "buffer->order = gs_counter_read(&core->order_next);",
    ),
    fault(
        "the control page has no number",
        "gs_store(&core->control->order_next, buffer->order + 1);",
        "",
    ),
    fault(
        "later parts have another number",
        "part->order = buffer->order;",
        "part->order = buffer->order + buffer->part;",
    ),
    fault("parts are not numbered", "\t\tbuffer->part++;\n", ""),
    fault(
        "a later part is a call",
        "part_of(buffer)->kind = GRAVEN_PART_MORE;",
        "part_of(buffer)->kind = GRAVEN_PART_CALL;",
    ),
    fault("a later part keeps old flags", "memset(buffer->data, 0, PART_HEADER);", ""),
    fault(
        "the part is begun anew though there was no room",
        "if (!put_anywhere(core, hint, finished(buffer, flags)))\n\t\treturn false;",
        "if (!put_anywhere(core, hint, finished(buffer, flags)) && flags)\n\t\treturn false;",
    ),
    fault(
        "the record's last part does not say so",
        "part->flags |= flags;",
        "part->flags |= flags & ~GRAVEN_PART_LAST;",
    ),
    fault(
        "an orphan does not end",
        "flags | GRAVEN_PART_LAST | GRAVEN_PART_ORPHAN",
        "flags | GRAVEN_PART_ORPHAN",
    ),
    fault(
        "an orphan is not called one",
        "flags | GRAVEN_PART_LAST | GRAVEN_PART_ORPHAN",
        "flags | GRAVEN_PART_LAST",
    ),
    fault(
        "an orphan waits though there is room",
        "if (!core->orphans && put_gap(core, hint) && put_anywhere(core, hint, part)) {",
        "if (0) {",
    ),
    fault(
        "an orphan goes before the gap",
        "if (!core->orphans && put_gap(core, hint) && put_anywhere(core, hint, part)) {",
        "if (!core->orphans && put_anywhere(core, hint, part)) {",
    ),
    fault("an orphan is not counted", "gs_store(&core->orphan_count, core->orphan_count + 1);", ""),
    fault("orphans are never fewer", "gs_store(&core->orphan_count, core->orphan_count - 1);", ""),
    fault(
        "an orphan is dropped if there is no room",
        "if (!put_anywhere(core, hint, part_of(buffer)))\n\t\t\tbreak;",
        "put_anywhere(core, hint, part_of(buffer));",
    ),
    fault(
        "only the last orphan is kept",
        "\t*core->orphans_end = buffer;\n",
        "\tcore->orphans = buffer;\n",
    ),
    fault(
        "orphans are added behind one that is gone",
        "\t\tif (!core->orphans)\n\t\t\tcore->orphans_end = &core->orphans;\n",
        "",
    ),
    fault(
        "an orphan's buffer is not given back",
        "\t\tbuffer->next = empty;\n\t\tempty = buffer;\n",
        "",
    ),
    fault(
        "a gap is forgotten at a push",
        "if (gs_load(&core->gap.count)) {\n\t\tbool",
        "if (0) {\n\t\tbool",
    ),
    fault(
        "a gap is forgotten if there is no room",
        "if (!put_anywhere(core, hint, &whole.part))\n\t\treturn false;",
        "put_anywhere(core, hint, &whole.part);",
    ),
    fault("a gap is said twice", "\tgs_store(&core->gap.count, 0);\n", ""),
    fault(
        "a gap counts one call",
        "gs_store(&core->gap.count, core->gap.count + 1);",
        "gs_store(&core->gap.count, 1);",
    ),
    fault(
        "a gap takes a number",
        "whole.part.order = gs_counter_read",
        "whole.part.order = gs_counter_take",
    ),
    fault("a gap does not say until when", "\tcore->gap.to_ns = now_ns;\n", ""),
    fault("calls that passed are not counted", "\tgs_counter_take(&core->passed);\n", ""),
    fault("the state stays", "gs_store(&core->control->state, 0);", ""),
    fault("calls pass while there is a reader", "|| !absent_ms ||", "||"),
    fault("calls pass before the time", "|| absent_ms < after_ms)", ")"),
    fault("calls pass though they are to wait", "policy == GRAVEN_NO_READER_BLOCK ||", ""),
    fault("the machine stops where calls may pass", "GS_PASS : GS_PANIC", "GS_PANIC : GS_PASS"),
    fault("items are not aligned", "(bytes + 7) & ~7U", "bytes"),
    fault(
        "old bytes lie between items",
        "memset(buffer->data + buffer->used, 0, at - buffer->used);",
        "",
    ),
    fault("items are not counted", "\tbuffer->items++;\n", ""),
    fault("items of the last record are counted", "\tbuffer->items = 0;\n", ""),
    fault(
        "room for an item forgets its header",
        "*bytes = buffer->size - at;",
        "*bytes = buffer->size - at + 16;",
    ),
    fault(
        "the number of items is never known",
        "flags & GRAVEN_PART_LAST ? buffer->items : ~0U",
        "~0U",
    ),
    fault("a record begins with what was there", "memset(buffer->data, 0, buffer->used);", ""),
    fault(
        "tails are looked at only if somebody waits",
        "for (i = 0; i < core->ring_count; i++) {\n\t\tgs_lock(&core->rings[i].lock);",
        "for (i = 0; i < core->orphan_count; i++) {\n\t\tgs_lock(&core->rings[i].lock);",
    ),
    race(
        "the head is moved before the part is there",
        "graven_core.c",
        "\t\tmemcpy(slot(core, ring, ring->head + fill), part, part->bytes);\n",
        "\t\tgs_store_release(&ring->producer->head, ring->head + fill + need);\n\
         \t\tfor (volatile int i = 0; i < 40000; i++)\n\t\t\t;\n\
         \t\tmemcpy(slot(core, ring, ring->head + fill), part, part->bytes);\n",
    ),
    race(
        "locks do not lock",
        "graven_env.h",
        "while (__atomic_test_and_set(&lock->held, __ATOMIC_ACQUIRE))",
        "while (__atomic_test_and_set(&lock->held, __ATOMIC_ACQUIRE) && 0)",
    ),
    race(
        "a number is read, then taken",
        "graven_core.c",
        "\tbuffer->order = gs_counter_take(&core->order_next);\n",
        "\tbuffer->order = gs_counter_read(&core->order_next);\n\
         \tfor (volatile int i = 0; i < 2000; i++)\n\t\t;\n\
         \tgs_counter_set(&core->order_next, buffer->order + 1);\n",
    ),
    race(
        "an orphan looks for room before it has the lock to wait",
        "graven_core.c",
        "\t*core->orphans_end = buffer;\n",
        "\tgs_unlock(&core->lock);\n\tfor (volatile int i = 0; i < 40000000; i++)\n\t\t;\n\
         \tgs_lock(&core->lock);\n\t*core->orphans_end = buffer;\n",
    ),
    unordered(
        "the head is stored without release",
        "gs_store_release(&ring->producer->head, ring->head);",
        "gs_store(&ring->producer->head, ring->head);",
    ),
    unordered(
        "the tail is loaded without acquire",
        "__u64 tail = gs_load_acquire(&ring->consumer->tail);",
        "__u64 tail = gs_load(&ring->consumer->tail);",
    ),
    unordered(
        "the gap is emptied as if nobody looked",
        "\tgs_store(&core->gap.count, 0);\n",
        "\tmemset(&core->gap, 0, sizeof(core->gap));\n",
    ),
    unordered(
        "orphans are counted as if nobody looked",
        "gs_store(&core->orphan_count, core->orphan_count + 1);",
        "core->orphan_count++;",
    ),
];
