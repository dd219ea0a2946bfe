//! How processes begin and end on a device.

use std::time::Duration;

use syncline_core::{SignOutMode, SynclineError};

use super::{Watched, listen};
use crate::oracle::Verdict;
use crate::simulation::life::failed;
use crate::simulation::plan::Leave;
use crate::world::World;

impl Watched {
    pub(super) fn dies_after(&mut self, after: u8, power: bool) {
        self.loses_power |= power;
        self.device.die_after(u64::from(after));
    }

    /// If the process has died, it is started again; on a phone without power, after that has come back.
    pub(in crate::simulation) fn revive(&mut self) -> Verdict {
        if self.signed_out || !self.device.is_dead() {
            return Ok(());
        }
        self.file = None;
        self.calls.clear();
        if std::mem::take(&mut self.loses_power) {
            if let Some(mut second) = self.second.take() {
                second.kill();
            }
            self.device.lose_power();
            self.transitions.note("fault", "power lost");
        } else {
            self.device.kill();
            self.transitions.note("fault", "a process died");
        }
        self.events.lock().clear();
        self.reopen()
    }

    /// A disk that fails may refuse; once it no longer does, the file opens.
    pub(super) fn reopen(&mut self) -> Verdict {
        for _ in 0..3 {
            let failures = self.device.disk_failures();
            match self.device.open() {
                Ok(()) => return self.opened(),
                Err(SynclineError::Storage { .. }) if self.device.disk_failures() > failures => {}
                Err(SynclineError::StorageFull) if self.device.is_full() => self.device.set_full(false),
                Err(error) => return Err(failed(error)),
            }
        }
        self.device.open().map_err(failed)?;
        self.opened()
    }

    pub(super) fn second_process(&mut self, world: &mut World, on: bool) -> Verdict {
        match (on, self.second.take()) {
            (true, None) if !self.device.is_dead() => {
                let second = world.try_process(&self.device, "second");
                if let Ok(second) = second {
                    listen(&second, &self.events)?;
                    self.transitions.note("fault", "two processes on one file");
                    (self.second, self.two_told) = (Some(second), true);
                }
            }
            (false, Some(mut second)) => second.kill(),
            (_, second) => self.second = second,
        }
        Ok(())
    }

    /// The next version of the app opens the file, and may die of it; if it has been there before, this one tries first.
    pub(super) fn update(&mut self, after: u8) -> Verdict {
        if let Some(mut second) = self.second.take() {
            second.kill();
        }
        self.file = None;
        self.calls.clear();
        self.device.kill();
        if std::mem::replace(&mut self.device.is_next_version, true) {
            self.put_back()?;
        }
        self.transitions.note("fault", "the app updated");
        self.start(after)
    }

    /// An app of this version does not touch a file of the next one. (Builds without planted bugs know of one version only.)
    pub(super) fn put_back(&mut self) -> Verdict {
        self.device.is_next_version = false;
        let failures = self.device.disk_failures();
        let opened = self.device.open();
        self.device.kill();
        self.device.is_next_version = true;
        match opened {
            Err(SynclineError::TooNew { .. }) => {
                self.transitions.note("fault", "the app put back");
                Ok(())
            }
            Err(SynclineError::Storage { .. }) if self.device.disk_failures() > failures => Ok(()),
            Err(SynclineError::StorageFull) if self.device.is_full() => Ok(()),
            Ok(()) if !cfg!(feature = "teeth") => Ok(()),
            Ok(()) => Err("versions: an app opened the file of a newer one".to_owned()),
            Err(error) => Err(failed(error)),
        }
    }

    /// The user closes the app, and opens it again.
    pub(super) fn close(&mut self, after: u8, power: bool) -> Verdict {
        if self.second.is_some() {
            return Ok(());
        }
        self.transitions.note("fault", "the app closed and opened again");
        self.file = None;
        self.calls.clear();
        self.device.close();
        self.loses_power |= power;
        self.start(after)
    }

    /// A process opens the file, and may die of it.
    pub(super) fn start(&mut self, after: u8) -> Verdict {
        self.events.lock().clear();
        self.device.dies_after_opening(u64::from(after));
        let failures = self.device.disk_failures();
        match self.device.open() {
            Ok(()) => return self.opened(),
            Err(_) if self.device.is_dead() || self.device.is_full() || self.device.disk_failures() > failures => {}
            Err(error) => return Err(failed(error)),
        }
        self.transitions.note("fault", "an opening interrupted");
        if self.device.is_dead() { self.revive() } else { self.reopen() }
    }

    pub(in crate::simulation) fn sign_out(&mut self, world: &World) -> Verdict {
        self.leave_with(world, SignOutMode::Keep)?;
        self.signed_out = true;
        Ok(())
    }

    /// Signs out, and in again.
    pub(super) fn leave(&mut self, world: &World, mode: Leave) -> Verdict {
        if self.second.is_some() {
            return Ok(());
        }
        self.transitions.note("fault", "a user signed out");
        let mode = match mode {
            Leave::Flush => SignOutMode::Flush(Duration::from_secs(10)),
            Leave::Keep => SignOutMode::Keep,
            Leave::Discard => {
                // What the app has begun to write is written by then.
                world.run_until_idle();
                self.read()?;
                let state = self.state.as_ref().expect("just read");
                let open: Vec<String> =
                    state.operations.values().filter(|row| row.is_unsettled()).map(|row| row.id.clone()).collect();
                open.iter().for_each(|id| self.journal.give_up(id));
                SignOutMode::Discard
            }
        };
        self.leave_with(world, mode)?;
        self.sign_in()
    }

    pub(super) fn leave_with(&mut self, world: &World, mode: SignOutMode) -> Verdict {
        let manager = self.device.manager();
        let left = world.start(async move { manager.sign_out(mode).await });
        world.run_until_idle();
        if left.take().is_none() {
            world.advance(Duration::from_secs(11));
        }
        self.calls.clear();
        self.touched = true;
        self.check_events(!world.steps.has_callbacks() && !self.device.is_dead())?;
        self.file = None;
        self.device.kill();
        Ok(())
    }

    pub(in crate::simulation) fn sign_in(&mut self) -> Verdict {
        self.signed_out = false;
        self.events.lock().clear();
        self.reopen()
    }
}
