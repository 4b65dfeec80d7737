//! A program of the world `operator` that tries what its sockets are not for, and sends its endpoint what no client would.
//!
//! It reads lines of JSON, one per attempt, from the environment variable `ATTEMPTS`, and writes one line of JSON with all
//! outcomes: `{"outcomes": ["...", ...]}`. Then it waits for ever. An attempt is
//! - `{"connect": "<address>"}`: `connected` or the kind of the error;
//! - `{"listen": "<address>"}`, `{"udp": "<address>"}`: `bound` or the kind of the error;
//! - `{"resolve": "<name>:<port>"}`: `resolved` or the kind of the error;
//! - `{"send": "<text>"}`: sends the text to its endpoint, where `TOKEN` stands for its token; the first line of the answer;
//! - `{"sendTo": "<address>", "text": "<text>"}`: the same, to another address.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};

use serde_json::{Value, json};

fn main() {
    let variable = |name| std::env::var(name).unwrap();
    let endpoint = format!("{}:{}", variable("WASM_OPERATOR_SERVICE_HOST"), variable("WASM_OPERATOR_SERVICE_PORT"));
    println!("{}", json!({ "endpoint": endpoint, "token": variable("WASM_OPERATOR_SERVICE_TOKEN") }));
    let attempts: Vec<Value> = serde_json::from_str(&variable("ATTEMPTS")).unwrap();
    let outcomes: Vec<String> = attempts.iter().map(|attempt| outcome(attempt, &endpoint)).collect();
    println!("{}", json!({ "outcomes": outcomes }));
    misbehaving::wait_for_ever();
}

fn outcome(attempt: &Value, endpoint: &str) -> String {
    let text = |name: &str| attempt[name].as_str();
    let result = if let Some(address) = text("connect") {
        TcpStream::connect(address).map(|_| "connected".to_owned())
    } else if let Some(address) = text("listen") {
        TcpListener::bind(address).map(|_| "bound".to_owned())
    } else if let Some(address) = text("udp") {
        UdpSocket::bind(address).map(|_| "bound".to_owned())
    } else if let Some(name) = text("resolve") {
        name.to_socket_addrs().map(|_| "resolved".to_owned())
    } else if let Some(address) = text("sendTo") {
        send(address, text("text").unwrap())
    } else {
        send(endpoint, text("send").unwrap())
    };
    result.unwrap_or_else(|error| format!("{:?}", error.kind()))
}

fn send(address: &str, text: &str) -> std::io::Result<String> {
    let token = std::env::var("WASM_OPERATOR_SERVICE_TOKEN").unwrap();
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(text.replace("TOKEN", &token).as_bytes())?;
    let mut answer = Vec::new();
    let mut part = [0; 1024];
    while !answer.contains(&b'\n') {
        match stream.read(&mut part)? {
            0 => break,
            count => answer.extend_from_slice(&part[..count]),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().unwrap_or("closed").to_owned())
}
