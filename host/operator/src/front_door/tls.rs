//! Certificates from files, read again when they change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};

/// Bytes of a file: a chain has some KiB, a bundle of authorities some hundred.
const MAX_FILE: u64 = 1 << 20;

/// The files of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The certificate chain.
    pub(crate) certificate: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
    /// Authorities of client certificates, which are demanded then.
    pub(crate) client_authorities: Option<PathBuf>,
}

/// Why a listener has no certificate. Mended by the administrator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot read `{}`: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}` has no usable {what}: {reason}", .path.display())]
    Pem { path: PathBuf, what: &'static str, reason: String },
    #[error("certificate `{}` and key `{}` cannot be used: {reason}", .certificate.display(), .key.display())]
    Pair { certificate: PathBuf, key: PathBuf, reason: String },
    #[error("the client authorities `{}` cannot be used: {reason}", .path.display())]
    Authorities { path: PathBuf, reason: String },
}

/// What the files held when they were read.
#[derive(Debug)]
pub(crate) struct Certificate {
    config: Arc<ServerConfig>,
    digest: [u8; 32],
}

impl Certificate {
    /// How connections are made.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Whether both come from the same bytes.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl TlsFiles {
    /// Reads and checks the files.
    pub(crate) fn load(&self) -> Result<Certificate, TlsError> {
        let mut digest = Sha256::new();
        for path in self.paths() {
            digest.update(Sha256::digest(read(&path)?));
        }
        let config = self.config()?;
        Ok(Certificate { config, digest: digest.finalize().into() })
    }

    fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let certificates = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?).map_err(|error| TlsError::Pem {
            path: self.key.clone(),
            what: "private key",
            reason: error.to_string(),
        })?;
        let pair = |error: rustls::Error| TlsError::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            reason: error.to_string(),
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(pair)?;
        let builder = match &self.client_authorities {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let bad = |reason: String| TlsError::Authorities { path: path.clone(), reason };
                let mut roots = RootCertStore::empty();
                for authority in self::certificates(path)? {
                    roots.add(authority).map_err(|error| bad(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| bad(error.to_string()))?)
            }
        };
        let mut config = builder.with_single_cert(certificates, key).map_err(pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Tickets would let a client in again whose certificate is no longer accepted.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    /// Every file.
    pub(crate) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        [Some(&self.certificate), Some(&self.key), self.client_authorities.as_ref()].into_iter().flatten().cloned()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |reason: String| TlsError::Pem { path: path.to_owned(), what: "certificate", reason };
    let bytes = read(path)?;
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|error| pem(error.to_string()))?;
    if certificates.is_empty() { Err(pem("there is none in it".to_owned())) } else { Ok(certificates) }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
        return Err(failed(io::Error::other(format!("it has more than {MAX_FILE} bytes"))));
    }
    std::fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path) -> TlsFiles {
        TlsFiles { certificate: directory.join("tls.crt"), key: directory.join("tls.key"), client_authorities: None }
    }

    fn write_pair(files: &TlsFiles) -> (String, String) {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        std::fs::write(&files.certificate, &certificate).unwrap();
        std::fs::write(&files.key, &key).unwrap();
        (certificate, key)
    }

    #[test]
    fn a_pair_that_fits_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = files(directory.path());
        write_pair(&files);
        files.load().unwrap();
        files.client_authorities = Some(files.certificate.clone());
        files.load().unwrap();
    }

    #[test]
    fn files_that_are_missing_broken_or_do_not_belong_together_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        assert!(files.load().unwrap_err().to_string().contains("tls.crt"));
        let (certificate, key) = write_pair(&files);
        let (_, other) = write_pair(&files);
        for (path, text, expected) in [
            (&files.certificate, certificate.as_str(), "cannot be used"),
            (&files.certificate, "", "has no usable certificate"),
            (&files.certificate, "-----BEGIN CERTIFICATE-----\nAAAA", "has no usable certificate"),
            (&files.key, certificate.as_str(), "has no usable private key"),
            (&files.key, "", "has no usable private key"),
            (&files.key, other.get(..other.len() / 2).unwrap(), "has no usable private key"),
        ] {
            let before = std::fs::read(path).unwrap();
            std::fs::write(path, text).unwrap();
            let error = files.load().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            std::fs::write(path, before).unwrap();
        }
        files.load().unwrap();
        drop(key);
    }
}
