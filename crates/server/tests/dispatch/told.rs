//! Rows that another node accepted, and told of: sent without being read, or read where they cannot be believed.

use std::sync::atomic::Ordering;

use hookturn_core::time::SECOND;

use crate::receiver::{Receiver, status};
use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn g2_what_another_node_tells_of_is_sent_once_without_a_read() {
    let mut rig = Rig::with_shards(2).await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(204)).await;
    rig.endpoint(receiver.url()).await;
    rig.overheard.as_told.store(true, Ordering::SeqCst);
    rig.publish_many((0..50).map(|n| format!("{{\"n\":{n}}}")))
        .await;
    rig.until_nothing_is_due().await;
    assert_eq!(rig.store().reads.load(Ordering::SeqCst), 0);
    assert_eq!(receiver.rest().len(), 50);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_what_is_told_late_is_read() {
    let mut rig = Rig::new().await;
    let mut receiver = Receiver::new(&rig.clock, |_| status(204)).await;
    rig.endpoint(receiver.url()).await;
    rig.overheard.as_told.store(true, Ordering::SeqCst);
    rig.overheard.holds.store(true, Ordering::SeqCst);
    rig.publish_many((0..5).map(|n| format!("{{\"n\":{n}}}")))
        .await;
    rig.advance(6 * SECOND);
    rig.overheard.release();
    rig.until_nothing_is_due().await;
    assert!(rig.store().reads.load(Ordering::SeqCst) > 0);
    assert_eq!(receiver.rest().len(), 5);
    rig.stop().await;
}
