//! Requests of the standard scheme from any bytes.
#![no_main]

mod request;

use hookturn_verify::Scheme;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| request::verify(Scheme::Standard, data));
