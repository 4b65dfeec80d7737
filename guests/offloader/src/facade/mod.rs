//! The HTTP interface of the original offload server, on top of the custom resources.
//!
//! Every call is a translation: nothing is kept here. The host has authenticated and authorised the caller.

mod call;
mod conf;
mod delete;
mod logs;
mod offload;
mod pods;
mod reconfigure;
mod reply;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use kube::api::ListParams;
use kube::{Api, Client};
use wasm_operator_sdk::ApiExt as _;

use crate::api::OffloadedAction;
use crate::ids;
use crate::settings::Settings;
use reply::{Answer, Fault};

/// What `/hello` says, versions included: clients show it.
const GREETING: &str = "Greetings from the OpenWhisk offload server! OSM Version: N/A FaaS Version: 0.2.7\n";

/// What every call needs.
struct Facade {
    client: Client,
    settings: Settings,
}

/// Answers a request of the front door.
pub(crate) async fn handle(request: Request<Bytes>) -> Response<Bytes> {
    let settings = match Settings::read(|name| std::env::var(name).ok()) {
        Ok(settings) => settings,
        Err(error) => return reply::of(Err(Fault::internal(error))),
    };
    Facade { client: wasm_operator_sdk::client(), settings }.answer(&request).await
}

impl Facade {
    async fn answer(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let path = request.uri().path();
        let answer = match (request.method(), path) {
            (&Method::GET | &Method::HEAD, "/hello") => Ok(Answer::Text(GREETING)),
            (&Method::POST, _) if path != "/hello" => self.post(path, request.body()).await,
            _ if path == "/hello" || is_known(path) => {
                Err(Fault::page(StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed for the requested URL."))
            }
            _ => Err(Fault::not_found()),
        };
        if let Err(fault) = &answer {
            tracing::warn!(path, %fault, "refused");
        }
        reply::of(answer)
    }

    async fn post(&self, path: &str, body: &[u8]) -> Result<Answer, Fault> {
        if !is_known(path) {
            return Err(Fault::not_found());
        }
        let value = call::value(body)?;
        match path {
            "/offload" => self.offload(&value).await,
            "/reconfigure" => self.reconfigure(&value).await,
            "/getPod" => self.get_pod(&value).await,
            "/getPodFromRoLabel" => self.get_pod_from_ro_label(&value).await,
            "/getNetworks" => self.get_networks(&value).await,
            "/deleteJob" => self.delete_flow(&value, path).await,
            "/successfulJob" => self.delete_flow(&value, path).await,
            "/failedJob" if self.settings.keep_failed => call::flow_id(&value, path).map(|_| Answer::Text("OK")),
            "/failedJob" => self.delete_flow(&value, path).await,
            "/deleteJobFromLabel" => self.delete_by_label(&value).await,
            "/getLogs" => self.get_logs(&value).await,
            _ => match path.strip_prefix("/conf/") {
                Some(address) => self.conf(address, &value).await,
                None => Err(Fault::not_found()),
            },
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.settings.facade_namespace)
    }

    /// All flows, from the host's cache.
    async fn flows(&self) -> Result<Vec<OffloadedAction>, Fault> {
        let flows = self.api::<OffloadedAction>().list_cached(&ListParams::default()).await;
        Ok(flows.map_err(Fault::kubernetes)?.items)
    }

    async fn flow(&self, flow_id: &str) -> Result<Option<OffloadedAction>, Fault> {
        Ok(self.flows().await?.into_iter().find(|flow| ids::flow_id(flow) == flow_id))
    }
}

fn is_known(path: &str) -> bool {
    const POSTS: [&str; 10] = [
        "/offload",
        "/reconfigure",
        "/getPod",
        "/getPodFromRoLabel",
        "/getNetworks",
        "/deleteJob",
        "/successfulJob",
        "/failedJob",
        "/deleteJobFromLabel",
        "/getLogs",
    ];
    let of_conf = path.strip_prefix("/conf/").is_some_and(|address| !address.is_empty() && !address.contains('/'));
    POSTS.contains(&path) || of_conf
}

#[cfg(test)]
mod tests;
