//! A figure, what was hoped for it, and how both are shown.

/// One figure and what was hoped for it.
pub(crate) struct Figure {
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
    pub goal: Goal,
    pub detail: String,
}

pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Figure {
    pub(crate) fn met(&self) -> bool {
        match self.goal {
            Goal::AtMost(limit) => self.value <= limit,
            Goal::AtLeast(limit) => self.value >= limit,
        }
    }

    pub(crate) fn goal_text(&self) -> String {
        match self.goal {
            Goal::AtMost(limit) => format!("<= {limit} {}", self.unit),
            Goal::AtLeast(limit) => format!(">= {limit} {}", self.unit),
        }
    }
}

pub(crate) fn print_table(figures: &[Figure]) {
    println!();
    println!("{:<46} {:>10} {:>14}  {:<6} measured", "", "figure", "goal", "");
    for figure in figures {
        let met = if figure.met() { "met" } else { "MISSED" };
        let value = format!("{:.3} {}", figure.value, figure.unit);
        println!("{:<46} {value:>10} {:>14}  {met:<6} {}", figure.name, figure.goal_text(), figure.detail);
    }
}

pub(crate) fn print_json(figures: &[Figure]) {
    let rows: Vec<_> = figures
        .iter()
        .map(|figure| {
            serde_json::json!({ "name": figure.name, "value": figure.value, "unit": figure.unit, "goal": figure.goal_text(),
                "met": figure.met(), "detail": figure.detail })
        })
        .collect();
    println!("{}", serde_json::Value::from(rows));
}
