//! What a world is about. Where everything may happen at any time, what takes several steps in a row hardly ever does: half of the
//! worlds therefore have a focus, from which every other step is drawn, alone or as a course of events.

use super::draw::{DISK_CALLS, Draw};
use super::life::TYPES;
use super::plan::{Action, Hostile, Intent, Kind, Mishap, Setting, Step, Wall};

/// What a world is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Focus {
    /// Answers that others overtake.
    Overtaken,
    /// A server that goes back in time, as its operator says.
    Restored,
    /// A server that goes back in time, as nobody says.
    Lost,
    /// What the endpoint asks to wait, with clocks and processes that do not last as long.
    Waits,
    /// Two processes and a lock that does not hold.
    Stolen,
    /// Something that refuses one payload.
    Walls,
    /// Two users, and keys of the app's own.
    Keys,
    /// A copied file.
    Copies,
    /// Conflicts that wait for the user, and forms that stay open for long.
    Manual,
    /// Processes that die while an answer is stored.
    Deaths,
    /// Disks that fail, processes that die of it, and power that is lost then.
    Disks,
    /// Devices that come back when what they know of is gone.
    Purged,
    /// Answers that no honest endpoint gives.
    Hostile,
}

/// As often as they are drawn.
pub(super) const FOCUSES: [Option<Focus>; 22] = [
    None,
    None,
    None,
    None,
    None,
    None,
    None,
    None,
    Some(Focus::Overtaken),
    Some(Focus::Overtaken),
    Some(Focus::Restored),
    Some(Focus::Lost),
    Some(Focus::Waits),
    Some(Focus::Stolen),
    Some(Focus::Walls),
    Some(Focus::Keys),
    Some(Focus::Copies),
    Some(Focus::Manual),
    Some(Focus::Deaths),
    Some(Focus::Disks),
    Some(Focus::Purged),
    Some(Focus::Hostile),
];

impl Draw {
    /// The next step of the course of events, or one that belongs to what the world is about; or none: anything may happen.
    pub(super) fn of_focus(&mut self, setting: &Setting) -> Option<Step> {
        let focus = self.focus?;
        if self.one_in(8, 1) {
            return None;
        }
        if let Some(step) = self.course.pop_front() {
            return Some(step);
        }
        if self.one_in(3, 1) {
            let course = self.course(focus);
            self.course.extend(course);
            return self.course.pop_front();
        }
        if self.one_in(2, 1) { Some(self.single(focus, setting)) } else { None }
    }

    /// A write to what all devices write to, of a world's first entity.
    fn meeting(&mut self, device: u8) -> Step {
        let intent = Intent { entity: 0, kind: self.of(&[Kind::Create, Kind::Update]), ..self.intent() };
        Step::Write { device, intent, depends: false }
    }

    /// What happens in a row.
    fn course(&mut self, focus: Focus) -> Vec<Step> {
        let (a, b) = (self.below(24), self.below(24));
        let (write, later) = (self.meeting(a), self.meeting(a));
        let others = self.meeting(b);
        let process = |device| Step::Process { device };
        let next = |fault| Step::Next { device: a, fault };
        let release = |newest| Step::Release { device: a, newest };
        let second = a | 128;
        match focus {
            // What was said at first is heard last.
            Focus::Overtaken if self.one_in(2, 1) => vec![
                process(a),
                Step::Idle,
                write,
                next(Mishap::HeldAnswer),
                process(a),
                Step::Idle,
                others,
                process(b),
                Step::Idle,
                process(a),
                Step::Idle,
                release(false),
                Step::Idle,
            ],
            Focus::Overtaken => {
                let elsewhere = Step::Write { device: a, intent: self.intent(), depends: false };
                let (first, then) = (next(Mishap::HeldAnswer), next(Mishap::HeldAnswer));
                vec![
                    write,
                    first,
                    process(a),
                    Step::Idle,
                    elsewhere,
                    then,
                    process(a),
                    Step::Idle,
                    release(true),
                    Step::Idle,
                    release(false),
                    Step::Idle,
                ]
            }
            Focus::Restored | Focus::Lost => {
                let mut course = vec![Step::Snapshot, write, process(a), Step::Idle, process(b), Step::Idle];
                if focus == Focus::Restored {
                    course.extend([later, next(Mishap::HeldAnswer), process(a), Step::Idle]);
                }
                course.push(Step::Restore { told: focus == Focus::Restored });
                course.extend([process(b), Step::Idle, process(a), Step::Idle]);
                if focus == Focus::Restored {
                    course.extend([release(false), Step::Idle]);
                }
                course
            }
            // The endpoint asks to wait …
            Focus::Waits if self.one_in(3, 2) => {
                let wait = next(self.of(&[Mishap::TooMany, Mishap::Unavailable]));
                let trouble = match self.below(3) {
                    0 => self.set_back(a),
                    1 => Step::Kill { device: a, after: 0 },
                    _ => Step::Pass { seconds: 2 },
                };
                vec![write, wait, process(a), Step::Idle, trouble, later, process(a), Step::Idle, process(a)]
            }
            // … or fails on an operation, which waits by itself.
            Focus::Waits => {
                let wall = Step::Poison { device: a, wall: self.of(&[Wall::Endpoint, Wall::Firewall]) };
                let poison = Intent { value: 9, field: 0, ..self.intent() };
                let poisoned = Step::Write { device: a, intent: poison, depends: false };
                vec![wall, poisoned, process(a), Step::Idle, self.set_back(a), process(a), Step::Idle]
            }
            Focus::Stolen => vec![
                Step::Second { device: a, on: true },
                write,
                next(Mishap::HeldAnswer),
                process(a),
                Step::Idle,
                Step::Steal { device: a },
                Step::Next { device: second, fault: Mishap::HeldAnswer },
                process(second),
                Step::Idle,
                release(false),
                Step::Idle,
            ],
            Focus::Walls => {
                let poison = Intent { value: 9, field: 0, ..self.intent() };
                let wall = Step::Poison { device: a, wall: self.of(&[Wall::Endpoint, Wall::Firewall]) };
                let form = (TYPES.len() - 1) as u8;
                let poisoned = match self.below(3) {
                    0 => Step::Write { device: a, intent: poison, depends: false },
                    1 => Step::Group { device: a, members: vec![poison, self.intent()], now: false },
                    // One of them is tried once, the other more often.
                    _ => {
                        let member = Intent { entity_type: form, ..self.intent() };
                        Step::Group { device: a, members: vec![poison, member], now: false }
                    }
                };
                let wait = || [process(a), Step::Idle, Step::Pass { seconds: 20 }];
                let mut course = vec![wall, poisoned, write];
                (0..4).for_each(|_| course.extend(wait()));
                course
            }
            // One key: for another entity, another payload, or by another user.
            Focus::Keys => {
                let (key, first) = (self.below(2), self.intent());
                let second = match self.one_in(2, 1) {
                    true => Intent { entity: first.entity ^ 1, ..first },
                    false => Intent { value: first.value ^ 1, ..first },
                };
                let keyed = |device, intent| Step::Keyed { device, intent, key };
                let mut course =
                    vec![keyed(a, first), process(a), Step::Idle, keyed(b, second), process(b), Step::Idle];
                course.push(Step::Switch { device: a });
                for device in (0..3).map(|_| self.below(24)) {
                    course.extend([keyed(device, first), process(device), Step::Idle]);
                }
                course
            }
            Focus::Copies => vec![
                write,
                next(Mishap::LostAfter),
                process(a),
                Step::Idle,
                Step::Copy { device: a },
                later,
                process(a),
                Step::Idle,
            ],
            Focus::Deaths => {
                let death = Step::Kill { device: a, after: self.below(14) };
                vec![others, process(b), Step::Idle, write, death, process(a), Step::Idle]
            }
            // What a failed flush has left in the log is not built upon.
            Focus::Disks => {
                let call = self.of(&DISK_CALLS);
                let (after, power) = (self.below(4), self.below(3));
                let mut course = match self.below(4) {
                    0 => vec![Step::DiskFails { device: a, call, after }, write, Step::Kill { device: a, after: 0 }],
                    1 => vec![Step::ServerDiskFails { call, after }, write, process(a), Step::Idle],
                    2 => vec![Step::Close { device: a, after: self.below(12), power: true }, write],
                    _ => vec![Step::Update { device: a, after: self.below(30) }, write],
                };
                if matches!(course[0], Step::ServerDiskFails { .. }) {
                    course.extend([Step::ServerDies { after: 0, power: power == 0 }, others, process(b), Step::Idle]);
                    course.push(Step::ServerDies { after: 0, power: true });
                } else {
                    course.extend([later, others, Step::PowerLoss { device: a, after: power }]);
                }
                course.extend([process(a), Step::Idle]);
                course
            }
            // A deletion that is under way yet is forgotten by the endpoint before its device has heard of it.
            Focus::Purged => {
                let Step::Write { intent, .. } = write else { return Vec::new() };
                let gone = Step::Write { device: a, intent: Intent { kind: Kind::Delete, ..intent }, depends: false };
                let days = self.of(&[100, 200]);
                vec![
                    others,
                    process(b),
                    Step::Idle,
                    process(a),
                    Step::Idle,
                    gone,
                    next(Mishap::HeldAnswer),
                    process(a),
                    Step::Idle,
                    Step::Sleep { days },
                    Step::Maintain,
                    process(a),
                    Step::Some { steps: 1 + self.below(12) },
                    release(false),
                    Step::Idle,
                ]
            }
            Focus::Hostile => {
                let answer = next(Mishap::Hostile(self.of(&Hostile::ALL)));
                vec![write, later, others, process(b), answer, process(a), Step::Idle]
            }
            // A form is open while what others wrote arrives.
            Focus::Manual => {
                let member = Intent { entity: 0, kind: Kind::Update, ..self.intent() };
                let form = Step::SlowGroup { device: a, members: vec![member, self.intent()], pause: 39 };
                vec![
                    write,
                    process(a),
                    Step::Idle,
                    others,
                    process(b),
                    Step::Idle,
                    process(a),
                    form,
                    process(a),
                    Step::Idle,
                ]
            }
        }
    }

    fn set_back(&mut self, device: u8) -> Step {
        Step::Jump { device, seconds: self.of(&[-3 * 365 * 86_400, -90_000]) }
    }

    /// One step.
    fn single(&mut self, focus: Focus, setting: &Setting) -> Step {
        let device = self.device();
        let write = Step::Write { device, intent: self.intent(), depends: false };
        match (focus, self.below(6)) {
            (_, 0) => Step::Process { device },
            (_, 1) => write,
            (_, 2) => Step::Idle,
            (Focus::Overtaken, 3) => Step::Release { device, newest: self.one_in(2, 1) },
            (Focus::Overtaken, 4) => Step::Next { device, fault: Mishap::HeldAnswer },
            (Focus::Restored | Focus::Lost, 3) => Step::Snapshot,
            (Focus::Restored | Focus::Lost, 4) => {
                Step::Restore { told: focus == Focus::Restored || !setting.untold_restores || self.one_in(3, 1) }
            }
            (Focus::Waits, 3) => Step::Background { device, on: self.one_in(4, 3) },
            (Focus::Waits, 4) => Step::Kill { device, after: self.countdown() },
            (Focus::Stolen, 3) => Step::Second { device, on: self.one_in(4, 3) },
            (Focus::Stolen, 4) => Step::Steal { device },
            (Focus::Walls, 3 | 4) => Step::Act { device, action: Action::Retry, which: self.below(255) },
            (Focus::Keys, 3 | 4) => Step::Keyed { device, intent: self.intent(), key: self.below(2) },
            (Focus::Disks, 3) => Step::DiskFails { device, call: self.of(&DISK_CALLS), after: self.countdown() },
            (Focus::Disks, 4) => Step::PowerLoss { device, after: self.countdown() },
            (Focus::Purged, 3) => Step::Sleep { days: 200 },
            (Focus::Purged, 4) => Step::Maintain,
            (Focus::Copies, 3) => Step::Copy { device },
            (Focus::Manual, 3 | 4) => {
                let action = self.of(&[Action::TakeLocal, Action::Merged, Action::TakeRemote, Action::Retry]);
                Step::Act { device, action, which: self.below(255) }
            }
            (Focus::Manual, _) => Step::Group { device, members: vec![self.intent(), self.intent()], now: false },
            _ => Step::Pass { seconds: self.of(&[1, 5, 20]) },
        }
    }
}
