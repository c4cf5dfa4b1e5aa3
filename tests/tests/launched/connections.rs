//! More clients than the process may have connections, none of which ever ends its request: the operator is answered.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    process::Command,
};

use openclaw_tests::{Launch, binary};

#[test]
fn clients_that_never_end_a_request_lock_out_no_operator() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run = dir.path().join("run");
    let launch = Launch::new("configs/quickstart.toml", &run).set("actors.rollout=[]");
    let node = launch.limited("ulimit -n 128;").start();
    let gateway = node.url.trim_start_matches("http://").trim_end_matches("/v1").to_owned();
    let mut silent = Vec::new();
    for address in [gateway, node.metrics()] {
        let address: SocketAddr = address.parse().expect("an address");
        for _ in 0..140 {
            let mut stream = TcpStream::connect(address).expect("the socket takes it");
            stream.write_all(b"GET /health HTTP/1.1\r\nHost: loc").expect("sent");
            silent.push(stream);
        }
    }
    for verb in ["status", "versions"] {
        let told = Command::new(binary()).args([verb, "--run"]).arg(&run).output().expect("it can be run");
        assert!(told.status.success(), "{verb}: {}", String::from_utf8_lossy(&told.stderr));
    }
    node.signal("TERM");
    let (status, log) = node.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("Too many open files"), "{log}");
}
