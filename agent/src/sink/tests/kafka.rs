//! Vectors to librdkafka's own mock cluster: each is delivered under its flow's key, or counted and told about.

use std::collections::HashMap;

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    mocking::MockCluster,
    producer::DefaultProducerContext,
};

use super::*;
use crate::sink::kafka::{KafkaSink, brokers};

const PARTITIONS: i32 = 4;

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> Cluster {
    let cluster = MockCluster::new(2).expect("a cluster");
    cluster.create_topic("features", PARTITIONS, 1).expect("a topic");
    cluster
}

fn remote(cluster: &Cluster) -> Remote {
    let url = format!("kafka://{}/features", cluster.bootstrap_servers());
    let target: Target = url.parse().expect("an output");
    target.remote().expect("servers").clone()
}

fn outputs(cluster: &Cluster, plan: &Plan, limit: Duration) -> Outputs {
    let remote = remote(cluster);
    let sink: MakeSink =
        Box::new(move |counts| Box::new(KafkaSink::new(&remote, Form::Json, counts, limit)));
    Outputs::over(plan, vec![sink]).expect("a thread")
}

/// A vector whose flow is one of seven.
fn push_of_flows(outputs: &mut Outputs, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let mut record = numbered(number);
        record.key.proto = 17;
        record.key.port_a = (number % 7) as u16;
        outputs.push(&record, &Context::new("eth0", 0));
        if outputs.pending() == BATCH {
            outputs.flush();
        }
    }
    outputs.flush();
}

/// Key, partition and payload of all messages.
fn received(cluster: &Cluster, count: usize) -> Vec<(String, i32, String)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "test")
        .create()
        .expect("a consumer");
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset("features", partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&all).expect("assigned");
    let mut messages = Vec::new();
    let text =
        |bytes: Option<&[u8]>| String::from_utf8(bytes.expect("bytes").to_vec()).expect("UTF-8");
    wait_until("all messages are there", || {
        while let Some(message) = consumer.poll(Duration::from_millis(50)) {
            let message = message.expect("a message");
            messages.push((text(message.key()), message.partition(), text(message.payload())));
        }
        messages.len() >= count
    });
    messages
}

#[test]
fn a_flows_vectors_meet_in_one_partition_in_order() {
    let cluster = cluster();
    let mut outputs = outputs(&cluster, &Plan::default(), Duration::from_mins(1));
    push_of_flows(&mut outputs, 0..3000);
    let report = end(&mut outputs, Duration::from_secs(20)).remove(0);
    assert!(matches!(report.ending, Ending::Complete) && report.totals.is_plain(), "{report:?}");
    let messages = received(&cluster, 3000);
    assert_eq!(messages.len(), 3000);
    let mut partitions: HashMap<String, i32> = HashMap::new();
    let mut last: HashMap<String, u64> = HashMap::new();
    for (key, partition, payload) in messages {
        let line: serde_json::Value = serde_json::from_str(&payload).expect("JSON");
        assert_eq!(line["community_id"], key);
        assert_eq!(*partitions.entry(key.clone()).or_insert(partition), partition, "{key}");
        let number = line["seq"].as_u64().expect("a number");
        assert!(last.insert(key, number).is_none_or(|before| before < number), "in order");
    }
    assert_eq!(partitions.len(), 7);
}

#[test]
fn what_no_broker_takes_in_time_is_lost_and_told() {
    let cluster = cluster();
    let mut outputs = outputs(&cluster, &Plan::default(), Duration::from_secs(1));
    push_of_flows(&mut outputs, 0..100);
    wait_until("the first are sent", || totals(&outputs).sent == 100);
    for broker in [1, 2] {
        cluster.broker_down(broker).expect("down");
    }
    push_of_flows(&mut outputs, 100..200);
    wait_until("they are lost", || totals(&outputs).dropped == 100);
    for broker in [1, 2] {
        cluster.broker_up(broker).expect("up");
    }
    push_of_flows(&mut outputs, 200..300);
    let report = end(&mut outputs, Duration::from_secs(20)).remove(0);
    let Totals { offered, sent, dropped, errors, reconnects, .. } = report.totals;
    assert_eq!((offered, sent, dropped), (300, 200, 100), "{report:?}");
    assert!(errors > 0 && reconnects > 0, "{report:?}");
    let lost: u64 = received(&cluster, 200).iter().map(|(_, _, line)| numbers(line)[0].1).sum();
    assert_eq!(lost, 100, "told");
}

#[test]
fn the_brokers_are_known() {
    let cluster = cluster();
    let found = brokers(&remote(&cluster)).expect("brokers");
    let mut found: Vec<String> = found.iter().map(ToString::to_string).collect();
    let mut expected: Vec<String> =
        cluster.bootstrap_servers().split(',').map(str::to_owned).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn brokers_that_are_slow_or_gone_hold_up_nobody() {
    let cluster = cluster();
    let remote = remote(&cluster);
    let scratch = Scratch::new("kafka");
    let file = PathBuf::from(scratch.path("x.jsonl"));
    let sinks: Vec<MakeSink> = vec![
        Box::new(move |counts| {
            Box::new(KafkaSink::new(&remote, Form::Json, counts, Duration::from_mins(1)))
        }),
        {
            let file = file.clone();
            Box::new(move |counts| {
                let rotation = Rotation::default();
                let sink = FileSink::append(&file, Form::Json, Vec::new(), counts, rotation);
                Box::new(sink.expect("a file"))
            })
        },
    ];
    let plan = Plan { queue: 200, on_full: Some(OnFull::DropOldest), ..Plan::default() };
    let mut outputs = Outputs::over(&plan, sinks).expect("threads");
    let of = |outputs: &Outputs, index| outputs.totals().nth(index).expect("two outputs").1;
    let mut made = 0;
    // A file is fast enough for 10,000 a second, and what Kafka's queue drops is Kafka's affair.
    let mut some = |outputs: &mut Outputs| {
        for _ in 0..20 {
            push_of_flows(outputs, made..made + 100);
            made += 100;
            wait_until("the file has it", || of(outputs, 1).queued() == 0);
            thread::sleep(Duration::from_millis(10));
        }
        made
    };
    let delay = |time| {
        for broker in [1, 2] {
            cluster.broker_round_trip_time(broker, time).expect("a delay");
        }
    };
    some(&mut outputs);
    wait_until("the first are sent", || of(&outputs, 0).queued() == 0);
    delay(Duration::from_millis(800));
    some(&mut outputs);
    let slow = of(&outputs, 0);
    assert!(slow.dropped > 0 && slow.errors == 0, "{slow}");
    delay(Duration::ZERO);
    for broker in [1, 2] {
        cluster.broker_down(broker).expect("down");
    }
    some(&mut outputs);
    let gone = of(&outputs, 0);
    assert!(gone.dropped > slow.dropped + 1000, "{gone}");
    for broker in [1, 2] {
        cluster.broker_up(broker).expect("up");
    }
    let made = some(&mut outputs);
    wait_until("all is out", || of(&outputs, 0).queued() == 0);
    push_of_flows(&mut outputs, made..made + 1);
    let reports = end(&mut outputs, Duration::from_secs(20));
    assert!(reports[1].totals.is_plain(), "{}", reports[1].totals);
    let text = fs::read_to_string(file).expect("the file");
    assert_eq!(assert_adds_up(&numbers(&text), made + 1), 0);
    let Totals { offered, sent, dropped, .. } = reports[0].totals;
    assert_eq!((offered, sent + dropped), (made + 1, made + 1));
    let messages = received(&cluster, sent as usize);
    let told: u64 = messages.iter().map(|(_, _, line)| numbers(line)[0].1).sum();
    assert_eq!((messages.len() as u64, told), (sent, dropped));
}
