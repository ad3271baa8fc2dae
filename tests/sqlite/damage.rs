//! A file that a failing disk or a stray program has altered gives errors, never a panic and never a wrong session.

use std::collections::BTreeMap;
use std::fs;

use hyper_session::store::Backend;
use hyper_session::store::sqlite::Synchronous;

use crate::contract::block_on;
use crate::folder::{Folder, NOW, entry, id, said};

/// A closed file of 400 entries.
fn written() -> (Folder, Vec<u8>) {
    let folder = Folder::new();
    let store = folder.builder().synchronous(Synchronous::Normal).open().unwrap();
    for number in 0..400 {
        assert!(block_on(store.backend().create(id(number * 7_919), entry(value(number)), NOW)).unwrap());
    }
    drop(store);
    let bytes = fs::read(folder.file()).unwrap();
    (folder, bytes)
}

fn value(number: u64) -> Vec<u8> {
    number.to_be_bytes().repeat(40)
}

#[test]
fn a_page_that_was_overwritten_is_an_error_where_it_is_needed_and_nowhere_else() {
    let (folder, bytes) = written();
    let pages = bytes.len() / 4_096;
    assert!(pages > 20, "{pages}");
    let mut outcomes = BTreeMap::new();
    for page in 1..pages {
        let mut damaged = bytes.clone();
        damaged[page * 4_096..(page + 1) * 4_096].fill(0xd5);
        fs::write(folder.file(), &damaged).unwrap();
        // The first page is whole, so it opens.
        let store = folder.store();
        for number in 0..400 {
            let outcome = match block_on(store.backend().fetch(id(number * 7_919), NOW)) {
                Ok(Some(found)) => {
                    assert_eq!(found.value, value(number));
                    "found"
                }
                Ok(None) => "missing",
                Err(error) => {
                    assert!(error.is_unavailable() && said(&error).contains("damaged"), "{error:?}");
                    "damaged"
                }
            };
            *outcomes.entry(outcome).or_insert(0) += 1;
        }
        // A write is either refused or done.
        for number in 0..20 {
            match block_on(store.backend().create(id(1 + number * 7_919), entry("new"), NOW)) {
                Ok(true) => {
                    let found = block_on(store.backend().fetch(id(1 + number * 7_919), NOW)).unwrap();
                    assert_eq!(found, Some(entry("new")));
                }
                Ok(false) => panic!("it was not there"),
                Err(error) => assert!(error.is_unavailable(), "{error:?}"),
            }
        }
    }
    assert_eq!(
        outcomes.get("missing"),
        None,
        "an entry that cannot be read is not one that is not there: {outcomes:?}"
    );
    assert!(outcomes["damaged"] > 300 && outcomes["found"] > 300, "{outcomes:?}");
}

#[test]
fn any_byte_may_be_wrong_anywhere() {
    let (folder, bytes) = written();
    // The same bytes each time; a generator that is good enough to spread them.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap()
    };
    let (mut opened, mut refused) = (0, 0);
    for round in 0..300 {
        let mut damaged = bytes.clone();
        // Every other time in the header and the first page, where it matters most.
        let range = if round % 2 == 0 { damaged.len() } else { 600 };
        for _ in 0..=random() % 8 {
            let place = random() % range;
            damaged[place] = u8::try_from(random() % 256).unwrap();
        }
        if round % 5 == 0 {
            damaged.truncate(random() % damaged.len());
        }
        for side in ["-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{side}", folder.file().display()));
        }
        fs::write(folder.file(), &damaged).unwrap();
        match folder.builder().open() {
            Err(error) => {
                assert!(error.is_config() || error.is_unavailable(), "{error:?}");
                refused += 1;
            }
            Ok(store) => {
                opened += 1;
                for number in 0..400 {
                    if let Err(error) = block_on(store.backend().fetch(id(number * 7_919), NOW)) {
                        assert!(error.is_unavailable(), "{error:?}");
                    }
                }
                let (write, delete) = (
                    block_on(store.backend().create(id(5), entry("new"), NOW)),
                    block_on(store.backend().delete(id(7_919))),
                );
                for error in [write.err(), delete.err()].into_iter().flatten() {
                    assert!(error.is_unavailable(), "{error:?}");
                }
            }
        }
    }
    assert!(opened > 30 && refused > 30, "{opened} opened, {refused} refused");
}
