//! The page at `/metrics`, in OpenMetrics' text.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeMetric as _, MetricEncoder, NoLabelSet,
        text::encode as encode_text,
    },
    metrics::MetricType,
    registry::{self, Registry},
};

use super::{
    definitions::{Kind, METRICS, Metric, PREFIX, SWEEP, Sample, Unit, Value},
    snapshot::{Board, Snapshot},
};

/// The metrics of what hangs at a board.
#[derive(Debug)]
pub(super) struct Page(Registry);

impl Page {
    pub(super) fn new(board: Board) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Metrics(board)));
        Self(registry)
    }

    /// The text; the build's own metrics alone before the first sweep.
    pub(super) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_text(&mut text, &self.0)?;
        Ok(text)
    }
}

#[derive(Debug)]
struct Metrics(Board);

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let (stem, help) = SWEEP;
        let sweeps = self.0.sweeps();
        let seconds = Some(&registry::Unit::Seconds);
        sweeps.encode(encoder.encode_descriptor(stem, help, seconds, sweeps.metric_type())?)?;
        let Some(snapshot) = self.0.latest() else { return Ok(()) };
        METRICS.iter().try_for_each(|metric| metric.encode(&snapshot, &mut encoder))
    }
}

impl Metric {
    fn encode(&self, snapshot: &Snapshot, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let unit = match self.unit {
            Unit::None => None,
            Unit::Bytes => Some(registry::Unit::Bytes),
            Unit::Seconds => Some(registry::Unit::Seconds),
        };
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Info => MetricType::Info,
        };
        let mut encoder = encoder.encode_descriptor(self.stem, self.help, unit.as_ref(), kind)?;
        for Sample { labels, value } in (self.samples)(snapshot) {
            match self.kind {
                Kind::Info => encoder.encode_info(&labels)?,
                // A set of no labels would be written as `{}`.
                _ if labels.is_empty() => self.encode_value(value, &mut encoder)?,
                _ => self.encode_value(value, &mut encoder.encode_family(&labels)?)?,
            }
        }
        Ok(())
    }

    fn encode_value(&self, value: Value, encoder: &mut MetricEncoder) -> fmt::Result {
        match (self.kind, value) {
            (Kind::Counter, Value::Integer(value)) => {
                encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
            }
            (Kind::Counter, Value::Real(value)) => {
                encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
            }
            (_, Value::Integer(value)) => encoder.encode_gauge(&value),
            (_, Value::Real(value)) => encoder.encode_gauge(&value),
        }
    }
}
