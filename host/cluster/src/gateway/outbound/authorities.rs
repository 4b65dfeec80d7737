//! Certificate authorities that a guest's other hosts may have, beside the public ones.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// The public authorities and some more.
#[derive(Clone)]
pub struct Authorities {
    pub(super) tls: TlsConnector,
    added: usize,
}

/// A file that holds no certificate authorities. The administrator has to change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAuthorities {
    /// Not PEM.
    #[error("it is not PEM: {0}")]
    Pem(String),
    /// PEM without a certificate.
    #[error("it holds no certificate")]
    Empty,
    /// A certificate that cannot be one of an authority.
    #[error("certificate {number} cannot be that of an authority: {cause}")]
    Certificate {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        cause: String,
    },
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities").field("added", &self.added).finish_non_exhaustive()
    }
}

impl Authorities {
    /// The public ones and those of a PEM file.
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidAuthorities> {
        let mut roots = public();
        let mut added = 0;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| InvalidAuthorities::Pem(error.to_string()))?;
            added += 1;
            let wrong =
                |error: rustls::Error| InvalidAuthorities::Certificate { number: added, cause: error.to_string() };
            roots.add(certificate).map_err(wrong)?;
        }
        if added == 0 { Err(InvalidAuthorities::Empty) } else { Ok(Self { tls: connector(roots), added }) }
    }
}

/// Built in: a static binary in an empty image finds none elsewhere.
pub(super) fn public() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    roots
}

/// TLS that trusts these.
pub(super) fn connector(roots: RootCertStore) -> TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // The provider supports the default versions, so this does not fail; without it no connection is secure.
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(roots).with_no_client_auth());
    let config = config.unwrap_or_else(|error| {
        tracing::error!(%error, "no TLS to other hosts");
        ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
    });
    TlsConnector::from(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_authorities_is_refused_and_says_why() {
        assert_eq!(Authorities::from_pem(b"").unwrap_err(), InvalidAuthorities::Empty);
        assert_eq!(Authorities::from_pem(b"nothing\n").unwrap_err(), InvalidAuthorities::Empty);
        let broken = b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        assert!(matches!(Authorities::from_pem(broken), Err(InvalidAuthorities::Pem(_))));
        let odd = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(Authorities::from_pem(odd), Err(InvalidAuthorities::Certificate { number: 1, .. })));
    }
}
