//! What a person sees while the day goes on; nothing unless standard error is a terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::control::Status;

/// One line for the chapter, one bar per device.
pub(crate) struct Progress {
    all: MultiProgress,
    chapter: ProgressBar,
    devices: Vec<ProgressBar>,
}

impl Progress {
    pub(crate) fn new(visible: bool) -> Self {
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let all = MultiProgress::with_draw_target(target);
        let chapter = all.add(ProgressBar::new_spinner());
        chapter.enable_steady_tick(std::time::Duration::from_millis(120));
        Self { all, chapter, devices: Vec::new() }
    }

    pub(crate) fn add_device(&mut self, name: &str) {
        let bar = self.all.add(ProgressBar::new(0));
        let template = "  {prefix:9} {bar:32} {human_pos:>7} of {human_len:7} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        self.devices.push(bar);
    }

    pub(crate) fn chapter(&self, text: &str) {
        log::info!("{text}");
        self.chapter.set_message(text.to_owned());
    }

    pub(crate) fn device(&self, index: usize, status: &Status) {
        let bar = &self.devices[index];
        bar.set_length(status.enqueued);
        bar.set_position(status.enqueued - status.waiting());
        bar.set_message(match &status.reason {
            Some(reason) => format!("{} ({reason})", status.state),
            None => status.state.clone(),
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.devices.iter().for_each(ProgressBar::finish_and_clear);
        self.chapter.finish_and_clear();
    }
}
