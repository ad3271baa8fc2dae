//! `Circumstances`: the facts about its request that a session needs.

use crate::clock::Timestamp;

/// The facts about its request that a session needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    /// The time of the request.
    pub(crate) now: Timestamp,
    /// The browser loads the page ahead, and may never show the response to the user.
    pub(crate) speculative: bool,
    /// Flash values are stored among the other values, as in Astra.
    pub(crate) shared_flash: bool,
    /// The store keeps revocations, so that labels have an effect.
    pub(crate) revocable: bool,
    /// Whether the request comes from the device that its session is bound to.
    #[cfg_attr(not(feature = "device-bound"), allow(dead_code))]
    pub(crate) device: DeviceCheck,
}

/// The result of the check that a request comes from the device that its session is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "device-bound"), allow(dead_code))]
pub(crate) enum DeviceCheck {
    /// The store does not check it.
    Unchecked,
    /// It does, or the session is not bound.
    Passed,
    /// The session is bound, and nothing shows that the request comes from its device.
    Failed,
}
