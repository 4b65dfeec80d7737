//! Kubeconfig files. JSON, which every reader of YAML takes.

use std::path::Path;

use serde_json::json;

use crate::pki::{Error, Pair, write};

/// How a user proves who it is.
pub(crate) enum Credential<'a> {
    Certificate(&'a Pair),
    Token(&'a str),
}

pub(crate) fn write_kubeconfig(
    path: &Path,
    server: &str,
    authority: &Path,
    user: &str,
    credential: &Credential<'_>,
) -> Result<(), Error> {
    let secret = match credential {
        Credential::Certificate(pair) => json!({ "client-certificate": pair.certificate, "client-key": pair.key }),
        Credential::Token(token) => json!({ "token": token }),
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "devel", "cluster": { "server": server, "certificate-authority": authority } }],
        "users": [{ "name": user, "user": secret }],
        "contexts": [{ "name": "devel", "context": { "cluster": "devel", "user": user } }],
        "current-context": "devel",
    });
    write(path, &format!("{config:#}\n"))
}
