//! Endpoints as they would be made, and how much traffic each has.

use hookturn_core::id::EndpointId;
use hookturn_core::shard::Shard;

use crate::map::Map;

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for place in (1..list.len()).rev() {
            let other = self.next() % (place as u64 + 1);
            list.swap(place, usize::try_from(other).unwrap());
        }
    }
}

/// How the traffic of endpoints compares.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Traffic {
    /// All have the same.
    Even,
    /// The n-th has one n-th of the first: few have most of it.
    Skewed,
}

impl Traffic {
    /// What the endpoint at a place has, from 1.
    fn of(self, place: u32) -> f64 {
        match self {
            Self::Even => 1.0,
            Self::Skewed => 1.0 / f64::from(place),
        }
    }
}

/// The traffic of each shard, of endpoints with ids that time and chance make.
pub(crate) fn loads(shards: usize, endpoints: u32, traffic: Traffic, seed: u64) -> Vec<f64> {
    let mut random = Random::new(seed);
    let mut loads = vec![0.0; shards];
    for place in 1..=endpoints {
        let time = 0x0199_0000_0000_7000_u64 + (u64::from(place) << 22);
        let id = (u128::from(time) << 64) | u128::from(random.next());
        let shard = Shard::place_of(EndpointId::from_bytes(id.to_be_bytes())) % shards as u64;
        loads[usize::try_from(shard).unwrap()] += traffic.of(place);
    }
    loads
}

/// The traffic of the busiest node, as a multiple of what each would have if all had the same.
pub(crate) fn busiest(map: &Map, loads: &[f64]) -> f64 {
    let nodes = map.held().len();
    let mut of_node = vec![0.0; nodes];
    for (shard, load) in loads.iter().enumerate() {
        of_node[map.rank_of(shard)] += load;
    }
    let most = of_node.iter().copied().fold(0.0, f64::max);
    let mean = loads.iter().sum::<f64>() / f64::from(u32::try_from(nodes).unwrap());
    most / mean
}
