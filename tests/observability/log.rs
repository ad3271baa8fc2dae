//! A subscriber that keeps what it is told, as lines of text.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

#[derive(Clone)]
pub(crate) struct Log(Arc<Mutex<Vec<Line>>>, Level);

impl Default for Log {
    fn default() -> Self {
        Self::at(Level::TRACE)
    }
}

#[derive(Default)]
struct Line {
    text: String,
    message: String,
    event: Option<String>,
}

impl Log {
    /// Keeps lines of this level and above.
    pub(crate) fn at(level: Level) -> Self {
        Self(Arc::default(), level)
    }

    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap().iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// The names of the events.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|line| line.event.clone().expect("each has a name")).collect()
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "event" {
            self.event = Some(value.to_owned());
        }
        write!(self.text, " {}={value}", field.name()).unwrap();
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => write!(self.message, ": {value:?}").unwrap(),
            name => write!(self.text, " {name}={value:?}").unwrap(),
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "session" && *metadata.level() <= self.1
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line { text: event.metadata().level().to_string(), ..Line::default() };
        event.record(&mut line);
        line.text += &line.message;
        self.0.lock().unwrap().push(line);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
