//! Messages to librdkafka's own mock cluster.

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    mocking::MockCluster,
};

use feature_agent_tests::vectors::number_and_lost;

use super::*;

const TOPIC: &str = "features";
const PARTITIONS: i32 = 8;
/// Vectors that the consumer may be behind: the cluster keeps 5 MiB of a partition.
const FAR_BEHIND: u64 = 8_000;
/// After this long without a message there is none.
const SILENCE: Duration = Duration::from_secs(5);

/// Partitions have no common order: what came, by its number.
#[derive(Default)]
struct Unordered {
    came: Vec<bool>,
    tally: Tally,
}

impl Unordered {
    fn line(&mut self, line: &[u8]) {
        let (number, lost) = number_and_lost(line);
        let place = usize::try_from(number).expect("small");
        if self.came.len() <= place {
            self.came.resize(place + 1, false);
        }
        assert!(!std::mem::replace(&mut self.came[place], true), "{number} came twice");
        self.tally.received += 1;
        self.tally.told += lost;
        self.tally.next = self.came.len() as u64;
    }
}

/// One that reads every partition from its beginning.
fn subscriber(servers: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "endurance")
        .create()
        .expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(TOPIC, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&all).expect("assigned");
    consumer
}

fn through_kafka(name: &str, pace: Pace) {
    let cluster = MockCluster::new(2).expect("a cluster");
    cluster.create_topic(TOPIC, PARTITIONS, 1).expect("a topic");
    let url = format!("kafka://{}/{TOPIC}", cluster.bootstrap_servers());
    // A flood is to fill the queue before the consumer is waited for.
    let plan = Plan { queue: 2_000, ..plan(&url, pace) };
    let outputs = Outputs::start(&plan).expect("an output");
    let subscriber = subscriber(&cluster.bootstrap_servers());
    let mut consumer = Consumer::start(move |received, ended| {
        let mut unordered = Unordered::default();
        loop {
            let is_over = ended.load(Ordering::Acquire);
            if let Some(message) = subscriber.poll(SILENCE) {
                unordered.line(message.expect("a message").payload().expect("a line"));
                received.store(unordered.tally.received, Ordering::Relaxed);
            } else if is_over {
                return unordered.tally;
            }
        }
    });
    consumer.leash = FAR_BEHIND;
    endure(name, outputs, pace, consumer);
}

#[test]
fn a_kafka_cluster() {
    through_kafka("kafka, waited for", Pace::Patient);
    through_kafka("kafka, flooded", Pace::Flood);
}
