//! The listeners that guests have of their own: opened, changed and closed as the configuration says.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{error, info, warn};
use wasm_operator_cluster::callers::Caller;
use wasm_operator_config::{GuestSpec, Listener};

use super::FrontDoor;
use super::listener::{Access, ListenError, Listening, Own, PasswordFile};
use super::tls::TlsFiles;

/// Which guests have a listener.
#[derive(Default)]
pub(crate) struct Listeners {
    open: BTreeMap<String, Entry>,
}

struct Entry {
    listener: Listener,
    /// None if it could not be opened.
    running: Option<Running>,
}

struct Running {
    end: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Listeners {
    /// Brings what listens in line with the configuration. Listeners that did not change go on; one that could not be opened
    /// is tried again.
    pub(crate) async fn apply(&mut self, door: &Arc<FrontDoor>, specs: &[GuestSpec], directory: &Path) {
        let wanted: BTreeMap<&str, &Listener> =
            specs.iter().filter_map(|spec| Some((spec.name.as_str(), spec.serve.listener.as_ref()?))).collect();
        let gone: Vec<String> = self
            .open
            .iter()
            .filter(|(guest, entry)| {
                entry.running.is_none() || wanted.get(guest.as_str()).is_none_or(|wanted| **wanted != entry.listener)
            })
            .map(|(guest, _)| guest.clone())
            .collect();
        // All that ends goes first: addresses may change hands.
        for guest in gone {
            let Some(Entry { listener, running: Some(Running { end, task }) }) = self.open.remove(&guest) else {
                continue;
            };
            end.send_replace(true);
            // The socket is closed when the task has ended, which it does at once; its connections end by themselves.
            let _ = task.await;
            info!(guest, address = %listener.address, "the guest's own listener is closed");
        }
        for (guest, listener) in wanted {
            if self.open.contains_key(guest) {
                continue;
            }
            let running = match open(door, guest, listener, directory).await {
                Ok(running) => {
                    warn!(
                        guest,
                        address = %listener.address,
                        user = listener.user,
                        tls = listener.certificate.is_some(),
                        passwords = listener.passwords.is_some(),
                        client_certificates = listener.client_authorities.is_some(),
                        "the guest has a listener of its own, which asks for no token"
                    );
                    Some(running)
                }
                Err(error) => {
                    error!(guest, %error, "the guest's own listener is not opened");
                    None
                }
            };
            self.open.insert(guest.to_owned(), Entry { listener: listener.clone(), running });
        }
    }
}

async fn open(
    door: &Arc<FrontDoor>,
    guest: &str,
    listener: &Listener,
    directory: &Path,
) -> Result<Running, ListenError> {
    let tls = listener.certificate.as_ref().zip(listener.key.as_ref()).map(|(certificate, key)| TlsFiles {
        certificate: directory.join(certificate),
        key: directory.join(key),
        client_authorities: listener.client_authorities.as_ref().map(|path| directory.join(path)),
    });
    let passwords = listener.passwords.as_ref().map(|path| PasswordFile::open(directory.join(path))).transpose()?;
    let access = Access::Listener(Own {
        guest: guest.to_owned(),
        caller: Caller { user: listener.user.clone(), groups: listener.groups.clone(), ..Caller::default() },
        sources: listener.sources.clone(),
        passwords,
    });
    let listening = Listening::open(door, listener.address, tls, access).await?;
    let (end, ended) = watch::channel(false);
    Ok(Running { end, task: tokio::spawn(listening.serve(ended)) })
}
