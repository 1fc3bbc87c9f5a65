//! Which BuildKit daemons there are.

use std::path::PathBuf;

use ashlar_buildkit::Address;
use clap::Args;

/// BuildKit daemons.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct BuildkitArgs {
    /// BuildKit daemon that builds Dockerfiles: unix:///var/run/docker.sock, a path, or
    /// tcp://HOST:PORT?ca=FILE&cert=FILE&key=FILE; a Docker daemon or a buildkitd (repeatable)
    #[arg(long, env = "ASHLAR_BUILDKIT", value_name = "ADDR", value_delimiter = ',')]
    pub(crate) buildkit: Vec<Address>,
    /// Folder with ca.pem, cert.pem and key.pem for BuildKit daemons at TCP addresses that name no
    /// certificates of their own
    #[arg(long, env = "ASHLAR_BUILDKIT_CERT", value_name = "DIR")]
    pub(crate) buildkit_cert: Option<PathBuf>,
}

impl BuildkitArgs {
    /// Returns the daemons with their certificates.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        let with_certificates = |address: &Address| match &self.buildkit_cert {
            Some(folder) => address.clone().or_certificates_in(folder),
            None => address.clone(),
        };
        self.buildkit.iter().map(with_certificates).collect()
    }
}
