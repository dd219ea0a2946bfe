//! A damaged database file, at open and after: whatever is called says how it went, and panics never.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use syncline_core::{ListQuery, NewOperation, OperationFilter};
use syncline_fuzz::database::Bench;
use syncline_fuzz::planted;

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(Bench::new());
}

fuzz_target!(|data: &[u8]| {
    BENCH.with_borrow_mut(|bench| {
        bench.damage(data);
        if bench.device.open().is_ok() {
            use_it(bench);
        }
        bench.device.kill();
    });
});

/// Asks for everything there is. Each answer may be an error.
fn use_it(bench: &Bench) {
    let device = &bench.device;
    let _ = device.metrics();
    for operation in device.operations(&OperationFilter::default()).unwrap_or_default() {
        planted(
            [&operation.reason, &operation.field, &operation.transaction_id].contains(&&Some("visits12".to_owned())),
        );
        let _ = device.explain(&operation.id);
        let _ = device.get(&operation.entity_type, &operation.entity_id);
    }
    let _ = device.list(&ListQuery::new("pin"));
    let _ = device.changes_since(0, 100);
    let _ = device.conflicts(false, 100);
    let _ = device.enqueue(NewOperation::update("pin", "known", r#"{"title":"x"}"#));
    let _ = device.enqueue(NewOperation::create("pin", "brand-new", "{}"));
    let manager = device.manager();
    let _ = bench.world.run(async move { manager.process_queue().await });
    let _ = device.metrics();
}
