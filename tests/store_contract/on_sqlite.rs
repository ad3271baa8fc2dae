//! The same interleavings, with a real SQLite file below.

use crate::real_backends;
use crate::test_backend::on_sqlite;

#[test]
fn t34_r1_every_interleaving_of_load_save_destroy_and_regenerate_on_sqlite() {
    on_sqlite(real_backends::every_interleaving_of_load_save_destroy_and_regenerate);
}

#[test]
fn r1_r2_every_interleaving_of_the_writes_of_three_on_sqlite() {
    on_sqlite(real_backends::every_interleaving_of_the_writes_of_three);
}

#[test]
fn t26_r9_endings_and_logins_step_by_step_on_sqlite() {
    on_sqlite(real_backends::endings_and_logins_step_by_step);
}

#[test]
fn t26_t37_t71_lists_of_sessions_on_sqlite() {
    on_sqlite(real_backends::lists_of_sessions);
}
