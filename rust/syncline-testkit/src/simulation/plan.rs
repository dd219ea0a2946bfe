//! What happens in a simulated world, as data: drawn from a seed by [`super::draw`], lived by [`super::life`], and made smaller
//! by `shrink.rs` when it fails.

use crate::disk::Failure;

/// One thing that happens. Numbers that name something (`device`, `which`) count modulo what there is, so that a plan stays
/// a plan when steps are left out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the variants say what their fields are")]
pub enum Step {
    /// The user writes.
    Write { device: u8, intent: Intent, depends: bool },
    /// The user writes under a key of the app's own, perhaps one that was used before.
    Keyed { device: u8, intent: Intent, key: u8 },
    /// The app imports: many writes at once, all or none durable.
    Import { device: u8, intents: Vec<Intent> },
    /// The user writes several things as one. `now`: the app waits for the verdict, up to half a minute.
    Group { device: u8, members: Vec<Intent>, now: bool },
    /// A form is open: its members were added to a transaction a while before it is committed.
    SlowGroup { device: u8, members: Vec<Intent>, pause: u8 },
    /// The user decides about an operation that waits, failed or conflicts.
    Act { device: u8, action: Action, which: u8 },
    /// Something happens to the device's next request.
    Next { device: u8, fault: Mishap },
    /// Something happens to every request of the device that carries the payload `poison`, until the end.
    Poison { device: u8, wall: Wall },
    /// Something that was held arrives; the newest first, or the oldest.
    Release { device: u8, newest: bool },
    /// An old request arrives once more.
    Stray { which: u16 },
    /// `process_queue` is called; nobody waits for it.
    Process { device: u8 },
    /// `run_background` is called with a deadline.
    Window { device: u8, seconds: u8 },
    /// Background processing begins or ends.
    Background { device: u8, on: bool },
    /// The platform reports a network, or none.
    Online { device: u8, on: bool },
    /// The credential of the device expires, is refreshed when asked for, or is good again.
    Credential { device: u8, wallet: Wallet },
    /// Some of what is ready happens.
    Some { steps: u8 },
    /// All that needs no time happens.
    Idle,
    /// Time passes.
    Pass { seconds: u32 },
    /// Everything sleeps for days: nothing happens, and then it is later.
    Sleep { days: u16 },
    /// The process dies at its `after`-th write to the disk from now, and is opened again.
    Kill { device: u8, after: u8 },
    /// The device loses power at its `after`-th write to the disk from now, and is opened again.
    PowerLoss { device: u8, after: u8 },
    /// A call of the device's disk fails.
    DiskFails { device: u8, call: DiskCall, after: u8 },
    /// The device's disk is full, or has room again.
    DiskFull { device: u8, on: bool },
    /// A second process opens the device's file, or closes it.
    Second { device: u8, on: bool },
    /// The file's process lock is lost by who holds it, who does not notice: another process may take it.
    Steal { device: u8 },
    /// The app is updated to a version that migrates the file: its process is replaced, and may die at its `after`-th write while
    /// it opens the file. An app that was updated before is put back, which must refuse the file.
    Update { device: u8, after: u8 },
    /// The app is closed in good order and opened again; its process may die, or the phone lose power, at its `after`-th write.
    Close { device: u8, after: u8, power: bool },
    /// The device changes to its other user, or back.
    Switch { device: u8 },
    /// The user signs out, giving up what is not sent, and signs in again.
    SignOut { device: u8, mode: Leave },
    /// A device's file is copied to a new device.
    Copy { device: u8 },
    /// A device's clock is set.
    Jump { device: u8, seconds: i64 },
    /// A device's clock runs fast or slow from now on, in parts per thousand.
    Drift { device: u8, permille: i16 },
    /// The endpoint's process dies at its `after`-th write to the disk from now, and is started again.
    ServerDies { after: u8, power: bool },
    /// A call of the endpoint's disk fails.
    ServerDiskFails { call: DiskCall, after: u8 },
    /// The endpoint's disk is full, or has room again.
    ServerDiskFull { on: bool },
    /// The endpoint tidies up.
    Maintain,
    /// The server's file is copied.
    Snapshot,
    /// The last copy of the server's file takes its place. `told`: the operator says so.
    Restore { told: bool },
}

impl Step {
    /// The device it is about; above 127: the second process there.
    pub(super) fn device(&self) -> u8 {
        match self {
            Self::Write { device, .. }
            | Self::Keyed { device, .. }
            | Self::Import { device, .. }
            | Self::Group { device, .. }
            | Self::SlowGroup { device, .. }
            | Self::Act { device, .. }
            | Self::Next { device, .. }
            | Self::Poison { device, .. }
            | Self::Release { device, .. }
            | Self::Process { device }
            | Self::Window { device, .. }
            | Self::Background { device, .. }
            | Self::Online { device, .. }
            | Self::Credential { device, .. }
            | Self::Kill { device, .. }
            | Self::PowerLoss { device, .. }
            | Self::DiskFails { device, .. }
            | Self::DiskFull { device, .. }
            | Self::Second { device, .. }
            | Self::Steal { device }
            | Self::Update { device, .. }
            | Self::Close { device, .. }
            | Self::Switch { device }
            | Self::SignOut { device, .. }
            | Self::Copy { device }
            | Self::Jump { device, .. }
            | Self::Drift { device, .. } => *device,
            Self::Stray { .. }
            | Self::Some { .. }
            | Self::Idle
            | Self::Pass { .. }
            | Self::Sleep { .. }
            | Self::ServerDies { .. }
            | Self::ServerDiskFails { .. }
            | Self::ServerDiskFull { .. }
            | Self::Maintain
            | Self::Snapshot
            | Self::Restore { .. } => 0,
        }
    }

    /// How many operations the user asks for with it.
    pub fn writes(&self) -> usize {
        match self {
            Self::Write { .. } | Self::Keyed { .. } => 1,
            Self::Import { intents: all, .. }
            | Self::Group { members: all, .. }
            | Self::SlowGroup { members: all, .. } => all.len(),
            _ => 0,
        }
    }
}

/// A write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Intent {
    /// Which kind.
    pub kind: Kind,
    /// Of [`super::life::TYPES`].
    pub entity_type: u8,
    /// One of few, so that devices meet.
    pub entity: u8,
    /// One of few.
    pub field: u8,
    /// What to write; see [`Intent::payload`].
    pub value: u8,
}

/// A kind of write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A create.
    Create,
    /// An update.
    Update,
    /// A delete.
    Delete,
}

impl Intent {
    /// JSON text: 0 removes the field, 9 is the poison, the rest are numbers.
    pub fn payload(self) -> String {
        let field = self.field;
        match self.value {
            0 => format!(r#"{{"f{field}":null}}"#),
            9 => format!(r#"{{"f{field}":"poison"}}"#),
            value => format!(r#"{{"f{field}":{value}}}"#),
        }
    }
}

/// What a user does about an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Withdraws it.
    Cancel,
    /// Tries it again.
    Retry,
    /// Gives it up.
    Discard,
    /// Resolves: the own value stands.
    TakeLocal,
    /// Resolves: theirs stands.
    TakeRemote,
    /// Resolves: another value stands.
    Merged,
    /// Brings back what lost in a ledger entry.
    Reopen,
}

/// How a user leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Leave {
    /// What is not sent is sent first, for ten seconds at the most.
    Flush,
    /// What is not sent stays.
    Keep,
    /// What is not sent is given up.
    Discard,
}

/// The state of a device's credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wallet {
    /// Expired; a fresh one is there for the asking.
    Stale,
    /// Expired, and the user must sign in.
    Expired,
    /// The provider fails.
    Broken,
    /// Good for another scope only: the user has left this one.
    Moved,
    /// Good.
    Good,
}

/// A call of a disk that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskCall {
    /// A write; it may be half done.
    Write,
    /// A flush; what was to be flushed may be lost.
    Sync,
}

impl DiskCall {
    pub(super) fn failure(self) -> Failure {
        match self {
            Self::Write => Failure::Write,
            Self::Sync => Failure::Sync,
        }
    }
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mishap {
    /// It finds no way.
    Unreachable,
    /// It is lost.
    LostBefore,
    /// It is cut off on the way, and the endpoint hears a part of it.
    CutRequest,
    /// Its answer is lost.
    LostAfter,
    /// It waits on the way.
    HeldRequest,
    /// Its answer waits on the way.
    HeldAnswer,
    /// It arrives twice.
    Twice,
    /// Its answer is cut off.
    CutAnswer,
    /// A captive portal answers.
    Portal,
    /// A proxy answers: nobody here.
    ProxyNotFound,
    /// A proxy answers: nobody behind.
    ProxyBadGateway,
    /// A proxy answers in a way of its own.
    ProxyUnknown,
    /// A proxy answers after our endpoint has decided.
    ProxyAfter,
    /// Our endpoint wants a fresh credential.
    Unauthorized,
    /// Our endpoint wants another credential.
    Forbidden,
    /// Our endpoint finds it too large.
    TooLarge,
    /// Something on the way finds it too large.
    ProxyTooLarge,
    /// Our endpoint is asked too often; come back in some seconds.
    TooMany,
    /// Our endpoint cannot answer; come back at a date.
    Unavailable,
    /// Our endpoint fails.
    Internal,
    /// The answer is hostile.
    Hostile(Hostile),
}

/// How an answer is tampered with, after the endpoint has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hostile {
    /// It speaks of an operation that was never sent, in place of one that was.
    WrongId,
    /// It speaks of one more operation than was sent.
    NeverSent,
    /// It speaks of an operation twice.
    TwiceTold,
    /// A verdict that nobody knows.
    UnknownVerdict,
    /// A number beyond all bounds.
    HugeNumber,
    /// A member is missing.
    MissingField,
    /// A member is of another type.
    WrongType,
    /// The counts do not add up.
    WrongCount,
}

impl Hostile {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::WrongId,
        Self::NeverSent,
        Self::TwiceTold,
        Self::UnknownVerdict,
        Self::HugeNumber,
        Self::MissingField,
        Self::WrongType,
        Self::WrongCount,
    ];
}

impl Mishap {
    /// All of them, but the hostile ones.
    pub const ALL: [Self; 20] = [
        Self::Unreachable,
        Self::LostBefore,
        Self::CutRequest,
        Self::LostAfter,
        Self::HeldRequest,
        Self::HeldAnswer,
        Self::Twice,
        Self::CutAnswer,
        Self::Portal,
        Self::ProxyNotFound,
        Self::ProxyBadGateway,
        Self::ProxyUnknown,
        Self::ProxyAfter,
        Self::Unauthorized,
        Self::Forbidden,
        Self::TooLarge,
        Self::ProxyTooLarge,
        Self::TooMany,
        Self::Unavailable,
        Self::Internal,
    ];
}

/// Who dislikes one payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wall {
    /// Our endpoint fails on it.
    Endpoint,
    /// A firewall answers for our endpoint.
    Firewall,
}

/// How a world is set up. Which kinds of trouble it has is drawn first: with all of them at once, few worlds would go far.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Setting {
    /// Two to four at the beginning; copies are more.
    pub devices: u8,
    /// Devices forget ended operations early.
    pub forgetful: bool,
    /// New operations fold into waiting ones.
    pub coalesce: bool,
    /// The old values go with every operation.
    pub send_before: bool,
    /// Devices pull two of the entity types only.
    pub filtered: bool,
    /// Operations in one push, at the most.
    pub small_batches: bool,
    /// Forms are tried once only: members of a transaction differ in how often they may be.
    pub hasty_forms: bool,
    /// Pulls ask for a few changes at a time.
    pub short_pages: bool,
    /// The server goes back in time.
    pub restores: bool,
    /// A server goes back in time only in worlds where nothing arrives late, unless the operator says so (spec §6).
    pub untold_restores: bool,
}

/// A life, as steps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Plan {
    /// Decides ids, jitter, the order of what happens at once, and what a power loss leaves.
    pub seed: u64,
    /// How the world is set up.
    pub setting: Setting,
    /// What happens.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Its steps, one a line.
    pub fn lines(&self) -> String {
        self.steps.iter().map(|step| format!("    {step:?},")).collect::<Vec<_>>().join("\n")
    }
}
