//! TLS to Redis: which certificates, and whose cryptography. Without the feature `redis-tls`, the refusal.

use bb8_redis::redis::cluster::ClusterClientBuilder;
use bb8_redis::redis::sentinel::SentinelClientBuilder;
use bb8_redis::redis::{Client, ConnectionInfo};
#[cfg(feature = "redis-tls")]
use bb8_redis::redis::{ClientTlsConfig, TlsCertificates};

#[cfg(feature = "redis-tls")]
use rustls::crypto::aws_lc_rs as aws_lc;

use crate::error::Error;

/// Certificates, as PEM. Without any, those that the system trusts.
#[derive(Clone, Default)]
pub(super) struct Tls {
    pub(super) root: Option<Vec<u8>>,
    /// Certificate and private key, for a Redis that wants to know who calls.
    pub(super) client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    pub(super) fn is_configured(&self) -> bool {
        self.root.is_some() || self.client.is_some()
    }
}

#[cfg(feature = "redis-tls")]
impl Tls {
    /// Sees to it that there is somebody to do the cryptography.
    pub(super) fn check(&self) -> Result<(), Error> {
        const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
        let is_pem = |root: &Vec<u8>| root.windows(BEGIN.len()).any(|line| line == BEGIN);
        // With none in it the library trusts nobody, and blames the server.
        if !self.root.as_ref().is_none_or(is_pem) {
            return Err(Error::config("root_certificates() got no PEM certificate"));
        }
        // Whoever installed one first wins; only its absence would be a fault, and a panic inside rustls.
        let _ = aws_lc::default_provider().install_default();
        Ok(())
    }

    pub(super) fn client(&self, info: ConnectionInfo) -> Result<Client, Error> {
        let client = if self.is_configured() {
            Client::build_with_tls(info, self.certificates())
        } else {
            Client::open(info)
        };
        // What the library says may hold parts of a key file.
        client.map_err(|_| Error::config("the certificates for Redis are not PEM of the right kind"))
    }

    pub(super) fn sentinel(&self, builder: SentinelClientBuilder) -> SentinelClientBuilder {
        let builder = builder.set_client_to_sentinel_tls_mode(bb8_redis::redis::TlsMode::Secure);
        if !self.is_configured() {
            return builder;
        }
        builder
            .set_client_to_redis_certificates(self.certificates())
            .set_client_to_sentinel_certificates(self.certificates())
    }

    pub(super) fn cluster(&self, builder: ClusterClientBuilder) -> ClusterClientBuilder {
        if self.is_configured() { builder.certs(self.certificates()) } else { builder }
    }

    fn certificates(&self) -> TlsCertificates {
        let client = self.client.clone();
        let client_tls = client.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        TlsCertificates { client_tls, root_cert: self.root.clone() }
    }
}

#[cfg(not(feature = "redis-tls"))]
#[allow(clippy::unused_self)] // with the feature it is used
impl Tls {
    pub(super) fn check(&self) -> Result<(), Error> {
        Err(Error::config("TLS to Redis is behind the crate's feature redis-tls: switch it on"))
    }

    pub(super) fn client(&self, info: ConnectionInfo) -> Result<Client, Error> {
        Client::open(info).map_err(|_| Error::config("this is not a Redis that can be connected to"))
    }

    pub(super) fn sentinel(&self, builder: SentinelClientBuilder) -> SentinelClientBuilder {
        builder
    }

    pub(super) fn cluster(&self, builder: ClusterClientBuilder) -> ClusterClientBuilder {
        builder
    }
}
