//! The log of what goes through a connection. By itself: what is logged is remembered for all threads of a process.

use std::io;

use tulipa_protocols::{Detached, Protocol, TrafficLog, Transport};

struct Silent;

impl Protocol for Silent {
    fn data_received(&mut self, _: &Transport, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_traffic_of_a_connection_is_logged() {
    let capture = Capture::default();
    let lines = capture.0.clone();
    tracing::subscriber::with_default(capture, || {
        let mut connection = Detached::new(TrafficLog::new(Silent, "silent"));
        connection.feed(b"hello\n");
        connection.transport().write(b"bye");
        connection.transport().close();
        connection.run();
    });
    let lines = lines.lock().unwrap().join("\n");
    for part in ["connected", "received", "bytes=6", r"data=hello\n", "sent", "data=bye"] {
        assert!(lines.contains(part), "{part} in {lines}");
    }
    assert!(lines.contains("disconnected") && lines.contains("received=6 sent=3"), "{lines}");
}

#[derive(Clone, Default)]
struct Capture(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

struct Text(String);

impl tracing::field::Visit for Text {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!("{}={value:?} ", field.name());
    }
}

impl tracing::Subscriber for Capture {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "tulipa::traffic"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
