//! TLS to Redis: certificates and the cryptography provider. Without the feature `redis-tls`, the refusal.

use bb8_redis::redis::{Client, ConnectionInfo};
#[cfg(feature = "redis-tls")]
use bb8_redis::redis::{ClientTlsConfig, TlsCertificates};

#[cfg(feature = "redis-tls")]
use rustls::crypto::aws_lc_rs as aws_lc;

use super::fault::Failure;
use crate::error::Error;

/// Certificates, as PEM. Without any, the authorities that the system trusts.
#[derive(Clone, Default)]
pub(super) struct Tls {
    pub(super) root: Option<Vec<u8>>,
    /// Certificate and private key, for a server that asks for them.
    pub(super) client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    pub(super) fn is_configured(&self) -> bool {
        self.root.is_some() || self.client.is_some()
    }
}

#[cfg(feature = "redis-tls")]
impl Tls {
    /// Checks the certificates, and installs rustls' default `CryptoProvider`.
    pub(super) fn check(&self) -> Result<(), Error> {
        const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
        let is_pem = |root: &Vec<u8>| root.windows(BEGIN.len()).any(|line| line == BEGIN);
        // With an empty set of certificates, rustls trusts no server and reports the server's certificate as the fault.
        if !self.root.as_ref().is_none_or(is_pem) {
            return Err(Error::config(
                "root_certificates() and sentinel_root_certificates() must get a PEM certificate",
            ));
        }
        // A provider that the application installed earlier stays. Without any, rustls would panic.
        let _ = aws_lc::default_provider().install_default();
        Ok(())
    }

    /// Creates a client for the server in `info`.
    pub(super) fn client(tls: Option<&Self>, info: ConnectionInfo) -> Result<Client, Failure> {
        let client = match tls.filter(|tls| tls.is_configured()) {
            Some(tls) => Client::build_with_tls(info, tls.certificates()),
            None => Client::open(info),
        };
        // The library's error may hold parts of a key file.
        client.map_err(|_| {
            Failure::Setup("the certificates for Redis are not PEM of the right kind".to_owned())
        })
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
        Err(Error::config("TLS to Redis needs this crate's feature redis-tls: enable it"))
    }

    pub(super) fn client(_: Option<&Self>, info: ConnectionInfo) -> Result<Client, Failure> {
        Client::open(info).map_err(|_| Failure::Setup("the URL does not name a Redis server".to_owned()))
    }
}
