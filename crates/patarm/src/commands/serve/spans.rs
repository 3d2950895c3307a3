//! Spans of requests for an OpenTelemetry collector (feature `opentelemetry`).
//!
//! The environment variables of the OpenTelemetry specification say where to; nothing
//! is sent unless one names a collector.

#[cfg(feature = "opentelemetry")]
pub(super) use collector::Exporter;
#[cfg(not(feature = "opentelemetry"))]
pub(super) use nobody::Exporter;

#[cfg(not(feature = "opentelemetry"))]
mod nobody {
    use tracing_subscriber::layer::Identity;

    /// Sends nothing.
    #[derive(Debug)]
    pub(in super::super) struct Exporter;

    impl Exporter {
        #[expect(clippy::unnecessary_wraps, reason = "the shape of the one that sends")]
        pub(in super::super) fn from_environment() -> anyhow::Result<Self> {
            Ok(Self)
        }

        #[expect(clippy::unused_self, reason = "the shape of the one that sends")]
        pub(in super::super) fn layer(&self) -> Option<Identity> {
            None
        }
    }
}

#[cfg(feature = "opentelemetry")]
mod collector {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
    use tracing_opentelemetry::OpenTelemetryLayer;
    use tracing_subscriber::registry::LookupSpan;

    use crate::exit::{Code, failure};

    /// Either names a collector (OpenTelemetry specification, "OTLP exporter
    /// configuration").
    const ENDPOINTS: [&str; 2] =
        ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
    const NAME: &str = "patarm";

    /// Sends spans in the background, over HTTP as JSON; what is left when it is dropped.
    #[derive(Debug)]
    pub(in super::super) struct Exporter(Option<SdkTracerProvider>);

    impl Exporter {
        /// # Errors
        /// When the address of the collector is none.
        pub(in super::super) fn from_environment() -> anyhow::Result<Self> {
            let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
            if !ENDPOINTS.into_iter().any(set) {
                return Ok(Self(None));
            }
            let exporter = SpanExporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpJson)
                .build()
                .map_err(|error| failure(Code::Usage, format!("{}: {error}", ENDPOINTS[0])))?;
            let resource = match set("OTEL_SERVICE_NAME") {
                true => Resource::builder().build(),
                false => Resource::builder().with_service_name(NAME).build(),
            };
            let provider = SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_resource(resource)
                .build();
            Ok(Self(Some(provider)))
        }

        /// What turns spans of the program into spans of the collector.
        pub(in super::super) fn layer<S>(&self) -> Option<OpenTelemetryLayer<S, SdkTracer>>
        where
            S: tracing::Subscriber + for<'a> LookupSpan<'a>,
        {
            let tracer = self.0.as_ref()?.tracer(NAME);
            Some(tracing_opentelemetry::layer().with_tracer(tracer))
        }
    }

    impl Drop for Exporter {
        fn drop(&mut self) {
            if let Some(Err(error)) = self.0.as_ref().map(SdkTracerProvider::shutdown) {
                tracing::warn!(%error, "the last spans were not sent");
            }
        }
    }
}
