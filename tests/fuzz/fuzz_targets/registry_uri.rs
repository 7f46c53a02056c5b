//! Registry addresses as an operator writes them.
#![no_main]

use ams_registry::RegistryUri;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(uri) = text.parse::<RegistryUri>() {
        let shown = uri.to_string();
        uri.is_shared();
        assert!(!shown.is_empty());
    }
});
