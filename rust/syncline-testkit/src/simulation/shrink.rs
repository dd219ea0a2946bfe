//! Making a failing plan small: whole parts are left out first, then single steps, then what the steps that remain do, and at last
//! what the world is like.

use super::plan::{Intent, Plan, Setting, Step};

impl Plan {
    /// The smallest plan found that still fails, for as long as `fails` says yes. Tries at most `tries` plans.
    #[must_use]
    pub fn shrink(&self, tries: usize, fails: impl FnMut(&Self) -> bool) -> Self {
        let mut search = Search { best: self.clone(), tries, fails };
        search.leave_out(search.best.steps.len().div_ceil(2));
        loop {
            let simpler = search.simplify_steps() | search.simplify_setting();
            // A simpler world may need fewer steps.
            if !simpler || !search.leave_out(1) {
                return search.best;
            }
        }
    }
}

/// A plan with so many steps is small: smaller ones that fail only by other chances are not looked for.
const SMALL: usize = 20;
/// What a life draws by itself changes with every step that is left out; of a large plan several lives are tried.
const LIVES: u64 = 4;

struct Search<F> {
    best: Plan,
    tries: usize,
    fails: F,
}

impl<F: FnMut(&Plan) -> bool> Search<F> {
    /// Takes `plan` if it fails as well.
    fn take(&mut self, plan: Plan) -> bool {
        let lives = if self.best.steps.len() > SMALL { LIVES } else { 1 };
        for life in 0..lives {
            if self.tries == 0 {
                return false;
            }
            self.tries -= 1;
            let plan = Plan { seed: plan.seed.wrapping_add(life), ..plan.clone() };
            if (self.fails)(&plan) {
                self.best = plan;
                return true;
            }
        }
        false
    }

    /// Leaves out parts, ever smaller ones, until no single step can go. From the end: what comes last is needed least.
    fn leave_out(&mut self, mut part: usize) -> bool {
        let before = self.best.steps.len();
        while part > 0 {
            let mut end = self.best.steps.len();
            let mut shrunk = false;
            while end > 0 && self.tries > 0 {
                let start = end.saturating_sub(part);
                let mut smaller = self.best.clone();
                smaller.steps.drain(start..end);
                shrunk |= self.take(smaller);
                end = start;
            }
            part = if self.tries == 0 {
                0
            } else if shrunk && part == 1 {
                1
            } else {
                part / 2
            };
        }
        self.best.steps.len() < before
    }

    fn simplify_steps(&mut self) -> bool {
        let mut simpler = false;
        for at in 0..self.best.steps.len() {
            while let Some(step) = simpler_steps(&self.best.steps[at]).into_iter().find(|step| {
                let mut plan = self.best.clone();
                plan.steps[at] = step.clone();
                self.take(plan)
            }) {
                debug_assert_eq!(self.best.steps[at], step);
                simpler = true;
            }
        }
        simpler
    }

    fn simplify_setting(&mut self) -> bool {
        let mut simpler = false;
        for simplify in SIMPLER_SETTINGS {
            let mut plan = self.best.clone();
            simplify(&mut plan.setting);
            simpler |= plan != self.best && self.take(plan);
        }
        simpler
    }
}

/// What `step` might do less of, the boldest first.
fn simpler_steps(step: &Step) -> Vec<Step> {
    let halved = |intents: &[Intent]| -> Vec<Vec<Intent>> {
        let (first, second) = intents.split_at(intents.len() / 2);
        [first, second].into_iter().filter(|half| !half.is_empty()).map(<[Intent]>::to_vec).collect()
    };
    let write = |device, intent| Step::Write { device, intent, depends: false };
    match step {
        Step::Write { device, intent, depends: true } => vec![write(*device, *intent)],
        Step::Import { device, intents } => match intents.as_slice() {
            [one] => vec![write(*device, *one)],
            all => halved(all).into_iter().map(|intents| Step::Import { device: *device, intents }).collect(),
        },
        Step::SlowGroup { device, members, .. } => {
            vec![Step::Group { device: *device, members: members.clone(), now: false }]
        }
        Step::Group { device, members, now: true } => {
            vec![Step::Group { device: *device, members: members.clone(), now: false }]
        }
        Step::Group { device, members, now: false } if members.len() > 1 => {
            halved(members).into_iter().map(|members| Step::Group { device: *device, members, now: false }).collect()
        }
        Step::Some { .. } => vec![Step::Idle],
        Step::Kill { device, after } if *after > 0 => vec![Step::Kill { device: *device, after: 0 }],
        Step::PowerLoss { device, after } => vec![Step::Kill { device: *device, after: *after }],
        Step::Pass { seconds } if *seconds > 1 => vec![Step::Idle, Step::Pass { seconds: seconds / 2 }],
        _ => Vec::new(),
    }
}

/// Each takes one thing out of the ordinary away.
const SIMPLER_SETTINGS: [fn(&mut Setting); 9] = [
    |setting| setting.devices = 2,
    |setting| setting.devices = setting.devices.saturating_sub(1).max(2),
    |setting| setting.forgetful = false,
    |setting| setting.send_before = false,
    |setting| setting.filtered = false,
    |setting| setting.small_batches = false,
    |setting| setting.hasty_forms = false,
    |setting| setting.short_pages = false,
    |setting| setting.coalesce = true,
];

#[cfg(test)]
mod tests {
    use super::super::plan::Kind;
    use super::*;

    #[test]
    fn what_is_not_needed_goes() {
        let plan = Plan::draw(7, 120);
        let writes = |plan: &Plan| plan.steps.iter().filter(|step| matches!(step, Step::Write { .. })).count();
        assert!(writes(&plan) >= 2);
        let small = plan.shrink(10_000, |plan| writes(plan) >= 2);
        assert_eq!(small.steps.len(), 2);
        assert!(small.steps.iter().all(|step| matches!(step, Step::Write { depends: false, .. })));
        assert_eq!((small.setting.devices, small.setting.forgetful), (2, false));
    }

    #[test]
    fn an_import_that_must_hold_one_write_becomes_it() {
        let intent = |entity| Intent { kind: Kind::Create, entity_type: 0, entity, field: 0, value: 1 };
        let mut plan = Plan::draw(7, 0);
        plan.steps = vec![Step::Import { device: 0, intents: (0..9).map(intent).collect() }];
        let needs_seven = |plan: &Plan| format!("{:?}", plan.steps).contains("entity: 7");
        let small = plan.shrink(1_000, needs_seven);
        assert_eq!(small.steps, [Step::Write { device: 0, intent: intent(7), depends: false }]);
    }

    #[test]
    fn tries_are_bounded() {
        let mut tried = 0;
        let plan = Plan::draw(7, 120);
        let _ = plan.shrink(5, |_| {
            tried += 1;
            false
        });
        assert_eq!(tried, 5);
    }
}
