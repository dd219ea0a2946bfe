//! Both sides of one shape, measured, and how that is shown.

use std::time::Duration;

use crate::load::Shape;

/// What one side did.
#[derive(Clone, Copy, Default)]
pub(crate) struct Done {
    pub operations: usize,
    pub took: Duration,
    /// Written ahead, or to files.
    pub bytes: u64,
}

impl Done {
    pub(crate) fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.took += other.took;
        self.bytes += other.bytes;
    }

    pub(crate) fn rate(&self) -> f64 {
        self.operations as f64 / self.took.as_secs_f64()
    }

    fn bytes_each(&self) -> f64 {
        self.bytes as f64 / self.operations as f64
    }
}

/// One line of the table.
pub(crate) struct Line {
    pub shape: Shape,
    pub ours: Done,
    pub plain: Done,
}

impl Line {
    /// Our speed as a part of the plain program's.
    pub(crate) fn ratio(&self) -> f64 {
        self.ours.rate() / self.plain.rate()
    }

    pub(crate) fn words(&self) -> String {
        let Shape { batch, clients, scopes } = self.shape;
        format!(
            "{:.0}/s / {:.0}/s, batches of {batch}, {clients} client(s), {scopes} scope(s)",
            self.ours.rate(),
            self.plain.rate()
        )
    }
}

pub(crate) fn heading(store: &str, bytes: &str) {
    println!("\n{store}: operations per second, and {bytes} per operation");
    println!(
        "{:>6} {:>8} {:>7} {:>10} {:>10} {:>7} {:>10} {:>10} {:>7}",
        "batch", "clients", "scopes", "ours", "plain", "ratio", "bytes", "plain", "ratio"
    );
}

pub(crate) fn line(line: &Line) {
    let Shape { batch, clients, scopes } = line.shape;
    let (ours, plain) = (line.ours.bytes_each(), line.plain.bytes_each());
    println!(
        "{batch:>6} {clients:>8} {scopes:>7} {:>10.0} {:>10.0} {:>7.2} {ours:>10.0} {plain:>10.0} {:>7.2}",
        line.ours.rate(),
        line.plain.rate(),
        line.ratio(),
        ours / plain,
    );
}

/// The line of a shape.
pub(crate) fn find(lines: &[Line], batch: usize, clients: usize, scopes: usize) -> &Line {
    let shape = Shape { batch, clients, scopes };
    lines.iter().find(|line| line.shape == shape).expect("every shape was measured")
}
