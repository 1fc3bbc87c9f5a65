//! Marks of private content as rows of the database, where several servers share a blob store: what
//! one of them fetched with a tenant's credentials, or built, is private on all of them.

use std::io;
use std::sync::OnceLock;

use ashlar_core::{Digest, TenantId};
use ashlar_oci::pull::{Marks, Reader, Readership};
use ashlar_records::{Reader as RowReader, Readership as RowReadership, Store};
use tokio::runtime::Handle;

/// The marks. The engine is opened before the database is, and asks for nothing in between.
#[derive(Default)]
pub(crate) struct SharedMarks {
    database: OnceLock<(Store, Handle)>,
}

impl std::fmt::Debug for SharedMarks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedMarks").finish_non_exhaustive()
    }
}

impl SharedMarks {
    /// Uses a database, through its runtime.
    pub(crate) fn connect(&self, store: Store, runtime: Handle) {
        // Connected once.
        let _ = self.database.set((store, runtime));
    }

    fn database(&self) -> io::Result<&(Store, Handle)> {
        self.database.get().ok_or_else(|| io::Error::other("the database is not open yet"))
    }
}

impl Marks for SharedMarks {
    fn readership(&self, tenant: &str, digest: &Digest) -> io::Result<Readership> {
        let ((store, runtime), tenant) = (self.database()?, parse(tenant)?);
        let known = runtime.block_on(store.readership(tenant, *digest));
        Ok(match known.map_err(io::Error::other)? {
            RowReadership::Reader => Readership::Reader,
            RowReadership::Others => Readership::Others,
            RowReadership::Unknown => Readership::Unknown,
        })
    }

    fn add(&self, reader: Reader<'_>, digest: &Digest, if_marked: bool) -> io::Result<()> {
        let (store, runtime) = self.database()?;
        let reader = match reader {
            Reader::Tenant(tenant) => RowReader::Tenant(parse(tenant)?),
            Reader::Everybody => RowReader::Everybody,
            Reader::Nobody => RowReader::Nobody,
        };
        let added = runtime.block_on(store.add_reader(reader, *digest, if_marked));
        added.map_err(io::Error::other)
    }
}

fn parse(tenant: &str) -> io::Result<TenantId> {
    tenant.parse().map_err(|_| io::Error::other("a tenant has another id than it should"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_one_server_marks_all_know() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("records.db").display().to_string();
        let (one, two) = (Arc::new(SharedMarks::default()), Arc::new(SharedMarks::default()));
        let layer = Digest::of("layer");
        let [ours, theirs] = [1, 2].map(|n| TenantId::from_parts(1, [n; 10]).to_string());
        assert!(one.readership(&ours, &layer).is_err(), "nothing is known without the database");
        for marks in [&one, &two] {
            marks.connect(Store::open(&place).await.unwrap(), Handle::current());
        }
        let looked = tokio::task::spawn_blocking(move || {
            one.add(Reader::Nobody, &layer, false).unwrap();
            let before = two.readership(&ours, &layer).unwrap();
            one.add(Reader::Tenant(&ours), &layer, true).unwrap();
            let known = [&ours, &theirs].map(|tenant| two.readership(tenant, &layer).unwrap());
            two.add(Reader::Everybody, &layer, false).unwrap();
            (before, known, one.readership(&theirs, &layer).unwrap())
        });
        let (before, known, after) = looked.await.unwrap();
        assert_eq!(before, Readership::Others);
        assert_eq!(known, [Readership::Reader, Readership::Others]);
        assert_eq!(after, Readership::Reader);
    }
}
