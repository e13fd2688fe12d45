//! When a condition begins and ends. Time and measurements come in, orders go out.
//!
//! *A condition begins once.* Its action is due then, and not again before it has ended. A threshold ends
//! only when well more is free than it asks for, so that a filesystem that hovers around it does not
//! send a mail a second. What the reserve has given back does not count as free: it is not.
//!
//! *A full disk with a reserve.* When there is no room for the next segment, producers are made to wait first, and
//! only then the reserve is given back: so what it has room for is what was accepted already, and then Graven's own
//! records and those of exempt producers. It ends when there is room for a reserve and a segment, once the reserve
//! is whole again. Without a reserve it ends when there has been room for [`SETTLE_NS`].

use super::{Action, Condition, Threshold};

/// How long there has to be room again before a full disk without a reserve counts as over: a filesystem that
/// hovers at its end would begin and end it with every segment.
const SETTLE_NS: u64 = 5_000_000_000;

/// How long nothing may be lost before the next loss is another alarm.
const LOSS_QUIET_NS: u64 = 60_000_000_000;

/// Least bytes by which more must be free than a threshold asks for, before it has ended.
const REARM_BYTES_MIN: u64 = 1 << 20;

/// A threshold and what is done below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The threshold.
    pub below: Threshold,
    /// What is done once when less is free.
    pub action: Action,
}

/// What an administrator has asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The first threshold.
    pub space_left: Option<Limit>,
    /// The second one.
    pub admin_space_left: Option<Limit>,
    /// What is done when there is no room for the next segment. Whatever it is, records wait until there is,
    /// unless it is [`Action::Drop`].
    pub disk_full: Action,
    /// What is done when storage failed.
    pub disk_error: Action,
    /// What is done when the memory in which records wait is nearly full.
    pub ring_full: Action,
    /// What is done when records were lost upstream.
    pub upstream_loss: Action,
    /// What is done when durable records are under no checkpoint for so many nanoseconds.
    pub checkpoint_overdue: Option<(u64, Action)>,
    /// Bytes of the reserve; 0 for none.
    pub reserve_bytes: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
}

impl Settings {
    /// The action of a condition; `None` if it is not watched.
    #[must_use]
    pub fn action(&self, condition: Condition) -> Option<&Action> {
        Some(match condition {
            Condition::SpaceLeft => &self.space_left.as_ref()?.action,
            Condition::AdminSpaceLeft => &self.admin_space_left.as_ref()?.action,
            Condition::DiskFull => &self.disk_full,
            Condition::DiskError => &self.disk_error,
            Condition::RingFull => &self.ring_full,
            Condition::UpstreamLoss => &self.upstream_loss,
            Condition::CheckpointOverdue => &self.checkpoint_overdue.as_ref()?.1,
        })
    }
}

/// Something that the machine is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// So many bytes of so many are free on the trail's filesystem.
    Space {
        /// Free bytes.
        free: u64,
        /// All bytes.
        total: u64,
    },
    /// Whether the writer waits for room.
    Room {
        /// It does.
        missing: bool,
    },
    /// Whether the reserve has its room.
    Reserve {
        /// It does.
        whole: bool,
    },
    /// Storage failed.
    DiskError,
    /// Whether the memory in which records wait is past its high-water mark, or below its low one.
    Ring {
        /// It is past it.
        full: bool,
    },
    /// So many loss statements were made since the start.
    Losses {
        /// How many.
        statements: u64,
    },
    /// So many records are durable, and checkpoints cover so many.
    Checkpoints {
        /// Durable records.
        durable: u64,
        /// Records under a checkpoint.
        covered: u64,
    },
    /// The administrator says that whatever was wrong is not any more (SIGUSR2): every condition ends, and begins
    /// again if it is still there.
    Resume,
}

/// Whether a condition begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its action is due.
    Begins,
    /// It has ended.
    Ends,
}

/// A condition that begins or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Which.
    pub condition: Condition,
    /// Whether it begins.
    pub change: Change,
    /// The administrator's action.
    pub action: Action,
    /// Free bytes as they were measured last; the reserve not counted. `None` before the first measurement.
    pub free: Option<u64>,
    /// The threshold in bytes, if it is one.
    pub limit: Option<u64>,
}

/// Something to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// What producers do from here on.
    Gate(super::gate::Mode),
    /// Give the reserve back, and ask for room again at once.
    ReleaseReserve,
    /// Allocate the reserve, and tell by [`Event::Reserve`] how it went.
    FillReserve,
    /// Tell people, do what they asked for, and record it.
    Alarm(Alarm),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    active: [bool; Condition::ALL.len()],
    free: Option<u64>,
    total: u64,
    missing: bool,
    /// Since when the writer does not wait for room.
    room_since_ns: Option<u64>,
    reserve_whole: bool,
    losses: u64,
    /// When the last loss was seen.
    loss_ns: u64,
    /// So many records were durable then, and no checkpoint has covered as many since.
    uncovered: Option<(u64, u64)>,
    gate: super::gate::Mode,
}

impl Machine {
    /// A machine to which nothing has happened; its reserve is not whole.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            active: [false; Condition::ALL.len()],
            free: None,
            total: 0,
            missing: false,
            room_since_ns: None,
            reserve_whole: false,
            losses: 0,
            loss_ns: 0,
            uncovered: None,
            gate: super::gate::Mode::Open,
        }
    }

    /// What it was told to do.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Other settings from here on. Conditions that last go on as they are.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Whether a condition lasts.
    #[must_use]
    pub fn is_active(&self, condition: Condition) -> bool {
        self.active[condition as usize]
    }

    /// Takes one thing in, at so many nanoseconds since boot, and says what is to be done.
    #[must_use]
    pub fn take(&mut self, event: Event, now_ns: u64) -> Vec<Order> {
        let mut orders = Vec::new();
        let measured = matches!(event, Event::Space { .. });
        match event {
            Event::Space { free, total } => self.space(free, total, &mut orders),
            Event::Room { missing } => {
                self.room_since_ns =
                    if missing { None } else { self.room_since_ns.or(Some(now_ns)) };
                self.missing = missing;
            }
            Event::Reserve { whole } => self.reserve_whole = whole,
            Event::DiskError => self.begin(Condition::DiskError, &mut orders),
            Event::Ring { full } => self.set_active(Condition::RingFull, full, &mut orders),
            Event::Losses { statements } => self.losses(statements, now_ns, &mut orders),
            Event::Checkpoints { durable, covered } => {
                self.checkpoints(durable, covered, now_ns, &mut orders);
            }
            Event::Resume => {
                for condition in Condition::ALL {
                    self.end(condition, &mut orders);
                }
            }
        }
        self.full(measured, now_ns, &mut orders);
        self.change_gate(&mut orders);
        orders
    }

    /// Free bytes against both thresholds.
    fn space(&mut self, free: u64, total: u64, orders: &mut Vec<Order>) {
        // What was given back is to be taken again: it is not free.
        let lent = if self.reserve_whole { 0 } else { self.settings.reserve_bytes };
        let free = free.saturating_sub(if self.is_active(Condition::DiskFull) { lent } else { 0 });
        (self.free, self.total) = (Some(free), total);
        for condition in [Condition::SpaceLeft, Condition::AdminSpaceLeft] {
            let Some(limit) = self.limit(condition) else { continue };
            let rearm = limit.saturating_add((limit / 8).max(REARM_BYTES_MIN));
            if free < limit {
                self.begin(condition, orders);
            } else if free >= rearm {
                self.end(condition, orders);
            }
        }
    }

    /// The threshold of a condition in bytes.
    fn limit(&self, condition: Condition) -> Option<u64> {
        let limit = match condition {
            Condition::SpaceLeft => self.settings.space_left.as_ref()?,
            Condition::AdminSpaceLeft => self.settings.admin_space_left.as_ref()?,
            _ => return None,
        };
        Some(limit.below.bytes(self.total))
    }

    /// A full disk, and the reserve.
    fn full(&mut self, measured: bool, now_ns: u64, orders: &mut Vec<Order>) {
        let reserves = self.settings.reserve_bytes > 0;
        if self.missing {
            self.begin(Condition::DiskFull, orders);
            if reserves && std::mem::take(&mut self.reserve_whole) {
                orders.push(Order::ReleaseReserve);
            }
            return;
        }
        let active = self.is_active(Condition::DiskFull);
        if reserves && !self.reserve_whole {
            // While the disk is full what it gave back is not counted as free any more.
            let lent = if active { self.settings.reserve_bytes } else { 0 };
            let needed = self.settings.reserve_bytes + 2 * self.settings.segment_bytes;
            if measured && self.free.is_some_and(|free| free.saturating_add(lent) >= needed) {
                orders.push(Order::FillReserve);
            }
            return;
        }
        let settled =
            self.room_since_ns.is_some_and(|since| now_ns.saturating_sub(since) >= SETTLE_NS);
        if active && (reserves || settled) {
            self.end(Condition::DiskFull, orders);
        }
    }

    fn losses(&mut self, statements: u64, now_ns: u64, orders: &mut Vec<Order>) {
        if statements > self.losses {
            (self.losses, self.loss_ns) = (statements, now_ns);
            self.begin(Condition::UpstreamLoss, orders);
        } else if now_ns.saturating_sub(self.loss_ns) >= LOSS_QUIET_NS {
            self.end(Condition::UpstreamLoss, orders);
        }
    }

    fn checkpoints(&mut self, durable: u64, covered: u64, now_ns: u64, orders: &mut Vec<Order>) {
        let Some((limit_ns, _)) = self.settings.checkpoint_overdue else { return };
        match self.uncovered {
            Some((size, since_ns)) if covered < size => {
                if now_ns.saturating_sub(since_ns) >= limit_ns {
                    self.begin(Condition::CheckpointOverdue, orders);
                }
            }
            _ => {
                self.end(Condition::CheckpointOverdue, orders);
                self.uncovered = (covered < durable).then_some((durable, now_ns));
            }
        }
    }

    fn set_active(&mut self, condition: Condition, active: bool, orders: &mut Vec<Order>) {
        if active { self.begin(condition, orders) } else { self.end(condition, orders) }
    }

    fn begin(&mut self, condition: Condition, orders: &mut Vec<Order>) {
        if !std::mem::replace(&mut self.active[condition as usize], true) {
            // Producers wait before anything else is done.
            self.change_gate(orders);
            orders.extend(self.alarm(condition, Change::Begins));
        }
    }

    fn end(&mut self, condition: Condition, orders: &mut Vec<Order>) {
        if std::mem::take(&mut self.active[condition as usize]) {
            orders.extend(self.alarm(condition, Change::Ends));
        }
    }

    fn alarm(&self, condition: Condition, change: Change) -> Option<Order> {
        let action = self.settings.action(condition)?.clone();
        let (free, limit) = (self.free, self.limit(condition));
        Some(Order::Alarm(Alarm { condition, change, action, free, limit }))
    }

    /// What producers do from here on.
    fn change_gate(&mut self, orders: &mut Vec<Order>) {
        use super::gate::Mode;
        let asks = |condition, action: &Action| {
            self.is_active(condition) && self.settings.action(condition) == Some(action)
        };
        // Whoever has memory that is full makes its own producers wait.
        let blocks = [Condition::SpaceLeft, Condition::AdminSpaceLeft]
            .into_iter()
            .any(|it| asks(it, &Action::Block));
        let full = self.is_active(Condition::DiskFull);
        let mode = if asks(Condition::DiskFull, &Action::Drop) {
            Mode::Dropping
        } else if blocks || full && self.settings.reserve_bytes > 0 {
            Mode::Closed
        } else {
            // Without a reserve the ring itself makes producers wait.
            Mode::Open
        };
        if mode != self.gate {
            self.gate = mode;
            orders.push(Order::Gate(mode));
        }
    }
}
