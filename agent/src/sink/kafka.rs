//! Vectors as messages to Kafka, by the flow's community id: both ends' views of a flow meet in one partition.
//!
//! librdkafka keeps the connections, and sends again what a broker did not take. Its delivery reports decide what was
//! sent and what is lost.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use agent_common::features::CommunityId;
use anyhow::{Context as _, Result, anyhow};
use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};

use super::{Counts, Form, Hand, Remote, Server, Sink, SinkError, remote::Names};

/// Vectors sent before their reports are waited for.
const AT_ONCE: usize = 1024;
/// How long the brokers may take for an answer before there is anything to send.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time between two looks at what the library has to say.
const SILENCE: Duration = Duration::from_secs(10);

/// A sink that sends messages.
pub(super) struct KafkaSink {
    config: ClientConfig,
    form: Form,
    names: Names,
    counts: Arc<Counts>,
    producer: Option<BaseProducer<Reports>>,
    /// Vectors lost since the last one that was taken.
    untold: u64,
    looked: Instant,
}

/// A message's number, and why it was not delivered, if it was not.
type Report = (usize, Option<KafkaError>);

/// Delivery reports that nobody has looked at.
#[derive(Default)]
struct Reports(Mutex<Vec<Report>>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let error = result.as_ref().err().map(|(error, _)| error.clone());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((number, error));
    }
}

impl Reports {
    fn take(&self) -> Vec<Report> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl KafkaSink {
    /// A vector that the brokers do not take within `limit` is lost.
    pub(super) fn new(remote: &Remote, form: Form, counts: Arc<Counts>, limit: Duration) -> Self {
        let mut config = config(remote);
        // Sent again inside of the library without coming twice, or in another order.
        config.set("enable.idempotence", "true");
        config.set("message.timeout.ms", limit.as_millis().to_string());
        let names = remote.names();
        let looked = Instant::now();
        Self { config, form, names, counts, producer: None, untold: 0, looked }
    }

    /// Sends the vectors in hand; returns what each tells as lost before it, and those that were refused at once.
    fn send(&mut self, hand: &mut Hand) -> Result<(Vec<u64>, Vec<Report>)> {
        let Self { producer, names, form, untold, .. } = self;
        let producer = producer.as_ref().context("not connected")?;
        hand.lost_before(0, std::mem::take(untold));
        let (mut told, mut refused) = (Vec::new(), Vec::new());
        while let Some(portion) = hand.first() {
            for index in 0..portion.len() {
                let row = portion.row(index);
                let id = row.map(|row| CommunityId::of(&row.record.key));
                let line = portion.line(*form, index);
                let mut record =
                    BaseRecord::with_opaque_to(names.of(row.map(|row| &row.iface)), told.len())
                        .key(id.as_ref().map_or("", CommunityId::as_str))
                        .payload(line.trim_ascii_end());
                while let Err((error, again)) = producer.send(record) {
                    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                        refused.push((told.len(), Some(error)));
                        break;
                    }
                    producer.poll(Duration::from_millis(10));
                    record = again;
                }
                told.push(if index == 0 { portion.lost } else { 0 });
            }
            let vectors = portion.len();
            hand.taken(vectors);
        }
        Ok((told, refused))
    }
}

impl Sink for KafkaSink {
    fn is_open(&self) -> bool {
        self.producer.is_some()
    }

    fn open(&mut self) -> Result<(), SinkError> {
        let producer: BaseProducer<Reports> = self
            .config
            .create_with_context(Reports::default())
            .context("cannot make a producer")?;
        if producer.client().fetch_cluster_id(PATIENCE).is_none() {
            return Err(anyhow!("no broker has answered for {PATIENCE:?}").into());
        }
        self.producer = Some(producer);
        Ok(())
    }

    fn write(&mut self, hand: &mut Hand) -> Result<(), SinkError> {
        let (told, mut reports) = self.send(hand)?;
        let Some(producer) = &self.producer else { return Ok(()) };
        // The library reports on every message, at the latest when its time is up.
        while reports.len() < told.len() {
            producer.poll(Duration::from_millis(100));
            reports.extend(producer.context().take());
        }
        self.looked = Instant::now();
        let failed = reports.into_iter().filter_map(|(number, error)| Some((number, error?)));
        let mut first = None;
        let mut lost = 0;
        for (number, error) in failed {
            lost += 1;
            self.untold += 1 + told[number];
            first.get_or_insert(error);
        }
        self.counts.send(told.len() - lost);
        self.counts.lose(lost);
        let Some(error) = first else { return Ok(()) };
        // After some errors a producer is of no use any more.
        self.producer = None;
        Err(anyhow!("{lost} vectors were not delivered, and are lost: {error}").into())
    }

    fn at_once(&self) -> usize {
        AT_ONCE
    }

    fn wakes_at(&self) -> Option<Instant> {
        Some(self.looked + SILENCE)
    }

    fn idle(&mut self) -> Result<(), SinkError> {
        self.looked = Instant::now();
        if let Some(producer) = &self.producer {
            producer.poll(Duration::ZERO);
        }
        Ok(())
    }
}

/// The brokers of a cluster, which the servers that were named know of.
pub(super) fn brokers(remote: &Remote) -> Result<Vec<Server>> {
    let producer: BaseProducer = config(remote).create()?;
    let known = producer.client().fetch_metadata(None, PATIENCE)?;
    let server = |broker: &rdkafka::metadata::MetadataBroker| {
        let port = u16::try_from(broker.port()).context("a broker's port is none")?;
        Ok(Server { host: broker.host().to_owned(), port })
    };
    known.brokers().iter().map(server).collect()
}

fn config(remote: &Remote) -> ClientConfig {
    let servers: Vec<String> = remote.servers.iter().map(ToString::to_string).collect();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers.join(",")).set("client.id", "feature-agent");
    if let Some(login) = &remote.login {
        config.set("security.protocol", "sasl_plaintext").set("sasl.mechanism", "PLAIN");
        config.set("sasl.username", &login.user);
        config.set("sasl.password", login.password.as_deref().unwrap_or_default());
    }
    config
}
