//! One of the core's parsers, named by `FUZZ_TARGET`, under libFuzzer. A failure leaves the input behind and says how to try it again.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use postern_core::fuzz::{TARGETS, soup};

/// The one that was asked for.
static CHECK: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let asked = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == asked);
    found.unwrap_or_else(|| panic!("FUZZ_TARGET is {asked:?}, expected one of {:?}", TARGETS.map(|(name, _)| name))).1
});

fuzz_target!(|data: &[u8]| CHECK(data));

// Protocol words come together sooner than by chance.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut chance = fastrand::Rng::with_seed(seed.into());
    if chance.u8(0..4) > 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let words = soup(&mut chance);
    let at = chance.usize(..=size);
    let end = (at + words.len()).min(max_size);
    data[at..end].copy_from_slice(&words[..end - at]);
    end.max(if chance.bool() { size } else { 0 })
});
