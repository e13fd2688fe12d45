//! A window that is built again from what a trail has.

use super::{ENDED, Gap, Missing, OPEN_MAX, OPENED, SPAN, STATED, Tolerance, Window, widen};

impl Window {
    /// A window to be built again: everything up to and with `serial` is settled. `halves` says that
    /// both `SYSCALL` and `EOE` had been seen. Note what the trail has from there on, then call
    /// [`Window::resume`].
    #[must_use]
    pub fn at(tolerance: Tolerance, serial: u32, halves: bool) -> Self {
        let mut window = Self::new(tolerance);
        (window.primed, window.started, window.rebuilding) = (true, true, true);
        // As in `note`: one whole turn of serials lies below.
        window.next = ((1 << 32) | u64::from(serial)) + 1;
        window.head = window.next;
        if halves {
            window.kinds_seen = OPENED | ENDED;
        }
        window
    }

    /// Says that the trail states this range: what is not seen of it has been said, or, if `partial`,
    /// what is not whole. Returns how many serials that are.
    pub fn stated(&mut self, first: u32, last: u32, partial: bool) -> u64 {
        let said = self.widen_range(first, last);
        let (from, to) = (*said.start(), *said.end());
        let mut count = 0;
        if partial {
            let head = self.head;
            self.missing.partial.retain(|&serial| !said.contains(&widen(head, serial)));
            self.open.retain(|at, _| !said.contains(at));
        } else {
            // Given up for want of room when the trail was read, before its statement came.
            for gap in std::mem::take(&mut self.missing.gaps) {
                let gap = self.widen_range(gap.first, gap.last);
                let (below, above) = ((*gap.start()).max(to + 1), (*gap.end()).min(from - 1));
                let common = (*gap.start()).max(from)..(*gap.end()).min(to) + 1;
                count += common.end.saturating_sub(common.start);
                for (left, right) in [(*gap.start(), above), (below, *gap.end())] {
                    if left <= right {
                        self.missing.gaps.push(Gap { first: left as u32, last: right as u32 });
                    }
                }
            }
        }
        for at in from.max(self.next)..=to.min(self.head.saturating_sub(1)) {
            let state = self.state(at);
            if if partial { !self.is_whole(state) } else { state == 0 } {
                self.states[(at % SPAN) as usize] |= STATED;
                count += 1;
            }
        }
        count
    }

    /// The wide numbers from `first` to `last`, of which the latter is near the head.
    fn widen_range(&self, first: u32, last: u32) -> std::ops::RangeInclusive<u64> {
        let to = self.widen(last);
        to - u64::from(last.wrapping_sub(first))..=to
    }

    /// Says that the trail has this opening marker of a session that went on with this window.
    pub fn reopen(&mut self, serial: u32) {
        self.opening = self.widen(serial);
    }

    /// Says that everything up to and with this closing marker is settled.
    pub fn close(&mut self, last: u32) {
        let end = (self.widen(last) + 1).min(self.head);
        while self.next < end {
            self.states[(self.next % SPAN) as usize] = 0;
            self.next += 1;
        }
        self.open = self.open.split_off(&end);
        self.missing = Missing::default();
    }

    /// Ends building the window again: what is missing is waited for from `now_ns` on. If a new
    /// session begins, what is missing up to its opening marker is absent.
    pub fn resume(&mut self, now_ns: u64, new_session: bool) {
        self.pass_complete();
        self.rebuilding = false;
        self.now_ns = now_ns;
        let until_ns = now_ns.saturating_add(self.tolerance.event_time_ns);
        self.open.values_mut().for_each(|(_, until)| *until = until_ns);
        self.events = 0;
        if new_session {
            (self.opening, self.rejoining) = (u64::MAX, true);
        }
        let opening = self.opening;
        let gaps = std::mem::take(&mut self.missing.gaps);
        let is_absent = |gap: &Gap| widen(self.head, gap.last) <= opening;
        (self.missing.absent, self.missing.gaps) = gaps.into_iter().partition(is_absent);
    }

    /// Notes a record that a trail has; see [`Window::at`].
    pub fn note_again(&mut self, serial: u32, kind: u16) {
        self.note(serial, kind);
        self.pass_complete();
        if self.open.len() > OPEN_MAX / 2 {
            self.judge_open(0);
        }
    }
}
