//! The devices of a stream, and what happens in a step.

use std::collections::BTreeSet;

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use syncline_core::transport::Route;

use super::TYPES;
use super::answers::{Broken, Endpoints};
use super::file::{File, Operation};
use super::requests::{self, Head};
use super::values::{payload, pick};
use crate::contract::{Ability, DirectWrite};

/// Names whose order by code points is not that of a dictionary.
const DEVICES: &[(&str, &str)] = &[("phone", "ada"), ("Tablet", "ada"), ("Éclair", "bob"), ("zebra", "bob")];
/// Operations that the end repeats, to see their verdicts.
const REPEATED: usize = 8;
const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;

pub(super) struct World<'h> {
    pub(super) endpoints: Endpoints<'h>,
    files: Vec<File>,
    pub(super) pushes: usize,
    pub(super) operations: usize,
    pub(super) devices: BTreeSet<String>,
    renamed: usize,
}

impl<'h> World<'h> {
    pub(super) fn new(endpoints: Endpoints<'h>) -> Self {
        let files = DEVICES.iter().map(|(device, user)| File::new(device, user)).collect();
        Self { endpoints, files, pushes: 0, operations: 0, devices: BTreeSet::new(), renamed: 0 }
    }

    /// Every device but the last pulls once: that one may push before it knows an epoch.
    pub(super) fn open(&mut self) -> Result<(), Broken> {
        (0..self.files.len() - 1).try_for_each(|at| self.pull(at, None, None, 1000))
    }

    pub(super) fn step(&mut self, random: &mut StdRng) -> Result<(), Broken> {
        let millis = random.random_range(0..40_000);
        self.endpoints.now = self.endpoints.now.plus_millis(millis);
        if self.endpoints.can(Ability::Tables) && random.random_range(0..4) == 0 {
            return self.write_directly(random);
        }
        let at = random.random_range(0..self.files.len());
        match random.random_range(0..100) {
            0..62 => self.push(at, random),
            62..90 => self.pull_somehow(at, random),
            90..94 => {
                // Somebody restores a backup of a device.
                let copy = self.files[at].clone();
                self.files.push(copy);
                if self.files.len() > 7 {
                    self.files.remove(0);
                }
                Ok(())
            }
            94..97 if self.endpoints.can(Ability::Maintain) => {
                let days = random.random_range(1..200);
                self.endpoints.now = self.endpoints.now.plus_millis(days * DAY_MILLIS);
                self.endpoints.maintain()
            }
            97..98 if self.endpoints.can(Ability::RenewEpochs) => self.endpoints.renew_epochs(),
            _ => self.malformed(at, random),
        }
    }

    /// Somebody else writes tables, and a device sees it.
    fn write_directly(&mut self, random: &mut StdRng) -> Result<(), Broken> {
        let write = |random: &mut StdRng| DirectWrite {
            scope: self.endpoints.scope.clone(),
            entity_type: (*pick(random, TYPES)).to_owned(),
            entity_id: (*pick(random, requests::IDS)).to_owned(),
            row: (random.random_range(0..4) > 0).then(|| payload(random, u32::MAX)),
        };
        let writes: Vec<_> = (0..random.random_range(1..5)).map(|_| write(random)).collect();
        // What pushes deleted is noted as well, and found to be known; were it still waiting, it would stand before these.
        self.send_pull(&File::new("desk", "ada"), None, &None, 1)?;
        self.endpoints.write_directly(&writes)?;
        self.send_pull(&File::new("desk", "ada"), None, &None, 1000)?;
        self.endpoints.tables()
    }

    /// Everything that can be asked for, from outside and by a new device: the state, the verdicts, the ledger.
    pub(super) fn close(&mut self) -> Result<(), Broken> {
        let mut reader = File::new("reader", "ada");
        let mut cursor = None;
        loop {
            let (status, page) = self.send_pull(&reader, cursor, &None, 1000)?;
            cursor = page["cursor"].as_str().and_then(|text| text.trim_start_matches("$c").parse().ok());
            if status != 200 || page["has_more"] != true {
                break;
            }
        }
        reader.epoch = self.endpoints.epochs().checked_sub(1);
        let sent: Vec<Operation> = self.files.iter().flat_map(|file| file.sent.iter().cloned()).collect();
        let every = sent.len().div_ceil(REPEATED).max(1);
        for operation in sent.iter().step_by(every) {
            let operation = Operation { depends_on: Vec::new(), transaction: None, ..operation.clone() };
            // Under an id of its own: what was applied names its dot.
            self.send_push(&reader, &Head::dry(&reader), &[operation])?;
        }
        self.endpoints.ledgers()?;
        self.endpoints.tables()
    }

    fn push(&mut self, at: usize, random: &mut StdRng) -> Result<(), Broken> {
        let now = self.endpoints.now;
        let mut file = self.files[at].clone();
        let operations = requests::operations(&mut file, TYPES, now, random);
        let head = requests::head(&file, self.endpoints.epochs(), self.endpoints.cursors(), random);
        self.pushes += 1;
        self.operations += operations.len();
        self.devices.insert(file.device.clone());
        self.endpoints.share(&file.device);
        let (status, answer) = self.send_push(&file, &head, &operations)?;
        if random.random_range(0..12) == 0 {
            // The answer is lost: the sequences are used, and nothing is known.
            self.files[at].next = file.next;
            self.files[at].sent.extend(operations);
            return Ok(());
        }
        if !head.dry_run {
            file.sent.extend(
                operations.iter().filter(|it| !self.files[at].sent.iter().any(|sent| sent.key == it.key)).cloned(),
            );
        }
        self.settle(&mut file, &operations, status, &answer);
        self.files[at] = file;
        Ok(())
    }

    /// What a device learns.
    fn settle(&mut self, file: &mut File, operations: &[Operation], status: u16, answer: &Value) {
        let epoch = answer["epoch"].as_str().and_then(|text| text.trim_start_matches("$e").parse().ok());
        match (status, answer["code"].as_str()) {
            (200, _) => {
                file.mark = answer["mark"].as_u64().unwrap_or(0).max(file.mark);
                let is_told = |id: &str| answer["results"].as_array().into_iter().flatten().find(|it| it["id"] == id);
                for operation in operations {
                    match is_told(&operation.id) {
                        Some(result) => file.see(operation.lane.clone(), &result["clock"]),
                        None if answer["mark"].is_u64() => {
                            file.see(operation.lane.clone(), &json!({ &file.device: operation.sequence }));
                        }
                        None => {}
                    }
                }
                if let Some(cursor) = answer["cursor"].as_str().and_then(|it| it.trim_start_matches("$c").parse().ok())
                {
                    let filter = file.cursors.last().and_then(|(_, filter)| filter.clone());
                    file.cursors.push((cursor, filter));
                }
            }
            (_, Some("server_behind")) => {
                file.epoch = epoch;
                file.mark = answer["mark"].as_u64().unwrap_or(0);
            }
            (_, Some("device_forked")) => {
                self.renamed += 1;
                file.device = format!("{}-{}", file.device, self.renamed);
                file.mark = 0;
            }
            _ => {}
        }
    }

    fn pull_somehow(&mut self, at: usize, random: &mut StdRng) -> Result<(), Broken> {
        let file = &self.files[at];
        let (cursor, filter) = match file.cursors.last() {
            Some((cursor, filter)) if random.random_range(0..10) > 0 => (Some(*cursor), filter.clone()),
            _ => (None, None),
        };
        let filter = match random.random_range(0..12) {
            0 => Some(vec!["pin".to_owned(), "note".to_owned()]),
            1 => Some(vec!["manual".to_owned()]),
            2 => None,
            _ => filter,
        };
        let cursor = match random.random_range(0..20) {
            0 => Some(usize::MAX),
            1 => self.endpoints.cursors().checked_sub(1),
            _ => cursor,
        };
        self.pull(at, cursor, filter, *pick(random, &[1, 2, 3, 1000]))
    }

    fn pull(
        &mut self,
        at: usize,
        cursor: Option<usize>,
        filter: Option<Vec<String>>,
        limit: u64,
    ) -> Result<(), Broken> {
        let mut file = self.files[at].clone();
        let (status, answer) = self.send_pull(&file, cursor, &filter, limit)?;
        if status == 200 {
            file.epoch = answer["epoch"].as_str().and_then(|text| text.trim_start_matches("$e").parse().ok());
            let cursor = answer["cursor"].as_str().and_then(|text| text.trim_start_matches("$c").parse().ok());
            file.cursors.extend(cursor.map(|cursor| (cursor, filter)));
            for change in answer["changes"].as_array().into_iter().flatten() {
                let name = |member: &str| change[member].as_str().unwrap_or_default().to_owned();
                file.see((name("entity_type"), name("entity_id")), &change["clock"]);
            }
        } else {
            self.settle(&mut file, &[], status, &answer);
        }
        self.files[at] = file;
        Ok(())
    }

    /// A request with one fault.
    fn malformed(&mut self, at: usize, random: &mut StdRng) -> Result<(), Broken> {
        let file = self.files[at].clone();
        let mut copy = file.clone();
        let operations = requests::operations(&mut copy, TYPES, self.endpoints.now, random);
        let body = requests::push(&file, &Head::of(&file), &operations, self.endpoints.now, &self.endpoints.scope);
        let (body, user) = requests::spoil(&body, file.user, random);
        let claims = self.endpoints.claims(user);
        self.endpoints.share(&file.device);
        self.endpoints.ask(Route::Push, &body, &claims).map(drop)
    }

    fn send_push(&mut self, file: &File, head: &Head, operations: &[Operation]) -> Result<(u16, Value), Broken> {
        let body = requests::push(file, head, operations, self.endpoints.now, &self.endpoints.scope);
        let claims = self.endpoints.claims(file.user);
        self.endpoints.ask(Route::Push, &body, &claims)
    }

    fn send_pull(
        &mut self,
        file: &File,
        cursor: Option<usize>,
        filter: &Option<Vec<String>>,
        limit: u64,
    ) -> Result<(u16, Value), Broken> {
        let body = json!({
            "protocol": 1, "user_id": file.user, "scope": self.endpoints.scope, "device_id": file.device,
            "epoch": file.epoch.map(|number| format!("$e{number}")), "mark": file.mark,
            "cursor": cursor.map(|number| format!("$c{number}")), "entity_types": filter, "limit": limit,
        });
        let claims = self.endpoints.claims(file.user);
        self.endpoints.ask(Route::Pull, &body.to_string(), &claims)
    }
}
