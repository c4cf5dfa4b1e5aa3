//! Stands between a client and a server and loses answers on purpose.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// What it has done.
pub struct Proxy {
    pub address: SocketAddr,
    pub passed: Arc<AtomicUsize>,
    pub lost: Arc<AtomicUsize>,
}

impl Proxy {
    /// Before `server`; it breaks the connection in place of every `nth` answer. 0 loses none.
    pub fn before(server: SocketAddr, nth: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (passed, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (passed.clone(), lost.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(server)) else { continue };
                let (asks, answers) = (both(&client), both(&server));
                thread::spawn(move || pump(asks.0, answers.0, || true));
                let (passed, lost) = counts.clone();
                thread::spawn(move || {
                    pump(answers.1, asks.1, || {
                        let number = passed.fetch_add(1, Ordering::SeqCst) + 1;
                        let lose = nth > 0 && number.is_multiple_of(nth);
                        if lose {
                            lost.fetch_add(1, Ordering::SeqCst);
                        }
                        !lose
                    });
                });
            }
        });
        Self { address, passed, lost }
    }
}

fn both(stream: &TcpStream) -> (TcpStream, TcpStream) {
    (stream.try_clone().expect("a descriptor"), stream.try_clone().expect("a descriptor"))
}

/// Until one of them ends, or a piece is not to pass.
fn pump(mut from: TcpStream, mut to: TcpStream, mut passes: impl FnMut() -> bool) {
    let mut piece = vec![0; 1 << 16];
    while let Ok(size) = from.read(&mut piece) {
        if size == 0 || !passes() || to.write_all(&piece[..size]).is_err() {
            break;
        }
    }
    // One of them may be closed already.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
