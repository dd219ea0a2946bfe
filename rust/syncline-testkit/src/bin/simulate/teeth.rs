//! Planted bugs: each must be caught from several starting seeds, and made small.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use syncline_protocol::teeth::{Bug, plant};
use syncline_testkit::simulation::hunt::{first, shrink};
use syncline_testkit::simulation::plan::Plan;

use super::Arguments;

/// Between two starting seeds.
const APART: u64 = 1_000_000;
/// A plan that shows a bug has at most so many steps.
const MOST_STEPS: usize = 20;

/// One bug, from one starting seed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Task {
    bug: Bug,
    from: u64,
}

/// How a hunt went.
struct Hunted {
    task: Task,
    caught: Option<Caught>,
}

/// What noticed a bug.
struct Caught {
    seed: u64,
    steps: usize,
    /// What the oracle said of the smallest plan.
    what: String,
}

impl Hunted {
    fn is_caught_small(&self) -> bool {
        self.caught.as_ref().is_some_and(|caught| caught.steps <= MOST_STEPS)
    }

    fn line(&self) -> String {
        let name = self.task.bug.name();
        match &self.caught {
            Some(Caught { seed, steps, what }) => {
                let large = if *steps > MOST_STEPS { ", TOO LARGE" } else { "" };
                format!(
                    "{name:<28} from {:>7}: seed {seed:>7}, {steps:>2} steps{large}  {}",
                    self.task.from,
                    short(what)
                )
            }
            None => format!("{name:<28} from {:>7}: NOT CAUGHT", self.task.from),
        }
    }

    fn json(&self, length: usize) -> Value {
        let Task { bug, from } = self.task;
        let caught = self.caught.as_ref();
        json!({ "bug": bug.name(), "source": bug.source(), "breaks": bug.breaks(), "from": from,
            "seed": caught.map(|caught| caught.seed), "steps": caught.map(|caught| caught.steps),
            "what": caught.map(|caught| &caught.what), "plan": caught.map(|caught| drawn(caught.seed, length)) })
    }

    /// What [`Hunted::json`] wrote, if the seed still draws what it drew then.
    fn read(line: &str, length: usize) -> Option<Self> {
        let told: Value = serde_json::from_str(line).ok()?;
        let task = Task { bug: Bug::parse(told["bug"].as_str()?)?, from: told["from"].as_u64()? };
        let (seed, what) = (told["seed"].as_u64()?, told["what"].as_str()?.to_owned());
        let steps = usize::try_from(told["steps"].as_u64()?).ok()?;
        (told["plan"] == drawn(seed, length)).then_some(Self { task, caught: Some(Caught { seed, steps, what }) })
    }
}

/// Tells plans apart.
fn drawn(seed: u64, length: usize) -> String {
    let mut hasher = DefaultHasher::new();
    Plan::draw(seed, length).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The hunts that a run before this one has written to the file. One whose plan stayed too large is made again.
fn resumed(arguments: &Arguments) -> Vec<Hunted> {
    let text = arguments.resume.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    text.lines().filter_map(|line| Hunted::read(line, arguments.length)).collect()
}

/// Hunts for every bug named, or all: as many side by side as there are threads, each on one.
pub(crate) fn run(names: &[String], arguments: &Arguments, threads: usize) -> ExitCode {
    let mut bugs = Vec::new();
    for name in names {
        match Bug::parse(name) {
            Some(bug) => bugs.push(bug),
            None => {
                eprintln!("there is no planted bug by the name of {name}");
                return ExitCode::from(2);
            }
        }
    }
    if bugs.is_empty() {
        // The others show only where threads meet.
        bugs.extend(Bug::ALL.iter().filter(|bug| !bug.needs_threads()));
    }
    let mut tasks: VecDeque<Task> = (0..arguments.starts)
        .flat_map(|start| bugs.iter().map(move |bug| (start, *bug)))
        .map(|(start, bug)| Task { bug, from: arguments.seeds.start + start * APART })
        .collect();
    let wanted = tasks.len();
    let mut hunted = resumed(arguments);
    hunted.retain(|hunted| tasks.contains(&hunted.task) && hunted.is_caught_small());
    hunted.sort_by_key(|hunted| hunted.task);
    hunted.dedup_by_key(|hunted| hunted.task);
    tasks.retain(|task| hunted.iter().all(|hunted| hunted.task != *task));
    hunted.extend(hunt(tasks, arguments, threads));
    hunted.sort_by_key(|hunted| hunted.task);
    report(&bugs, &hunted, wanted, arguments);
    let shown = hunted.iter().filter(|hunted| hunted.is_caught_small()).count();
    if let Some(path) = &arguments.table
        && let Err(error) = write_table(path, &bugs, &hunted, arguments)
    {
        eprintln!("the table cannot be written: {error}");
        return ExitCode::from(2);
    }
    if shown == wanted { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn hunt(tasks: VecDeque<Task>, arguments: &Arguments, threads: usize) -> Vec<Hunted> {
    let begun = Instant::now();
    let over = || arguments.minutes.is_some_and(|minutes| begun.elapsed().as_secs_f64() > minutes * 60.0);
    let bar = ProgressBar::new(tasks.len() as u64);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} hunts, {elapsed}");
    bar.set_style(style.expect("the template is valid"));
    let (tasks, hunted) = (Mutex::new(tasks), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(task) = tasks.lock().expect("nobody panics with it").pop_front() {
                    let caught = catch(task, arguments, over);
                    if caught.is_none() && over() {
                        break;
                    }
                    let line = Hunted { task, caught };
                    if !arguments.json {
                        bar.suspend(|| println!("{}", line.line()));
                    }
                    bar.inc(1);
                    if let Err(error) = note(&line, arguments) {
                        bar.suspend(|| eprintln!("the hunt cannot be noted: {error}"));
                    }
                    hunted.lock().expect("nobody panics with it").push(line);
                }
            });
        }
    });
    bar.finish_and_clear();
    hunted.into_inner().expect("all threads have ended")
}

/// For a run that goes on later.
fn note(hunted: &Hunted, arguments: &Arguments) -> std::io::Result<()> {
    let Some(path) = &arguments.resume else { return Ok(()) };
    let mut file = File::options().append(true).create(true).open(path)?;
    file.write_all(format!("{}\n", hunted.json(arguments.length)).as_bytes())
}

fn catch(task: Task, arguments: &Arguments, over: impl Fn() -> bool) -> Option<Caught> {
    let seeds = task.from..task.from + (arguments.seeds.end - arguments.seeds.start);
    plant(Some(task.bug));
    let found = first(seeds, arguments.length, over);
    let caught = found.map(|found| {
        let (plan, violation) = shrink(&found, arguments.length, Duration::from_secs(arguments.patience));
        let what = violation.what.split_whitespace().collect::<Vec<_>>().join(" ");
        if arguments.plans {
            println!("{}\n{:?}\n{}", what, plan.setting, plan.lines());
        }
        Caught { seed: found.seed, steps: plan.steps.len(), what }
    });
    plant(None);
    caught
}

fn report(bugs: &[Bug], hunted: &[Hunted], wanted: usize, arguments: &Arguments) {
    let caught = || hunted.iter().filter_map(|hunted| Some((hunted.task, hunted.caught.as_ref()?)));
    let needed = caught().map(|(task, caught)| caught.seed - task.from + 1).max().unwrap_or(0);
    let longest = caught().map(|(_, caught)| caught.steps).max().unwrap_or(0);
    let shown = hunted.iter().filter(|hunted| hunted.is_caught_small()).count();
    if arguments.json {
        let rows: Vec<Value> = hunted.iter().map(|hunted| hunted.json(arguments.length)).collect();
        let summary = json!({ "bugs": bugs.len(), "starts": arguments.starts, "hunts": wanted, "caught": caught().count(),
            "shown": shown, "most_seeds": needed, "most_steps": longest, "rows": rows });
        println!("{summary}");
        return;
    }
    println!();
    for line in hunted.iter().map(Hunted::line) {
        println!("{line}");
    }
    println!(
        "\n{} bugs, {} starting seeds each: {shown} of {wanted} hunts show the bug in {MOST_STEPS} steps or fewer, {} do not, \
         {} were not made; at most {needed} seeds were needed and {longest} steps",
        bugs.len(),
        arguments.starts,
        hunted.len() - shown,
        wanted - hunted.len()
    );
}

/// The table as a page of the documentation.
fn write_table(path: &Path, bugs: &[Bug], hunted: &[Hunted], arguments: &Arguments) -> std::io::Result<()> {
    let mut page = String::from(PREFACE);
    let starts: Vec<u64> = (0..arguments.starts).map(|start| arguments.seeds.start + start * APART).collect();
    let _ = write!(page, "\n| Bug | Rule | What it breaks |");
    for from in &starts {
        let _ = write!(page, " From {from} |");
    }
    let _ = writeln!(page, " What the oracle says |\n|---|---|---|{}---|", "---|".repeat(starts.len()));
    for bug in bugs {
        let _ = write!(page, "| `{}` | {} | {} |", bug.name(), bug.source(), bug.breaks());
        let of_bug = || hunted.iter().filter(|hunted| hunted.task.bug == *bug);
        for from in &starts {
            let _ = match of_bug().find(|hunted| hunted.task.from == *from).map(|hunted| hunted.caught.as_ref()) {
                Some(Some(caught)) => write!(page, " {}, {} steps |", caught.seed, caught.steps),
                Some(None) => write!(page, " not caught |"),
                None => write!(page, " not hunted |"),
            };
        }
        let said =
            of_bug().find_map(|hunted| hunted.caught.as_ref()).map_or_else(String::new, |caught| short(&caught.what));
        let _ = writeln!(page, " {} |", said.replace('|', "\\|"));
    }
    std::fs::write(path, page)
}

const PREFACE: &str = "\
# Planted bugs

Generated by `make simulate-teeth ARGS=\"--table docs/teeth.md\"`. A simulator that finds nothing proves nothing, unless it is known
to find what is there. So each of these bugs is planted in the core or the endpoint (one build, chosen at run time; see
[ADR 18](adr/0018-planted-bugs.md)), and the simulator must notice it by its oracle within 5,000 seeds, from each of the starting
seeds, and make the plan that shows it small: 20 steps at the most.

A cell says which seed noticed the bug, and in how many steps its smallest plan shows it. To see a line again:
`make simulate-teeth BUGS=forget-epoch ARGS=\"--starts 1 --seeds 3 --plans\"` hunts for a bug at one seed alone. What a seed draws
changes when the simulator learns something new; the table is made anew then.
";

/// Up to the length of a line.
fn short(text: &str) -> String {
    const MOST: usize = 150;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{} …", text[..at].trim_end()),
        None => text.to_owned(),
    }
}
