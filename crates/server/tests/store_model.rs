//! The model engine of simulations: what the conformance suite asks of every engine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hookturn::store::conformance::Engine;
use hookturn::store::live::Live;
use hookturn::store::model::{Backups, Disk, ModelStore};
use hookturn_core::store::{HintSink, Store};

/// Plain maps, one disk for each store, with a directory for the paths of backups.
#[derive(Default)]
struct Model(Backups);

struct Place {
    disk: Disk,
    directory: tempfile::TempDir,
}

impl Place {
    fn of(disk: Disk) -> Self {
        Self {
            disk,
            directory: tempfile::tempdir().unwrap(),
        }
    }
}

impl Engine for Model {
    type Place = Place;

    async fn fresh(&self) -> Place {
        Place::of(Disk::default())
    }

    async fn open(
        &self,
        place: &Place,
        live: Arc<Live>,
        hints: Arc<dyn HintSink>,
    ) -> Arc<dyn Store> {
        let store = ModelStore::open(place.disk.clone(), live, hints, self.0.clone());
        Arc::new(store)
    }

    async fn crash(&self, place: &Place) -> Place {
        Place::of(place.disk.copy())
    }

    fn backup_path(&self, place: &Place) -> PathBuf {
        place.directory.path().join("backup")
    }

    async fn restore(&self, backup: &Path) -> Place {
        Place::of(self.0.restore(backup).expect("a backup"))
    }

    /// Maps cannot be damaged.
    async fn check(&self, _: &Place) {}

    /// A disk offers no way to write but through a store.
    async fn rewrite_audit(&self, _: &Place) -> bool {
        false
    }
}

hookturn::store_conformance!(Model::default());
