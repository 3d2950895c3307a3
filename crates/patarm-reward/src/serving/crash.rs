//! What an engine that unwound says of itself.

use std::any::Any;

use patarm_models::kernels::{DeviceFault, FaultKind};

/// Why a step of an engine unwound. An engine may unwind with this as the payload; of any
/// other payload it is made by [`Crash::of`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// The reason, in a sentence; for the log, not for clients.
    pub message: String,
    /// Whether an engine made anew would fail as well.
    pub lasting: bool,
}

impl Crash {
    /// What the payload of a panic or of [`std::panic::resume_unwind`] says.
    #[must_use]
    pub fn of(payload: &(dyn Any + Send)) -> Self {
        if let Some(crash) = payload.downcast_ref::<Self>() {
            return crash.clone();
        }
        if let Some(fault) = payload.downcast_ref::<DeviceFault>() {
            // What a device refuses it refuses for the rest of the process; memory comes back.
            let lasting = fault.kind() != FaultKind::OutOfMemory;
            return Self { message: fault.to_string(), lasting };
        }
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self { message: text.unwrap_or("no message").into(), lasting: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_device_that_refuses_is_lost() {
        let fault = |kind| DeviceFault::new(kind, "cuMemAlloc failed");
        assert!(Crash::of(&fault(FaultKind::Device)).lasting);
        assert!(Crash::of(&fault(FaultKind::Missing)).lasting);
        assert!(!Crash::of(&fault(FaultKind::OutOfMemory)).lasting);
        assert_eq!(Crash::of(&fault(FaultKind::OutOfMemory)).message, "cuMemAlloc failed");
    }

    #[test]
    fn a_panic_is_known_by_its_message() {
        let plain = |message: &str| Crash { message: message.into(), lasting: false };
        assert_eq!(Crash::of(&"index 3"), plain("index 3"));
        assert_eq!(Crash::of(&String::from("index 4")), plain("index 4"));
        assert_eq!(Crash::of(&7_u8), plain("no message"));
        let own = Crash { message: "gone".into(), lasting: true };
        assert_eq!(Crash::of(&own), own);
    }
}
