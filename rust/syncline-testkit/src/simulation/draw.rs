//! Plans from seeds.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::focus::{FOCUSES, Focus};
use super::life::TYPES;
use super::plan::{Action, DiskCall, Hostile, Intent, Kind, Leave, Mishap, Plan, Setting, Step, Wall, Wallet};

/// What a plan writes at least: some of it cannot be done when its turn comes, and a life counts with 100 operations.
const WRITES_IN_EIGHT_STEPS: usize = 7;

pub(super) const DISK_CALLS: [DiskCall; 2] = [DiskCall::Write, DiskCall::Sync];

/// Which kinds of trouble a world has.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    network: bool,
    hostile: bool,
    walls: bool,
    deaths: bool,
    disks: bool,
    copies: bool,
    restores: bool,
    clocks: bool,
    credentials: bool,
    processes: bool,
    users: bool,
    server: bool,
}

impl Plan {
    /// The plan of a seed, of about `length` steps.
    pub fn draw(seed: u64, length: usize) -> Self {
        let mut draw = Draw::new(seed);
        let focus = draw.focus;
        let is = |one: Focus| focus == Some(one);
        let alone = is(Focus::Lost) || is(Focus::Stolen) || is(Focus::Keys);
        let copies = is(Focus::Copies) || (!alone && draw.one_in(4, 1));
        let by_network = [Focus::Overtaken, Focus::Restored, Focus::Waits, Focus::Stolen, Focus::Copies, Focus::Purged]
            .map(is)
            .contains(&true);
        let trouble = Trouble {
            network: !is(Focus::Lost) && (by_network || draw.one_in(16, 15)),
            hostile: is(Focus::Hostile) || (!is(Focus::Lost) && draw.one_in(4, 1)),
            walls: is(Focus::Walls) || draw.one_in(4, 1),
            deaths: is(Focus::Waits) || is(Focus::Deaths) || is(Focus::Disks) || draw.one_in(2, 1),
            disks: is(Focus::Disks) || draw.one_in(4, 1),
            copies,
            restores: is(Focus::Restored) || is(Focus::Lost) || draw.one_in(4, 1),
            clocks: is(Focus::Waits) || draw.one_in(3, 1),
            credentials: draw.one_in(4, 1),
            processes: is(Focus::Stolen) || (!copies && draw.one_in(5, 1)),
            users: is(Focus::Keys) || (!copies && draw.one_in(5, 1)),
            server: is(Focus::Disks) || is(Focus::Purged) || draw.one_in(4, 1),
        };
        let setting = Setting {
            devices: 2 + draw.below(3),
            // A copy that sends what the other has forgotten needs both.
            forgetful: draw.one_in(4, 1) || copies && draw.one_in(2, 1),
            coalesce: draw.one_in(5, 4),
            send_before: draw.one_in(2, 1),
            filtered: draw.one_in(8, 1),
            small_batches: draw.one_in(6, 1),
            hasty_forms: is(Focus::Walls),
            // A reset of many pages is under way for long.
            short_pages: is(Focus::Purged) || draw.one_in(5, 1) || trouble.restores && draw.one_in(2, 1),
            restores: trouble.restores,
            untold_restores: !trouble.network && !trouble.hostile && !copies && trouble.restores,
        };
        draw.narrow();
        let mut steps = draw.beginning();
        let mut written: usize = steps.iter().map(Step::writes).sum();
        for at in 0..length {
            // A world with little to lose would not count.
            let behind = written * 8 < at * WRITES_IN_EIGHT_STEPS && draw.course.is_empty();
            let step = if behind { draw.import() } else { draw.step(trouble, &setting) };
            written += step.writes();
            steps.push(step);
        }
        Self { seed, setting, steps }
    }
}

pub(super) struct Draw {
    random: StdRng,
    pub(super) focus: Option<Focus>,
    /// What is still to come of a course of events.
    pub(super) course: VecDeque<Step>,
    /// The entity types written to.
    types: Vec<u8>,
    /// Of each.
    entities: u8,
}

impl Draw {
    fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let mut draw = Self { random, focus: None, course: VecDeque::new(), types: Vec::new(), entities: 3 };
        draw.focus = draw.of(&FOCUSES);
        draw
    }

    pub(super) fn below(&mut self, end: u8) -> u8 {
        self.random.random_range(0..end)
    }

    pub(super) fn one_in(&mut self, all: u8, good: u8) -> bool {
        self.below(all) < good
    }

    pub(super) fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.random.random_range(0..values.len())]
    }

    /// In some worlds all write about the same few entities.
    fn narrow(&mut self) {
        let mut all: Vec<u8> = (0..TYPES.len() as u8).collect();
        let manual = TYPES.iter().position(|name| *name == "manual").unwrap_or(0) as u8;
        // Conflicts that wait for the user are more often than others.
        all.push(manual);
        let few = if self.focus == Some(Focus::Manual) { 2 } else { 4 };
        if self.one_in(few, 1) {
            self.entities = 1 + self.below(2);
            self.types = vec![self.of(&all)];
        } else {
            self.types = all;
        }
        if self.focus == Some(Focus::Manual) {
            self.types = vec![manual];
        }
    }

    /// Above 127: the file's second process, where there is one.
    pub(super) fn device(&mut self) -> u8 {
        self.below(24) + if self.one_in(3, 1) { 128 } else { 0 }
    }

    /// Most worlds begin with something that all devices have seen: updates and deletes then meet more than nothing.
    fn beginning(&mut self) -> Vec<Step> {
        if self.one_in(4, 1) {
            return Vec::new();
        }
        let intents = (0..12).map(|_| Intent { kind: Kind::Create, ..self.intent() }).collect();
        let mut steps = vec![Step::Import { device: 0, intents }, Step::Process { device: 0 }, Step::Idle];
        steps.extend((1..4).map(|device| Step::Process { device }));
        steps.push(Step::Idle);
        steps
    }

    fn step(&mut self, trouble: Trouble, setting: &Setting) -> Step {
        if let Some(step) = self.of_focus(setting) {
            return step;
        }
        loop {
            let device = self.device();
            let step = match self.random.random_range(0..200_u16) {
                0..44 => Step::Write { device, intent: self.intent(), depends: self.one_in(5, 1) },
                44..46 => Step::Keyed { device, intent: self.intent(), key: self.below(4) },
                46..50 => self.import(),
                50..58 => Step::Group { device, members: self.intents(4), now: self.one_in(4, 1) },
                58..61 => Step::SlowGroup { device, members: self.intents(3), pause: self.below(40) },
                61..80 => Step::Act { device, action: self.action(), which: self.below(255) },
                80..86 if trouble.network => Step::Next { device, fault: Mishap::HeldAnswer },
                86..104 if trouble.network => Step::Next { device, fault: self.of(&Mishap::ALL) },
                104..107 if trouble.hostile => Step::Next { device, fault: Mishap::Hostile(self.of(&Hostile::ALL)) },
                107..114 if trouble.network => Step::Release { device, newest: self.one_in(3, 1) },
                114..117 if trouble.network => Step::Stray { which: self.random.random_range(0..1000) },
                117..118 if trouble.walls => Step::Poison { device, wall: self.of(&[Wall::Endpoint, Wall::Firewall]) },
                118..130 => Step::Process { device },
                130..132 => Step::Window { device, seconds: self.of(&[1, 5, 25]) },
                132..138 => Step::Background { device, on: self.one_in(3, 2) },
                138..141 => Step::Online { device, on: self.one_in(2, 1) },
                141..143 if trouble.credentials => {
                    let wallet = self.of(&[
                        Wallet::Stale,
                        Wallet::Expired,
                        Wallet::Broken,
                        Wallet::Moved,
                        Wallet::Good,
                        Wallet::Stale,
                    ]);
                    Step::Credential { device, wallet }
                }
                143..153 => Step::Some { steps: 1 + self.below(12) },
                153..163 => Step::Idle,
                163..171 => Step::Pass { seconds: self.of(&[1, 2, 5, 20, 31, 70, 200, 1200]) },
                171..173 if trouble.server => Step::Sleep { days: self.of(&[1, 40, 100, 200]) },
                173..178 if trouble.deaths => Step::Kill { device, after: self.countdown() },
                178..181 if trouble.deaths => Step::PowerLoss { device, after: self.countdown() },
                181..183 if trouble.disks => {
                    Step::DiskFails { device, call: self.of(&DISK_CALLS), after: self.countdown() }
                }
                183..184 if trouble.disks => Step::DiskFull { device, on: self.one_in(2, 1) },
                184..186 if trouble.processes => Step::Second { device, on: self.one_in(3, 2) },
                186..187 if trouble.processes && self.one_in(2, 1) => Step::Steal { device },
                186..187 if trouble.deaths && self.one_in(2, 1) => {
                    Step::Close { device, after: self.countdown(), power: self.one_in(2, 1) }
                }
                186..187 if trouble.deaths => Step::Update { device, after: self.countdown() },
                187..188 if trouble.users => Step::Switch { device },
                188..189 if trouble.users => {
                    Step::SignOut { device, mode: self.of(&[Leave::Flush, Leave::Keep, Leave::Discard]) }
                }
                189..190 if trouble.copies => Step::Copy { device },
                190..192 if trouble.clocks => Step::Jump { device, seconds: self.jump() },
                192..193 if trouble.clocks => Step::Drift { device, permille: self.of(&[-50, -1, 0, 1, 50]) },
                193..195 if trouble.server && !trouble.disks => {
                    Step::ServerDies { after: self.countdown(), power: self.one_in(3, 1) }
                }
                193..195 if trouble.server => match self.below(5) {
                    0 => Step::ServerDiskFull { on: self.one_in(3, 2) },
                    1 | 2 => Step::ServerDiskFails { call: self.of(&DISK_CALLS), after: self.countdown() },
                    _ => Step::ServerDies { after: self.countdown(), power: self.one_in(2, 1) },
                },
                195..196 if trouble.server => Step::Maintain,
                196..198 if trouble.restores => Step::Snapshot,
                198..200 if trouble.restores => Step::Restore { told: !setting.untold_restores || self.one_in(2, 1) },
                _ => continue,
            };
            return step;
        }
    }

    fn import(&mut self) -> Step {
        Step::Import { device: self.device(), intents: self.intents(12) }
    }

    pub(super) fn countdown(&mut self) -> u8 {
        if self.one_in(3, 1) { 0 } else { self.below(40) }
    }

    /// By seconds, hours, or years.
    pub(super) fn jump(&mut self) -> i64 {
        const YEAR: i64 = 365 * 86_400;
        self.of(&[-3 * YEAR, -90_000, -3600, -5, 5, 3600, 90_000, 3 * YEAR])
    }

    fn intents(&mut self, most: u8) -> Vec<Intent> {
        let count = 1 + self.below(most);
        (0..count).map(|_| self.intent()).collect()
    }

    pub(super) fn intent(&mut self) -> Intent {
        Intent {
            kind: self.of(&[Kind::Create, Kind::Create, Kind::Update, Kind::Update, Kind::Update, Kind::Delete]),
            entity_type: self.one_of_types(),
            entity: self.below(self.entities),
            field: self.below(3),
            value: self.below(10),
        }
    }

    fn one_of_types(&mut self) -> u8 {
        self.types[self.random.random_range(0..self.types.len())]
    }

    pub(super) fn action(&mut self) -> Action {
        use Action::{Cancel, Discard, Merged, Reopen, Retry, TakeLocal, TakeRemote};
        self.of(&[Cancel, Cancel, Cancel, Retry, Retry, Discard, TakeLocal, TakeLocal, TakeRemote, Merged, Reopen])
    }
}
