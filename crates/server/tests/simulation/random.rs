//! The only source of chance: SplitMix64 from the scenario's seed, one stream for each part, so that
//! a part that draws more does not shift what another part draws.

use std::sync::atomic::{AtomicU64, Ordering};

use hookturn_core::id::Entropy;

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stream of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream of this name.
    pub(crate) fn new(seed: u64, stream: &str) -> Self {
        let start = stream.bytes().fold(mixed(seed ^ STEP), |state, byte| {
            mixed(state.wrapping_add(u64::from(byte)).wrapping_add(STEP))
        });
        Self(start)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mixed(self.0)
    }

    /// From 0 to `bound` - 1.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True so many times in a thousand.
    pub(crate) fn chance(&mut self, per_mille: u16) -> bool {
        self.below(1_000) < u64::from(per_mille)
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let index = usize::try_from(self.below(from.len() as u64)).unwrap_or(0);
        from[index]
    }
}

/// Ids, secrets, nonces and jitter of the server.
pub(crate) struct Seeded(AtomicU64);

impl Seeded {
    pub(crate) fn new(mut random: Random) -> Self {
        Self(AtomicU64::new(random.next()))
    }
}

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let z = self.0.fetch_add(STEP, Ordering::SeqCst).wrapping_add(STEP);
            chunk.copy_from_slice(&mixed(z).to_le_bytes()[..chunk.len()]);
        }
    }
}
