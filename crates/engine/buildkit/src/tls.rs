//! TLS towards daemons: our certificate, and whose certificates we trust.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Files for TLS, all PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Certificates {
    /// Whom to trust; the system's certificate authorities when absent.
    pub ca: Option<PathBuf>,
    /// Our certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The name in the daemon's certificate, when it is not the address's host.
    pub server_name: Option<String>,
}

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of its kind.
    #[error("cannot read {what} from {}", path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not fit, or are of a kind that is not known.
    #[error("the certificates cannot be used")]
    Unusable(#[source] rustls::Error),
}

impl Certificates {
    /// Names the files of a folder as Docker's clients lay them out.
    pub fn in_folder(folder: &Path) -> Self {
        let file = |name| Some(folder.join(name));
        Self { ca: file("ca.pem"), cert: file("cert.pem"), key: file("key.pem"), server_name: None }
    }

    /// Makes the settings of a connection that offers these protocols by ALPN.
    pub(crate) fn config(&self, protocols: &[&[u8]]) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unusable)?
            .with_root_certificates(self.roots()?);
        let mut config =
            match (&self.cert, &self.key) {
                (Some(cert), Some(key)) => {
                    let chain = certificates(cert)?;
                    let key = PrivateKeyDer::from_pem_file(key).map_err(|source| {
                        TlsError::File { what: "a private key", path: key.clone(), source }
                    })?;
                    builder.with_client_auth_cert(chain, key).map_err(TlsError::Unusable)?
                }
                _ => builder.with_no_client_auth(),
            };
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(TlsError::Unusable)?;
                }
            }
            // One that cannot be read does not spoil the others.
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        Ok(roots)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { what: "certificates", path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(failed)?.map(|c| c.map_err(failed)).collect()
}
