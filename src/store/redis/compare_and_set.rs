//! The ways in which servers compare and set.

/// How entries are compared and set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Scripts: any server.
    Scripts,
    /// `SET … IFEQ`: Valkey 8.1, Redis 8.4, and later.
    CompareAndSet(Removal),
}

/// How an entry is deleted if it has the expected value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// `DELIFEQ`: Valkey 9.
    DelIfEq,
    /// `DELEX … IFEQ`: Redis 8.4.
    DelEx,
    /// By a value that is not an entry and lives for a millisecond: Valkey 8.1.
    Overwrite,
}

impl Way {
    pub(super) fn to_code(self) -> u8 {
        match self {
            Self::Scripts => 0,
            Self::CompareAndSet(Removal::DelIfEq) => 1,
            Self::CompareAndSet(Removal::DelEx) => 2,
            Self::CompareAndSet(Removal::Overwrite) => 3,
        }
    }

    pub(super) fn from_code(code: u8) -> Self {
        match code {
            1 => Self::CompareAndSet(Removal::DelIfEq),
            2 => Self::CompareAndSet(Removal::DelEx),
            3 => Self::CompareAndSet(Removal::Overwrite),
            _ => Self::Scripts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_has_a_code_of_its_own() {
        for (code, way) in (0..).zip([
            Way::Scripts,
            Way::CompareAndSet(Removal::DelIfEq),
            Way::CompareAndSet(Removal::DelEx),
            Way::CompareAndSet(Removal::Overwrite),
        ]) {
            assert_eq!((way.to_code(), Way::from_code(code)), (code, way));
        }
    }
}
