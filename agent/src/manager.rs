//! systemd, if it started this process: told when the agent is ready, and that it lives (sd_notify(3)).

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tracing::debug;

/// Time between two status texts.
const STATUS: Duration = Duration::from_secs(10);
/// A watchdog that is shorter than so many polls would take an idle main loop for a dead one.
const POLLS: u32 = 4;

/// The service manager, or nobody.
#[derive(Debug)]
pub struct Manager {
    /// Never waited for: a manager that does not read misses what it is told.
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Time after which it takes a silent process for dead.
    watchdog: Option<Duration>,
    /// What it set itself.
    asked: Option<Duration>,
    said: Instant,
}

impl Manager {
    /// As the environment has it: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`. The agent says that it lives
    /// after a sweep, thus once a `poll`.
    pub fn new(poll: Duration) -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let opened = open(name.as_bytes());
            opened.map_err(|error| debug!("cannot reach the service manager: {error}")).ok()
        });
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let asked = number("WATCHDOG_USEC").filter(|_| ours).map(Duration::from_micros);
        let mut manager = Self { socket, watchdog: None, asked, said: Instant::now() };
        manager.expect_every(poll);
        manager
    }

    /// The time between two sweeps is another: the watchdog gets longer where it must.
    pub fn expect_every(&mut self, poll: Duration) {
        let watchdog = self.asked.map(|asked| asked.max(poll.saturating_mul(POLLS)));
        if watchdog != self.watchdog.or(self.asked) {
            let micros = watchdog.unwrap_or_default().as_micros();
            self.tell(&format!("WATCHDOG_USEC={micros}"));
        }
        self.watchdog = watchdog;
    }

    /// The agent checked itself, is attached, and runs.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// Settings are read anew; [`Manager::ready`] ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!(
            "RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading the settings anew"
        ));
    }

    /// The agent lets out what it has.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=letting out the last vectors");
    }

    /// Whether it is time to say [`Manager::alive`].
    pub fn is_due(&self) -> bool {
        let often = self.watchdog.map_or(STATUS, |watchdog| STATUS.min(watchdog / 4));
        self.socket.is_some() && self.said.elapsed() >= often
    }

    /// The main loop goes round: to be said by it alone, after a sweep.
    pub fn alive(&mut self, status: &str) {
        self.said = Instant::now();
        self.tell(&format!("WATCHDOG=1\nSTATUS={status}"));
    }

    fn tell(&self, state: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            debug!("the service manager does not hear: {error}");
        }
    }
}

/// A path, or a name in the abstract namespace behind an `@`.
fn open(name: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}
