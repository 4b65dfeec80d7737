//! The binary's command `serve`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test, its helpers included")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn serve(listen: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_wasm-operator-prediction"))
        .args(["serve", "--listen", listen])
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for the line that says where the service listens.
fn address(service: &mut Child) -> String {
    let mut lines = BufReader::new(service.stderr.take().unwrap()).lines();
    let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("address="))).unwrap().unwrap();
    line.split_once("address=").unwrap().1.to_owned()
}

#[test]
fn it_answers_and_ends_at_sigterm() {
    let mut service = serve("127.0.0.1:0");
    let mut stream = TcpStream::connect(address(&mut service)).unwrap();
    let body = r#"{"history": ["2023-01-23T13:04:03.182471956Z"]}"#;
    let head = format!(
        "POST /prediction HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(r#"{"prediction": "2023-01-23T13:04:06.182471956Z"}"#), "{answer}");
    kill_process(Pid::from_child(&service), Signal::TERM).unwrap();
    assert!(service.wait().unwrap().success());
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let ended = serve(&address.to_string()).wait_with_output().unwrap();
    assert!(!ended.status.success());
    let message = String::from_utf8(ended.stderr).unwrap();
    assert!(message.contains(&format!("cannot listen on `{address}`")), "{message}");
}

#[test]
fn an_address_that_is_none_is_refused() {
    for listen in ["", "5000", "localhost:5000", "127.0.0.1"] {
        let ended = serve(listen).wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(2), "{listen}");
    }
}
