//! One connection to a NATS server, from its beginning to its end: what fails is not tried again here.

use std::{
    collections::{HashMap, VecDeque},
    error::Error as _,
    future::pending,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use async_nats::{
    Client, ConnectOptions, Event, HeaderMap, ServerAddr, Subject, Subscriber,
    header::NATS_MESSAGE_ID,
    jetstream::{
        self, Context as JetStream, ErrorCode,
        context::{
            ContextBuilder, GetStreamByNameError, GetStreamByNameErrorKind, PublishAckFuture,
            RequestError, RequestErrorKind,
        },
        message::PublishMessage,
    },
};
use futures_util::StreamExt as _;
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    time::{Instant, timeout_at},
};
use tracing::debug;

use super::{AT_ONCE, Message, Remote};

/// How long the server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longer than any connection: the library is not to connect again on its own.
const NEVER: Duration = Duration::from_hours(24 * 365);

/// A connection, driven by whoever calls, while they call.
pub(super) struct Connection {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    talk: Talk,
}

/// What is said over a connection.
struct Talk {
    client: Client,
    jetstream: JetStream,
    /// Gets back what is sent to it: the server has then read everything before.
    echo: Subscriber,
    echo_subject: Subject,
    echoes: u64,
    /// Whether a stream keeps what goes to a subject.
    kept: HashMap<String, bool>,
    trouble: watch::Receiver<Trouble>,
    /// Errors that were expected.
    expected: u64,
}

/// What the server, or the network, has said out of turn.
#[derive(Clone, Debug, Default)]
struct Trouble {
    disconnected: bool,
    /// Errors after which the server goes on, and the last of them.
    errors: u64,
    last: String,
}

/// How a message was sent.
enum Sent {
    /// The stream that keeps it will say so.
    Stream(PublishAckFuture),
    /// No one keeps it: the server has it once it has answered what came behind it.
    Server,
    /// It was not.
    Not(anyhow::Error),
}

impl Connection {
    pub(super) fn open(remote: &Remote, tls: bool) -> Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let talk = runtime.block_on(Talk::begin(remote, tls))?;
        Ok(Self { runtime: Some(runtime), talk })
    }

    /// Sends the messages, and takes away those that the server has. Fails if there are others, or it does not answer.
    pub(super) fn deliver(&mut self, messages: &mut VecDeque<Message>) -> Result<()> {
        let Some(runtime) = &self.runtime else { bail!("the connection is closed") };
        runtime.block_on(self.talk.deliver(messages))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The look-up of a name may be under way, and takes its time.
            runtime.shutdown_background();
        }
    }
}

impl Talk {
    async fn begin(remote: &Remote, tls: bool) -> Result<Self> {
        let servers = remote
            .servers
            .iter()
            .map(|server| format!("nats://{server}").parse())
            .collect::<io::Result<Vec<ServerAddr>>>()?;
        let (report, trouble) = watch::channel(Trouble::default());
        let connected = Arc::new(AtomicBool::new(false));
        let client = options(remote, tls, report, Arc::clone(&connected))
            .connect(servers)
            .await
            .map_err(|error| anyhow!("cannot connect: {error}"))?;
        connected.store(true, Ordering::Relaxed);
        let echo_subject = Subject::from(client.new_inbox());
        let echo = client.subscribe(echo_subject.clone()).await?;
        let jetstream = ContextBuilder::new()
            .timeout(PATIENCE)
            .max_ack_inflight(2 * AT_ONCE)
            .build(client.clone());
        let kept = HashMap::new();
        Ok(Self { client, jetstream, echo, echo_subject, echoes: 0, kept, trouble, expected: 0 })
    }

    async fn deliver(&mut self, messages: &mut VecDeque<Message>) -> Result<()> {
        let mut sent = Vec::with_capacity(messages.len());
        for message in messages.iter_mut() {
            sent.push(self.send(message).await?);
        }
        let deadline = Instant::now() + PATIENCE;
        if sent.is_empty() {
            return self.ask(deadline).await;
        }
        let mut fault = None;
        let mut read = false;
        if sent.iter().any(|sent| matches!(sent, Sent::Server)) {
            let echoed = self.echo(deadline).await;
            read = echoed.is_ok();
            fault = echoed.err();
        }
        let mut left = VecDeque::new();
        for (message, sent) in messages.drain(..).zip(sent) {
            let taken = match sent {
                Sent::Server => read,
                Sent::Not(error) => {
                    fault.get_or_insert(error);
                    false
                }
                Sent::Stream(answer) => match self.stream_says(deadline, answer).await {
                    Ok(()) => true,
                    Err(error) => {
                        let context = format!("the stream of {} did not take it", message.subject);
                        fault.get_or_insert(error.context(context));
                        false
                    }
                },
            };
            if !taken {
                left.push_back(message);
            }
        }
        *messages = left;
        fault.map_or(Ok(()), Err)
    }

    async fn stream_says(&self, deadline: Instant, answer: PublishAckFuture) -> Result<()> {
        self.within(deadline, answer).await?.map_err(|error| anyhow!("{error}"))?;
        Ok(())
    }

    /// Asks whether the server is there, by what it has answered before.
    async fn ask(&mut self, deadline: Instant) -> Result<()> {
        let Some(subject) = self.kept.iter().find_map(|(subject, kept)| kept.then_some(subject))
        else {
            return self.echo(deadline).await;
        };
        let asked = self.jetstream.stream_by_subject(subject.as_str());
        self.within(deadline, asked).await?.map_err(|error| anyhow!("{error}"))?;
        Ok(())
    }

    async fn send(&mut self, message: &mut Message) -> Result<Sent> {
        let subject = message.subject.clone();
        let kept = self.is_kept(&subject).await?;
        message.attempts += 1;
        let deadline = Instant::now() + PATIENCE;
        if kept {
            let publish =
                PublishMessage::build().message_id(&message.id).payload(message.payload.clone());
            let sent = self.jetstream.send_publish(subject, publish);
            let sent = self.within(deadline, sent).await?;
            return Ok(sent.map_or_else(|error| Sent::Not(error.into()), Sent::Stream));
        }
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, message.id.as_str());
        let sent = self.client.publish_with_headers(subject, headers, message.payload.clone());
        let sent = self.within(deadline, sent).await?;
        Ok(sent.map_or_else(|error| Sent::Not(error.into()), |()| Sent::Server))
    }

    /// Whether a stream keeps what goes to `subject`; the server is asked once.
    async fn is_kept(&mut self, subject: &Subject) -> Result<bool> {
        if let Some(kept) = self.kept.get(subject.as_str()) {
            return Ok(*kept);
        }
        let mut trouble = self.trouble.clone();
        let expected = self.expected;
        let asked = self.jetstream.stream_by_subject(subject.as_str());
        let kept = tokio::select! {
            biased;
            answer = self.within(Instant::now() + PATIENCE, asked) => match answer {
                Ok(Ok(_)) => Ok(true),
                Ok(Err(error)) if says_no(&error) => Ok(false),
                Ok(Err(error)) => Err(anyhow!("{error}")),
                Err(error) => Err(error),
            },
            // One who may not ask gets no answer, and an error beside.
            said = trouble.wait_for(|trouble| trouble.errors > expected) => match said {
                Ok(said) => {
                    debug!("{subject} is taken for one that no stream keeps: {}", said.last);
                    self.expected = said.errors;
                    Ok(false)
                }
                Err(_) => Err(anyhow!("the connection is closed")),
            },
        };
        let kept = kept.with_context(|| format!("cannot tell whether a stream keeps {subject}"))?;
        self.kept.insert(subject.to_string(), kept);
        Ok(kept)
    }

    /// Waits until the server has read all that was sent.
    async fn echo(&mut self, deadline: Instant) -> Result<()> {
        self.echoes += 1;
        let payload = self.echoes.to_string();
        let subject = self.echo_subject.clone();
        let client = self.client.clone();
        self.within(deadline, client.publish(subject, payload.clone().into())).await??;
        loop {
            let next = within(&mut self.trouble.clone(), deadline, self.echo.next()).await?;
            let Some(message) = next else { bail!("the connection is closed") };
            if message.payload == payload.as_bytes() {
                break;
            }
        }
        // What the server had to say before it answered is told by a task of its own, which now has its turn.
        tokio::task::yield_now().await;
        let trouble = self.trouble.borrow();
        if trouble.errors > self.expected {
            bail!("the server says: {}", trouble.last);
        }
        Ok(())
    }

    async fn within<T>(&self, deadline: Instant, work: impl IntoFuture<Output = T>) -> Result<T> {
        within(&mut self.trouble.clone(), deadline, work).await
    }
}

/// Waits until `deadline`, or until the connection is lost.
async fn within<T>(
    trouble: &mut watch::Receiver<Trouble>,
    deadline: Instant,
    work: impl IntoFuture<Output = T>,
) -> Result<T> {
    tokio::select! {
        biased;
        done = timeout_at(deadline, work) => done.map_err(|_| anyhow!("no answer for {PATIENCE:?}")),
        () = lost(trouble) => bail!("the connection was lost"),
    }
}

async fn lost(trouble: &mut watch::Receiver<Trouble>) {
    if trouble.wait_for(|trouble| trouble.disconnected).await.is_err() {
        pending::<()>().await;
    }
}

/// Whether the answer is that there is no stream, or nobody who would know of any.
fn says_no(error: &GetStreamByNameError) -> bool {
    if error.kind() == GetStreamByNameErrorKind::NotFound {
        return true;
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        let no_jetstream = error
            .downcast_ref()
            .is_some_and(|error: &RequestError| error.kind() == RequestErrorKind::NoResponders)
            || error.downcast_ref().is_some_and(|error: &jetstream::Error| {
                let code = error.error_code();
                code == ErrorCode::JETSTREAM_NOT_ENABLED
                    || code == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
            });
        if no_jetstream {
            return true;
        }
        cause = error.source();
    }
    false
}

fn options(
    remote: &Remote,
    tls: bool,
    report: watch::Sender<Trouble>,
    connected: Arc<AtomicBool>,
) -> ConnectOptions {
    let options = ConnectOptions::new()
        .name("feature-agent")
        .require_tls(tls)
        .connection_timeout(PATIENCE)
        .request_timeout(Some(PATIENCE))
        // The agent's own stream is left out of the flows by the addresses of the servers that it was told.
        .ignore_discovered_servers()
        .reconnect_delay_callback(move |_| {
            if connected.load(Ordering::Relaxed) { NEVER } else { Duration::ZERO }
        })
        .event_callback(move |event| {
            report.send_modify(|trouble| match event {
                Event::Disconnected | Event::Closed => trouble.disconnected = true,
                Event::ServerError(error) => {
                    trouble.errors += 1;
                    trouble.last = error.to_string();
                }
                _ => {}
            });
            async {}
        });
    match &remote.login {
        None => options,
        Some(login) => match &login.password {
            Some(password) => options.user_and_password(login.user.clone(), password.clone()),
            None => options.token(login.user.clone()),
        },
    }
}
