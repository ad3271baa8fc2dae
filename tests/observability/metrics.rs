//! A recorder that keeps what it is told, under names as Prometheus writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder as Facade,
    SharedString, Unit,
};

type Values = Arc<Mutex<BTreeMap<String, f64>>>;

#[derive(Default)]
pub(crate) struct Recorder {
    values: Values,
    described: Mutex<BTreeSet<String>>,
}

struct Metric {
    name: String,
    values: Values,
}

impl Recorder {
    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.values.lock().unwrap().get(name).copied()
    }

    /// The sum over all labels.
    pub(crate) fn total(&self, name: &str) -> f64 {
        let values = self.values.lock().unwrap();
        values.iter().filter(|(key, _)| key.split('{').next() == Some(name)).map(|(_, value)| value).sum()
    }

    pub(crate) fn described(&self) -> Vec<String> {
        self.described.lock().unwrap().iter().cloned().collect()
    }

    pub(crate) fn text(&self) -> String {
        let values = self.values.lock().unwrap();
        values.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join("\n")
    }

    fn metric(&self, key: &Key) -> Arc<Metric> {
        let labels: Vec<_> =
            key.labels().map(|label| format!("{}=\"{}\"", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::new(Metric { name, values: Arc::clone(&self.values) })
    }

    fn describe(&self, key: &KeyName) {
        assert!(self.described.lock().unwrap().insert(key.as_str().to_owned()), "described twice");
    }
}

impl Metric {
    fn add(&self, value: f64) {
        *self.values.lock().unwrap().entry(self.name.clone()).or_default() += value;
    }
}

impl CounterFn for Metric {
    fn increment(&self, value: u64) {
        self.add(f64::from(u32::try_from(value).unwrap()));
    }

    fn absolute(&self, _: u64) {
        panic!("nothing here is counted elsewhere");
    }
}

impl HistogramFn for Metric {
    fn record(&self, value: f64) {
        assert!((0.0..60.0).contains(&value), "{value} seconds");
        self.add(value.max(f64::MIN_POSITIVE));
    }
}

impl Facade for Recorder {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        assert_eq!(unit, Some(Unit::Count));
        self.describe(&key);
    }

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
        panic!("there are no gauges");
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        assert_eq!(unit, Some(Unit::Seconds));
        self.describe(&key);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.metric(key))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        panic!("there are no gauges");
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.metric(key))
    }
}
