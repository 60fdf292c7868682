//! What goes wrong with a store, each in one sentence that names the member that was asked and what would put it right.

use super::StoreKind;

/// An error of a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{store} at {endpoint}: {trouble}")]
pub struct StoreError {
    /// Which store.
    pub store: StoreKind,
    /// The member that was asked last.
    pub endpoint: String,
    /// What is wrong.
    pub trouble: Trouble,
}

/// What is wrong with a store, or with what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// No connection.
    #[error("{0}: check `endpoints` of [cluster], and that the store runs there")]
    Unreachable(String),
    /// A connection, but no answer in time.
    #[error("no answer within {0} s: the member hangs, or has no way to its leader")]
    Silent(u64),
    /// Most members are gone, so that nothing can be written.
    #[error("it has no leader: start more of its members, more than half must run")]
    NoQuorum,
    /// It answers, but is not what it was taken for.
    #[error("what answers is not that store ({0}): check `store` and `endpoints` of [cluster]")]
    Stranger(String),
    /// TLS did not come about.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// A client certificate that the gateway of etcd refuses.
    #[error(
        "its gateway refuses every client certificate with a CommonName: make one without it (`-subj /O=vswitch`), or give none and a password"
    )]
    CommonName,
    /// It wants to know who asks.
    #[error("it lets in only users with a password: give `username` and `password-file`, or a `token-file`")]
    Anonymous,
    /// The password or token is not right.
    #[error("it knows no {0}: correct it in [cluster]")]
    WrongSecret(String),
    /// The user may not do this.
    #[error("{who} may not {what}: grant it reading and writing of all keys below \"{prefix}\"")]
    Forbidden {
        /// The user or token.
        who: String,
        /// What was asked.
        what: &'static str,
        /// What all keys begin with.
        prefix: String,
    },
    /// The session that announcements were made in has ended.
    #[error("the session of this host has ended")]
    SessionLost,
    /// More than the store takes, or sends, at once.
    #[error("{0} is more than it takes at once")]
    TooMuch(String),
    /// The port of gossip is not to be had, or something like it.
    #[error("{0}")]
    NoSocket(String),
    /// Something else, as the store says it.
    #[error("it says {0:?}")]
    Other(String),
}

impl Trouble {
    /// Whether the files of secrets may be why, which may have been renewed since they were read.
    pub const fn is_of_secrets(&self) -> bool {
        matches!(self, Self::WrongSecret(_) | Self::Anonymous | Self::Tls(_) | Self::CommonName)
    }

    /// The error of a member.
    pub(super) fn at(self, store: StoreKind, endpoint: &str) -> StoreError {
        StoreError { store, endpoint: endpoint.to_owned(), trouble: self }
    }
}
