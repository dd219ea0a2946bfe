//! A device's file with something of everything in it, and ways to damage it.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::Value;
use syncline_core::NewOperation;
use syncline_testkit::{Fault, TestDevice, World};

use crate::device;

/// A device to open damaged files with. It hears from no endpoint.
pub struct Bench {
    /// Where time passes.
    pub world: World,
    /// The device.
    pub device: TestDevice,
    good: Vec<u8>,
    cells: Vec<(String, String)>,
}

impl Bench {
    /// Lives through a day, and keeps the file.
    pub fn new() -> Self {
        let (world, mut device, ids) = device::waiting();
        let rejected = format!(
            r#"{{"applied":0,"results":[{{"id":"{}","status":"rejected","error":{{"code":"invalid_value","message":"no"}}}}],"version":1,"epoch":"{}","server_time":"2026-05-01T12:00:00.000Z"}}"#,
            ids[1],
            device.sql::<String>("SELECT epoch FROM device"),
        );
        device.network.next_push(Fault::ours(200, &rejected));
        world.sync(&device);
        let first = device.enqueue(NewOperation::create("pin", "p9", r#"{"x":{"y":[null,1.5]}}"#)).expect("good");
        device.enqueue(NewOperation::update("pin", "p9", r#"{"x":null}"#).after(&first)).expect("good");
        device.network.cut();
        device.close();
        device.kill();
        let good = fs::read(device.path()).expect("the file can be read");
        let cells = cells(&Connection::open(device.path()).expect("the file opens"));
        Self { world, device, good, cells }
    }

    /// Puts a damaged file where the device's was. The first byte says how: `F` the rest is the file; `C` values in their cells
    /// are replaced; anything else: bytes anywhere.
    pub fn damage(&mut self, data: &[u8]) {
        self.device.kill();
        let path = self.device.path().to_owned();
        let folder = path.parent().expect("a file is in a folder");
        // Beside it may be a WAL, and what was set aside.
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        for entry in fs::read_dir(folder).expect("the folder can be read").flatten() {
            if entry.file_name().to_string_lossy().starts_with(&name) {
                fs::remove_file(entry.path()).expect("our own file");
            }
        }
        let Some((kind, data)) = data.split_first() else { return };
        match kind {
            b'F' => write(&path, data),
            b'C' => {
                write(&path, &self.good);
                self.replace_cells(&path, data);
            }
            _ => write(&path, &self.patched(data)),
        }
    }

    /// Patches of offset (3 bytes), length, and bytes.
    fn patched(&self, mut data: &[u8]) -> Vec<u8> {
        let mut bytes = self.good.clone();
        while let Some(([a, b, c, length], rest)) = data.split_first_chunk() {
            let (patch, rest) = rest.split_at(usize::from(*length).min(rest.len()));
            let offset = u32::from_be_bytes([0, *a, *b, *c]) as usize % bytes.len();
            let length = patch.len().min(bytes.len() - offset);
            bytes[offset..offset + length].copy_from_slice(&patch[..length]);
            data = rest;
        }
        bytes
    }

    /// Replacements of cell, row (255: all), kind of value, length, and the value. What the schema
    /// refuses is left as it is: a `CHECK` is a part of the defence, and the byte patches go past it.
    fn replace_cells(&self, path: &Path, mut data: &[u8]) {
        let file = Connection::open(path).expect("the good file opens");
        file.execute_batch("PRAGMA foreign_keys = 0; PRAGMA synchronous = 0; BEGIN").expect("a setting");
        while let Some(([cell, row, kind, length], rest)) = data.split_first_chunk() {
            let (text, rest) = rest.split_at(usize::from(*length).min(rest.len()));
            data = rest;
            let (table, column) = &self.cells[usize::from(*cell) % self.cells.len()];
            let mut number = [0; 8];
            number.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
            let value = match kind % 5 {
                0 => Value::Null,
                1 => Value::Integer(i64::from_le_bytes(number)),
                2 => Value::Blob(text.to_vec()),
                _ => Value::Text(String::from_utf8_lossy(text).into_owned()),
            };
            let only = if *row == u8::MAX {
                String::new()
            } else {
                format!("WHERE rowid = (SELECT rowid FROM {table} LIMIT 1 OFFSET {row})")
            };
            let _ = file.execute(&format!("UPDATE {table} SET {column} = ?1 {only}"), [value]);
        }
        file.execute_batch("COMMIT").expect("the good file can be written");
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("the file can be written");
}

/// Every column of every table.
fn cells(file: &Connection) -> Vec<(String, String)> {
    let sql = "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table' ORDER BY t.name, c.cid";
    let mut statement = file.prepare(sql).expect("the schema can be read");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("the schema can be read");
    rows.map(|row| row.expect("a name")).collect()
}
