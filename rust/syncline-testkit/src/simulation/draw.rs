//! Plans from seeds.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::life::TYPES;
use super::plan::{Action, DiskCall, Hostile, Intent, Kind, Leave, Mishap, Plan, Setting, Step, Wall, Wallet};

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
        let mut draw = Draw(StdRng::seed_from_u64(seed));
        let copies = draw.one_in(4, 1);
        let trouble = Trouble {
            network: draw.one_in(8, 7),
            hostile: draw.one_in(4, 1),
            walls: draw.one_in(4, 1),
            deaths: draw.one_in(2, 1),
            disks: draw.one_in(4, 1),
            copies,
            restores: draw.one_in(4, 1),
            clocks: draw.one_in(3, 1),
            credentials: draw.one_in(4, 1),
            processes: !copies && draw.one_in(5, 1),
            users: !copies && draw.one_in(5, 1),
            server: draw.one_in(4, 1),
        };
        let setting = Setting {
            devices: 2 + draw.below(3),
            // A copy that sends what the other has forgotten needs both.
            forgetful: draw.one_in(4, 1) || copies && draw.one_in(2, 1),
            coalesce: draw.one_in(5, 4),
            send_before: draw.one_in(2, 1),
            filtered: draw.one_in(8, 1),
            small_batches: draw.one_in(6, 1),
            // A reset of many pages is under way for long.
            short_pages: draw.one_in(5, 1) || trouble.restores && draw.one_in(2, 1),
            restores: trouble.restores,
            untold_restores: !trouble.network && !trouble.hostile && !copies && trouble.restores,
        };
        let mut steps = draw.beginning();
        steps.extend((0..length).map(|_| draw.step(trouble, &setting)));
        Self { seed, setting, steps }
    }
}

struct Draw(StdRng);

impl Draw {
    fn below(&mut self, end: u8) -> u8 {
        self.0.random_range(0..end)
    }

    fn one_in(&mut self, all: u8, good: u8) -> bool {
        self.below(all) < good
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.0.random_range(0..values.len())]
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
        loop {
            // Above 127: the file's second process, where there is one.
            let device = self.below(24) + if self.one_in(3, 1) { 128 } else { 0 };
            let step = match self.0.random_range(0..200_u16) {
                0..44 => Step::Write { device, intent: self.intent(), depends: self.one_in(5, 1) },
                44..46 => Step::Keyed { device, intent: self.intent(), key: self.below(4) },
                46..50 => Step::Import { device, intents: self.intents(12) },
                50..58 => Step::Group { device, members: self.intents(4), now: self.one_in(4, 1) },
                58..61 => Step::SlowGroup { device, members: self.intents(3), pause: self.below(9) },
                61..80 => Step::Act { device, action: self.action(), which: self.below(255) },
                80..86 if trouble.network => Step::Next { device, fault: Mishap::HeldAnswer },
                86..104 if trouble.network => Step::Next { device, fault: self.of(&Mishap::ALL) },
                104..107 if trouble.hostile => Step::Next { device, fault: Mishap::Hostile(self.of(&Hostile::ALL)) },
                107..114 if trouble.network => Step::Release { device, newest: self.one_in(3, 1) },
                114..117 if trouble.network => Step::Stray { which: self.0.random_range(0..1000) },
                117..118 if trouble.walls => Step::Poison { device, wall: self.of(&[Wall::Endpoint, Wall::Firewall]) },
                118..130 => Step::Process { device },
                130..132 => Step::Window { device, seconds: self.of(&[1, 5, 25]) },
                132..138 => Step::Background { device, on: self.one_in(3, 2) },
                138..141 => Step::Online { device, on: self.one_in(2, 1) },
                141..143 if trouble.credentials => {
                    let wallet =
                        self.of(&[Wallet::Stale, Wallet::Stale, Wallet::Expired, Wallet::Broken, Wallet::Good]);
                    Step::Credential { device, wallet }
                }
                143..153 => Step::Some { steps: 1 + self.below(12) },
                153..163 => Step::Idle,
                163..171 => Step::Pass { seconds: self.of(&[1, 2, 5, 20, 31, 70, 200, 1200]) },
                171..173 if trouble.server => Step::Sleep { days: self.of(&[1, 40, 100, 200]) },
                173..178 if trouble.deaths => Step::Kill { device, after: self.countdown() },
                178..181 if trouble.deaths => Step::PowerLoss { device, after: self.countdown() },
                181..183 if trouble.disks => Step::DiskFails {
                    device,
                    call: self.of(&[DiskCall::Write, DiskCall::Sync]),
                    after: self.countdown(),
                },
                183..184 if trouble.disks => Step::DiskFull { device, on: self.one_in(2, 1) },
                184..186 if trouble.processes => Step::Second { device, on: self.one_in(3, 2) },
                186..187 if trouble.deaths => Step::Update { device, after: self.countdown() },
                187..188 if trouble.users => Step::Switch { device },
                188..189 if trouble.users => {
                    Step::SignOut { device, mode: self.of(&[Leave::Flush, Leave::Keep, Leave::Discard]) }
                }
                189..190 if trouble.copies => Step::Copy { device },
                190..192 if trouble.clocks => Step::Jump { device, seconds: self.jump() },
                192..193 if trouble.clocks => Step::Drift { device, permille: self.of(&[-50, -1, 0, 1, 50]) },
                193..195 if trouble.server => Step::ServerDies { after: self.countdown(), power: self.one_in(3, 1) },
                195..196 if trouble.server => Step::Maintain,
                196..198 if trouble.restores => Step::Snapshot,
                198..200 if trouble.restores => Step::Restore { told: !setting.untold_restores || self.one_in(2, 1) },
                _ => continue,
            };
            return step;
        }
    }

    fn countdown(&mut self) -> u8 {
        if self.one_in(3, 1) { 0 } else { self.below(40) }
    }

    /// By seconds, hours, or years.
    fn jump(&mut self) -> i64 {
        const YEAR: i64 = 365 * 86_400;
        self.of(&[-3 * YEAR, -90_000, -3600, -5, 5, 3600, 90_000, 3 * YEAR])
    }

    fn intents(&mut self, most: u8) -> Vec<Intent> {
        let count = 1 + self.below(most);
        (0..count).map(|_| self.intent()).collect()
    }

    fn intent(&mut self) -> Intent {
        Intent {
            kind: self.of(&[Kind::Create, Kind::Create, Kind::Update, Kind::Update, Kind::Update, Kind::Delete]),
            entity_type: self.entity_type(),
            entity: self.below(3),
            field: self.below(3),
            value: self.below(10),
        }
    }

    /// One of all; conflicts that wait for the user, more often than others.
    fn entity_type(&mut self) -> u8 {
        if self.one_in(6, 1) { 3 } else { self.below(TYPES.len() as u8) }
    }

    fn action(&mut self) -> Action {
        use Action::{Cancel, Discard, Merged, Reopen, Retry, TakeLocal, TakeRemote};
        self.of(&[Cancel, Cancel, Cancel, Retry, Retry, Discard, TakeLocal, TakeLocal, TakeRemote, Merged, Reopen])
    }
}
