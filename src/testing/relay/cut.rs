//! `Cut`: the point at which a relay cuts a connection.

/// The point at which a [`Relay`](super::Relay) cuts a connection, for [`Relay::cut_next`](super::Relay::cut_next).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cut {
    /// Before the request: the server never sees it.
    BeforeRequest,
    /// After the request, before its reply: the server has executed it, but the client does not know.
    BeforeReply,
    /// In the middle of the reply.
    InReply,
    /// Like [`BeforeReply`](Self::BeforeReply), but the client's connection is reset (TCP RST) instead of closed.
    Reset,
}

impl Cut {
    /// The cuts of [`Relay::cut_one_in`](super::Relay::cut_one_in).
    pub(super) const AT_RANDOM: [Self; 3] = [Self::BeforeRequest, Self::BeforeReply, Self::InReply];
}
