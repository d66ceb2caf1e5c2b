//! How far the other nodes said that they follow, for the [fence](crate::store::sharing::fence).

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_postgres::Row;
use uuid::Uuid;

use super::node::SILENT;
use super::reader::Readers;
use super::rows::{collect, column};
use crate::store::sharing::fence::Said;

/// What the other nodes last said that they follow, and when they were asked: fences that are closed at once ask
/// once.
#[derive(Debug, Default)]
pub(super) struct LastSaid(Mutex<Option<(Instant, Arc<[Said]>)>>);

impl LastSaid {
    /// What the other nodes follow, as they said at `moment` or later; nothing if they cannot be asked.
    pub(super) async fn since(
        &self,
        readers: &Readers,
        me: Uuid,
        moment: Instant,
    ) -> Option<Arc<[Said]>> {
        let mut last = self.0.lock().await;
        if let Some((asked, views)) = &*last
            && *asked >= moment
        {
            return Some(Arc::clone(views));
        }
        let asked = Instant::now();
        let views = readers.read(move |session| async move {
            let sql = format!(
                "SELECT view, {SILENT} FROM node WHERE id <> $1 AND view IS NOT NULL
                   AND left_at IS NULL AND taken_over_at IS NULL"
            );
            let read = |row: &Row| {
                Ok(Said {
                    view: column(row, 0)?,
                    silent: column::<i64>(row, 1)?.max(0).cast_unsigned(),
                })
            };
            collect(&session, "close the fence", &sql, &[&me], read).await
        });
        let views: Arc<[Said]> = views.await.ok()?.into();
        *last = Some((asked, Arc::clone(&views)));
        Some(views)
    }
}
