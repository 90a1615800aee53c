//! A socket that consumers connect to: each gets the vectors made from then on, through a queue of its own.

use std::{
    fs, io,
    io::ErrorKind,
    os::{
        fd::AsFd as _,
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use tracing::{debug, warn};

use super::{Counts, Form, Hand, LineStream, Patience, Sink, SinkError, outputs::Members, worker};
use crate::privilege;

/// Who may connect: the file's owner and group.
const MODE: u32 = 0o660;
/// Time before a connection is accepted again when that has failed: out of descriptors, most likely.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket and its file, which goes with it.
#[derive(Debug)]
pub(super) struct Listening {
    path: PathBuf,
    /// The file's device and inode: another that was put in its place is not ours to remove.
    file: (u64, u64),
    /// Its end wakes the thread that accepts.
    _running: io::PipeWriter,
}

impl Drop for Listening {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            // At the end nobody can do anything about it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What each new consumer gets.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) form: Form,
    pub(super) header: Vec<u8>,
}

/// Listens at `path`, and makes a member of `members` of whoever connects.
pub(super) fn listen(path: &Path, members: Arc<Members>, greeting: Greeting) -> Result<Listening> {
    let listener = bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))
        .with_context(|| format!("cannot let its group use {}", path.display()))?;
    listener.set_nonblocking(true).context("cannot wait for consumers")?;
    let file = identity(path).with_context(|| format!("{} is gone", path.display()))?;
    let (ended, running) = io::pipe().context("cannot make a pipe")?;
    let name = format!("unix:{}", path.display());
    thread::Builder::new()
        .name("listener".into())
        .spawn(move || {
            privilege::renounce();
            accept(&name, &listener, &ended, &members, &greeting);
        })
        .context("cannot start the thread that waits for consumers")?;
    Ok(Listening { path: path.to_owned(), file, _running: running })
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Binds, also where a process that was killed has left its socket.
fn bind(path: &Path) -> Result<UnixListener> {
    let shown = path.display();
    let bound = UnixListener::bind(path);
    let Err(error) = &bound else { return Ok(bound?) };
    if error.kind() == ErrorKind::AddrInUse {
        if !fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            bail!("cannot listen at {shown}: there is a file that is no socket");
        }
        match UnixStream::connect(path) {
            Ok(_) => bail!("cannot listen at {shown}: another process does"),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                fs::remove_file(path)
                    .with_context(|| format!("cannot remove the stale socket {shown}"))?;
            }
            Err(error) => bail!("cannot listen at {shown}: it is in use, and {error}"),
        }
        return UnixListener::bind(path).with_context(|| format!("cannot listen at {shown}"));
    }
    bound.with_context(|| format!("cannot listen at {shown}"))
}

fn accept(
    name: &str,
    listener: &UnixListener,
    ended: &io::PipeReader,
    members: &Arc<Members>,
    greeting: &Greeting,
) {
    loop {
        let mut states = [
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN),
        ];
        if poll(&mut states, None).is_ok() && !states[1].revents().is_empty() {
            return;
        }
        match listener.accept() {
            Ok((stream, _)) => {
                if let Err(error) = welcome(name, stream, members, greeting) {
                    warn!("{name}: a consumer could not be served: {error:#}");
                }
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => {
                members.counts().error();
                debug!("{name}: no consumer can connect: {error}");
                thread::sleep(PAUSE);
            }
        }
    }
}

fn welcome(
    name: &str,
    stream: UnixStream,
    members: &Arc<Members>,
    Greeting { form, header }: &Greeting,
) -> Result<()> {
    // A write that waits would not say how much of it is out.
    stream.set_nonblocking(true)?;
    let counts = Arc::clone(members.counts());
    let lines = LineStream::new(stream, *form, header.clone(), Arc::clone(&counts));
    let queue = members.join();
    counts.consumer_came();
    debug!("{name}: a consumer has connected");
    let sink = Box::new(Consumer { lines, counts });
    let started = worker::start(name.to_owned(), sink, Arc::clone(&queue), Patience::GiveUp);
    if started.is_err() {
        queue.end(Ok(()));
    }
    started
}

/// One that has connected. When it goes, that is that.
struct Consumer {
    lines: LineStream,
    counts: Arc<Counts>,
}

impl Sink for Consumer {
    fn write(&mut self, hand: &mut Hand) -> Result<(), SinkError> {
        self.lines.write(hand).map_err(|_| SinkError::Closed)
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.lines.end_line().map_err(|_| SinkError::Closed)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.counts.consumer_went();
    }
}
