//! Situations in which an answer comes late.

use syncline_core::transport::Route;

use super::note;
use crate::network::OnTheWay;
use crate::oracle::observe::DeviceState;
use crate::simulation::coverage::Coverage;

/// What waits on the way to the device is about to go on: the last of it (`newest`), or the first.
pub(in crate::simulation) fn released(held: &[OnTheWay], newest: bool, state: &DeviceState, coverage: &Coverage) {
    let is_awaited = |it: &&OnTheWay| it.is_awaited && it.answer.is_some();
    let chosen = if newest { held.last() } else { held.first() };
    let Some(chosen) = chosen.filter(is_awaited) else { return };
    let epoch = chosen.request["epoch"].as_str();
    if epoch.is_some() && epoch != state.device.epoch.as_deref() {
        note(coverage, 17);
    }
    if chosen.route == Route::Push {
        let has_cursor = chosen.answer.as_ref().is_some_and(|answer| answer["cursor"].is_string());
        if has_cursor && state.device.reset {
            note(coverage, 30);
        }
        let earlier = held.iter().filter(|it| it.route == Route::Push).filter(is_awaited).count();
        if newest && earlier > 1 {
            note(coverage, 27);
        }
    }
}
