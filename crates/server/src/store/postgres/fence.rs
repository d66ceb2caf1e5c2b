//! How far the other nodes said that they follow, for the [fence](crate::store::sharing::fence).

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_postgres::Row;
use uuid::Uuid;

use super::reader::Readers;
use super::rows::{collect, column};

/// What the other nodes last said that they follow, and when they were asked: fences that are closed at once ask
/// once.
#[derive(Debug, Default)]
pub(super) struct Said(Mutex<Option<(Instant, Arc<[i64]>)>>);

impl Said {
    /// What the other nodes follow, as they said at `moment` or later; nothing if they cannot be asked.
    pub(super) async fn since(
        &self,
        readers: &Readers,
        me: Uuid,
        moment: Instant,
    ) -> Option<Arc<[i64]>> {
        let mut last = self.0.lock().await;
        if let Some((asked, views)) = &*last
            && *asked >= moment
        {
            return Some(Arc::clone(views));
        }
        let asked = Instant::now();
        let views = readers.read(move |session| async move {
            let sql = "SELECT view FROM node WHERE id <> $1 AND view IS NOT NULL
                         AND left_at IS NULL AND taken_over_at IS NULL";
            let read = |row: &Row| column::<i64>(row, 0);
            collect(&session, "close the fence", sql, &[&me], read).await
        });
        let views: Arc<[i64]> = views.await.ok()?.into();
        *last = Some((asked, Arc::clone(&views)));
        Some(views)
    }
}
