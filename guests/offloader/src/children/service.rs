//! The Service of a flow.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use kube::ResourceExt as _;

use super::{flow_metadata, owned};
use crate::api::{OffloadedAction, Port, PortStatus, Protocol, ServiceSource, ServiceStatus, ServiceType};
use crate::settings::Settings;
use crate::{ids, labels};

/// The ports in their order, each once, with that of the runtime configuration.
#[must_use]
pub fn ports(source: &ServiceSource, conf_port: u16) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for port in source.ports.iter().chain([&Port { port: conf_port, protocol: Protocol::Tcp }]) {
        if !ports.contains(port) {
            ports.push(*port);
        }
    }
    ports
}

/// The Service that leads to the pods of the Job `serving`, and to those of no other Job. None: the flow has none.
#[must_use]
pub fn service(action: &OffloadedAction, serving: &str, settings: &Settings) -> Option<Service> {
    let type_ = match action.spec.service.type_ {
        ServiceType::NodePort => "NodePort",
        ServiceType::ClusterIP => "ClusterIP",
        ServiceType::LoadBalancer => "LoadBalancer",
        ServiceType::None => return None,
    };
    let flow_id = ids::flow_id(action);
    let ports =
        ports(&action.spec.service, settings.conf_port).into_iter().enumerate().map(|(index, port)| ServicePort {
            name: Some(format!("http-api-{index}")),
            port: port.port.into(),
            protocol: Some(protocol(port.protocol).to_owned()),
            ..ServicePort::default()
        });
    let selector = [(labels::FLOW.to_owned(), flow_id.clone()), (labels::JOB.to_owned(), serving.to_owned())].into();
    let spec = ServiceSpec {
        type_: Some(type_.to_owned()),
        selector: Some(selector),
        ports: Some(ports.collect()),
        ..ServiceSpec::default()
    };
    let metadata = flow_metadata(ids::flow_name(&flow_id), action);
    Some(owned(Service { metadata, spec: Some(spec), ..Service::default() }, action))
}

/// Whether the Service in the cluster is as wanted, in all that we say about it.
#[must_use]
pub fn matches(wanted: &Service, there: &Service) -> bool {
    let facts = |service: &Service| {
        let spec = service.spec.clone().unwrap_or_default();
        let ports: BTreeMap<_, _> =
            spec.ports.into_iter().flatten().map(|port| ((port.port, port.protocol), port.name)).collect();
        (spec.type_, spec.selector, ports)
    };
    facts(wanted) == facts(there) && there.metadata.deletion_timestamp.is_none()
}

/// What is reported of the Service.
#[must_use]
pub fn status(service: &Service) -> ServiceStatus {
    let spec = service.spec.clone().unwrap_or_default();
    let number = |port: i32| u16::try_from(port).unwrap_or_default();
    let ports = spec.ports.into_iter().flatten().map(|port| PortStatus {
        port: number(port.port),
        protocol: if port.protocol.as_deref() == Some("UDP") { Protocol::Udp } else { Protocol::Tcp },
        node_port: port.node_port.map(number).filter(|port| *port != 0),
    });
    ServiceStatus {
        name: service.name_any(),
        cluster_ip: spec.cluster_ip.filter(|ip| !ip.is_empty() && ip != "None"),
        ports: ports.collect(),
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}
