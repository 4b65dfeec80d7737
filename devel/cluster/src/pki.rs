//! Certificates and keys of one control plane, made anew for each and gone with it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::flags::SERVICE_ADDRESS;

/// Certificates could not be made or written. Not worth a retry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be written.
    #[error("cannot write `{path}`: {source}; check free space and rights in the temporary directory")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The library refused; a fault of ours.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// A certificate authority and what it signs, as PEM files in one directory.
pub(crate) struct Pki {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pki {
    pub(crate) fn create(directory: &Path) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("wasm-operator-devel", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        write(&directory.join("ca.crt"), &certificate.pem())?;
        // The controller manager signs certificate requests with it.
        write(&directory.join("ca.key"), &key.serialize_pem())?;
        Ok(Self { directory: directory.to_owned(), issuer: Issuer::new(params, key) })
    }

    pub(crate) fn authority(&self) -> Pair {
        Pair { certificate: self.directory.join("ca.crt"), key: self.directory.join("ca.key") }
    }

    /// The API server's own certificate, for loopback, the Service `kubernetes` and a further address.
    pub(crate) fn serving(&self, address: Option<IpAddr>) -> Result<Pair, Error> {
        let names =
            ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1", SERVICE_ADDRESS];
        let names = names.map(str::to_owned).into_iter().chain(address.map(|address| address.to_string()));
        let mut params = CertificateParams::new(names.collect::<Vec<_>>())?;
        params.distinguished_name = name("kube-apiserver", &[]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign("apiserver", params)
    }

    /// A client certificate: the API server takes its common name for the user and its organisations for the groups.
    pub(crate) fn client(&self, file: &str, user: &str, groups: &[&str]) -> Result<Pair, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(user, groups);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(file, params)
    }

    /// The key pair that signs ServiceAccount tokens. `certificate` is the public key here.
    pub(crate) fn service_account_keys(&self) -> Result<Pair, Error> {
        let key = KeyPair::generate()?;
        let pair = Pair {
            certificate: self.directory.join("service-account.pub"),
            key: self.directory.join("service-account.key"),
        };
        write(&pair.certificate, &key.public_key_pem())?;
        write(&pair.key, &key.serialize_pem())?;
        Ok(pair)
    }

    fn sign(&self, file: &str, mut params: CertificateParams) -> Result<Pair, Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let pair = Pair {
            certificate: self.directory.join(format!("{file}.crt")),
            key: self.directory.join(format!("{file}.key")),
        };
        write(&pair.certificate, &certificate.pem())?;
        write(&pair.key, &key.serialize_pem())?;
        Ok(pair)
    }
}

fn name(common_name: &str, organisations: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    for organisation in organisations {
        name.push(DnType::OrganizationName, *organisation);
    }
    name
}

/// The directory is closed to other users, so the files need no rights of their own.
pub(crate) fn write(path: &Path, content: &str) -> Result<(), Error> {
    fs::write(path, content).map_err(|source| Error::Write { path: path.to_owned(), source })
}
