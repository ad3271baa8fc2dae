//! Reads of a server-side store: any bytes under an id that a client presents.

use bytes::Bytes;
use hyper_session::__internals::Verbs;
use hyper_session::store::{Backend, EntryId, Replaced, Stored};
use hyper_session::testing::FakeClock;
use hyper_session::{Error, Refusal, ServerStore, Timestamp};

use crate::{NOW, run};

/// A backend that has one value under every id.
struct Same(Stored);

impl Backend for Same {
    async fn fetch(&self, _: EntryId, _: Timestamp) -> Result<Option<Stored>, Error> {
        Ok(Some(self.0.clone()))
    }

    async fn create(&self, _: EntryId, _: Stored, _: Timestamp) -> Result<bool, Error> {
        Ok(false)
    }

    async fn replace(
        &self,
        _: EntryId,
        expected: Bytes,
        _: Option<Stored>,
        _: Timestamp,
    ) -> Result<Replaced, Error> {
        Ok(if expected == self.0.value { Replaced::Done } else { Replaced::Conflict(self.0.clone()) })
    }

    async fn touch(&self, _: EntryId, _: Timestamp, _: Timestamp) -> Result<bool, Error> {
        Ok(true)
    }

    async fn delete(&self, _: EntryId) -> Result<(), Error> {
        Ok(())
    }
}

/// A stored value is refused, or a session that is not over by its own header or by the backend's deadline.
pub fn record_decode(data: &[u8]) {
    record_is_session(data);
}

/// The same. Returns true if the value is a session as long as its entry lives.
pub fn record_is_session(data: &[u8]) -> bool {
    let (value, mut is_session) = (Bytes::copy_from_slice(data), false);
    for expires in [NOW + 1_000, NOW + 1, NOW, 0] {
        let stored = Stored { value: value.clone(), expires: Timestamp::from_unix(expires) };
        let store =
            ServerStore::with_backend(Same(stored)).clock(FakeClock::at(NOW)).development().build().unwrap();
        let (now, token) = (Timestamp::from_unix(NOW), b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        let mut loaded = Err(Refusal::Encoding);
        let counted = allocation_counter::measure(|| loaded = run(store.load(token, now)).unwrap());
        let bound = 256 * data.len() as u64 + 4096;
        assert!(counted.bytes_max <= bound, "{} bytes for {}", counted.bytes_max, data.len());
        let Ok(record) = loaded else { continue };
        is_session = true;
        assert!(
            record.expires() > now && record.expires().as_unix() <= expires,
            "a session that has expired"
        );
        let absolute = record.created().saturating_add(store.config().timeouts().absolute);
        assert!(record.expires() <= absolute, "a session older than any may be");
        assert_eq!(data[0], 1, "a version that does not exist");
    }
    is_session
}
