//! A door between the agent and a server: it can be shut, and walled up.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

const OPEN: u8 = 0;
const HELD: u8 = 1;
const SHUT: u8 = 2;
const SLOW: u8 = 3;
/// How long it takes to pass on a buffer while it is slow: 800 kB/s.
const SLOWLY: Duration = Duration::from_millis(20);

/// Passes connections on to a server.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    state: Arc<AtomicU8>,
    passing: Arc<Mutex<Vec<TcpStream>>>,
}

impl Gate {
    /// In front of a server.
    pub fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (state, passing) = (Arc::new(AtomicU8::new(OPEN)), Arc::default());
        let gate = Self { address, state, passing };
        let (state, passing) = (Arc::clone(&gate.state), Arc::clone(&gate.passing));
        let server = server.to_owned();
        // It ends with the process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(io::Result::ok) {
                if state.load(Ordering::Acquire) == SHUT {
                    continue;
                }
                if let Ok(server) = TcpStream::connect(&server) {
                    pass(&state, &passing, &client, &server);
                    pass(&state, &passing, &server, &client);
                }
            }
        });
        gate
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets pass.
    pub fn open(&self) {
        self.state.store(OPEN, Ordering::Release);
    }

    /// Connections stay, and nothing passes.
    pub fn hold(&self) {
        self.state.store(HELD, Ordering::Release);
    }

    /// Lets pass, slowly.
    pub fn slow(&self) {
        self.state.store(SLOW, Ordering::Release);
    }

    /// Cuts every connection, and lets none in.
    pub fn shut(&self) {
        self.state.store(SHUT, Ordering::Release);
        for stream in self.passing.lock().expect("no one panics").drain(..) {
            // It may be over already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pass(state: &Arc<AtomicU8>, passing: &Mutex<Vec<TcpStream>>, from: &TcpStream, to: &TcpStream) {
    let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
    passing.lock().expect("no one panics").push(copy(from));
    let (mut from, mut to, state) = (copy(from), copy(to), Arc::clone(state));
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 14];
        while let Ok(count) = from.read(&mut buffer)
            && count > 0
        {
            while state.load(Ordering::Acquire) == HELD {
                thread::sleep(Duration::from_millis(1));
            }
            if state.load(Ordering::Acquire) == SLOW {
                thread::sleep(SLOWLY);
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        // The other side may be over already.
        let _ = to.shutdown(Shutdown::Both);
    });
}
