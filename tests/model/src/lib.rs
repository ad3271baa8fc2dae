//! Models of what several hosts do to one store, small enough that a model checker visits every order of their steps.
//!
//! [`store`] has the server-side store: each primitive of a `Backend` is one step. [`revocation`] has the log of revocations,
//! the hosts that follow it, and failovers that lose its end. [`sqlite`] has the file that such a log may be, and a copy of it
//! that is put back. The functions of a model are named for those of the code.
//! `tests/traces.rs` records runs of the code on one store and checks that the model does the same.

pub mod backend;
pub mod request;
pub mod revocation;
pub mod sqlite;
pub mod store;

/// Every choice of `count` of `all`, of which each can be chosen several times, in one order.
fn combinations<T: Copy + PartialOrd>(all: &[T], count: usize) -> Vec<Vec<T>> {
    let mut chosen = vec![Vec::new()];
    for _ in 0..count {
        let longer = |before: &Vec<T>| {
            let further = all.iter().filter(|next| before.last().is_none_or(|last| *next >= last));
            further.map(|next| [&before[..], &[*next]].concat()).collect::<Vec<_>>()
        };
        chosen = chosen.iter().flat_map(longer).collect();
    }
    chosen
}
