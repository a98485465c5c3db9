//! A receiver against its model: any bytes, cut anywhere, with pauses.
#![no_main]

#[path = "../../crates/protocols/tests/common/model.rs"]
mod model;
mod plan;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|case: plan::Case| model::check_int_strings(&case.plan(), &case.input));
