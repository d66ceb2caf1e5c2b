//! One node and two nodes of the same database, in turns: what differs from one minute to the next differs for both.
//!
//! The messages are for many apps, so that each node has endpoints of its own, and the publisher's connections are
//! spread over the nodes: half of what a node accepts is sent by the other. The second node joins and leaves in
//! every turn; that takes time which is not measured.

use std::time::Duration;

use crate::fixture::{Bench, Fixture, Measured};
use crate::number::Error;
use crate::report::Row;
use crate::scenario::{ONE_NODE, Scenario, TWO_NODES};

/// Turns of each.
pub(crate) const TURNS: u32 = 4;
/// A turn is not shorter, and begins with a load that is not measured.
const SHORTEST: Duration = Duration::from_secs(1);
const WARM_UP: Duration = Duration::from_millis(500);

pub(crate) async fn run(bench: &Bench, scenario: &Scenario) -> Result<Vec<Row>, Error> {
    let mut fixture = Fixture::start(bench, scenario).await?;
    let (mut one, mut two) = (Turns::default(), Turns::default());
    fixture
        .measure(&fixture.closed(bench.effort.warm_up()))
        .await?;
    for _ in 0..TURNS {
        one.take(&mut fixture, bench.effort.time).await?;
        fixture.join().await?;
        two.take(&mut fixture, bench.effort.time).await?;
        fixture.part().await?;
    }
    let (mut one, first) = one.row(ONE_NODE)?;
    one.notes
        .push(format!("its books are closed with those of {TWO_NODES}"));
    let (two, _) = two.row(TWO_NODES)?;
    Ok(vec![one, fixture.finish(first, two)?])
}

/// What the turns of one side came to.
#[derive(Default)]
pub(crate) struct Turns {
    sum: Option<Measured>,
    rates: Vec<f64>,
}

impl Turns {
    /// One turn: a short load, and one of its share of `time`.
    pub(crate) async fn take(
        &mut self,
        fixture: &mut Fixture,
        time: Duration,
    ) -> Result<(), Error> {
        fixture.measure(&fixture.closed(WARM_UP)).await?;
        let plan = fixture.closed((time / TURNS).max(SHORTEST));
        let measured = fixture.measure(&plan).await?;
        self.rates.push(measured.deliveries_per_second());
        self.sum = Some(match self.sum.take() {
            Some(sum) => sum.and(&measured),
            None => measured,
        });
        Ok(())
    }

    /// All turns as one row, and when the first began.
    pub(crate) fn row(&self, name: &str) -> Result<(Row, u64), Error> {
        let sum = self.sum.as_ref().ok_or("nothing was measured")?;
        let rates: Vec<String> = self.rates.iter().map(|rate| format!("{rate:.0}")).collect();
        let mut row = sum.row(name);
        row.notes
            .push(format!("turns of {} deliveries/s", rates.join(", ")));
        Ok((row, sum.started))
    }
}
