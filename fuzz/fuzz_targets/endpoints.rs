//! Endpoints as text: any text is understood or refused with a reason that has the text in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tulipa_protocols::{ClientEndpoint, ServerEndpoint};

fuzz_target!(|text: &str| {
    if let Err(error) = text.parse::<ServerEndpoint>() {
        assert!(!error.why.is_empty() && error.text == text);
    }
    if let Err(error) = text.parse::<ClientEndpoint>() {
        assert!(!error.why.is_empty() && error.text == text);
    }
});
