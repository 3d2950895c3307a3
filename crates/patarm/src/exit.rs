//! Exit codes: a closed table, documented in `docs/exit-codes.md`.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;

use patarm_models::kernels::DeviceFault;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// Everything asked for was done.
    Ok = 0,
    /// Wrong arguments or an unusable recipe.
    Usage = 2,
    /// Bad input data.
    Data = 3,
    /// A model that cannot be used.
    Model = 4,
    /// A remote engine or a download failed.
    Remote = 5,
    /// Interrupted; a later run can go on.
    Interrupted = 6,
    /// The device asked for cannot be used, or its memory does not suffice.
    Device = 7,
    /// A bug, or the system failed in a way no other code names.
    Bug = 70,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// A failure whose exit code is known where it is made.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    code: Code,
    message: String,
}

/// A failure with a code.
pub(crate) fn failure(code: Code, message: impl Into<String>) -> anyhow::Error {
    Failure { code, message: message.into() }.into()
}

/// Runs what may use a device. Operations on a device return nothing, so that one that
/// fails unwinds with its fault; here it becomes an error.
pub(crate) fn without_faults<T>(run: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    // Nothing that the closure borrowed is looked at after a fault.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result,
        Err(payload) => match payload.downcast::<DeviceFault>() {
            Ok(fault) => Err(anyhow::Error::from(*fault)),
            Err(payload) => resume_unwind(payload),
        },
    }
}

/// Prints the failure and its causes once, and gives its exit code.
#[expect(clippy::print_stderr, reason = "the one place where failures are shown")]
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return Code::Ok.into();
    }
    let mut shown = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !shown.contains(&cause) {
            shown.push_str(": ");
            shown.push_str(&cause);
        }
    }
    eprintln!("patarm: {shown}");
    code_of(error).into()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The code of the outermost cause that has one.
fn code_of(error: &anyhow::Error) -> Code {
    error.chain().find_map(code_of_cause).unwrap_or(Code::Bug)
}

fn code_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Code> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(failure.code);
    }
    if let Some(error) = cause.downcast_ref::<patarm_train::Error>() {
        return Some(match error {
            patarm_train::Error::Recipe { .. } => Code::Usage,
            patarm_train::Error::Model(_) => Code::Model,
            patarm_train::Error::Remote(_) => Code::Remote,
            patarm_train::Error::Interrupted { .. } => Code::Interrupted,
            _ => Code::Data,
        });
    }
    if let Some(error) = cause.downcast_ref::<patarm_text::Error>() {
        return Some(match error.kind() {
            patarm_text::ErrorKind::Tokenizer | patarm_text::ErrorKind::Template => Code::Model,
            patarm_text::ErrorKind::Hub => Code::Remote,
            patarm_text::ErrorKind::Recipe => Code::Usage,
            _ => Code::Data,
        });
    }
    if cause.is::<DeviceFault>() {
        return Some(Code::Device);
    }
    let is_model = cause.is::<patarm_models::Error>() || cause.is::<patarm_files::Error>();
    if is_model {
        return Some(Code::Model);
    }
    if let Some(error) = cause.downcast_ref::<patarm_eval::Error>()
        && error.kind() == patarm_eval::ErrorKind::Interrupted
    {
        return Some(Code::Interrupted);
    }
    let is_data = cause.is::<patarm_text::dataset::ReadError>() || cause.is::<patarm_eval::Error>();
    if is_data || cause.is::<patarm_reward::Error>() || cause.is::<std::io::Error>() {
        return Some(Code::Data);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn other_panics_stay_panics() {
        let passed = without_faults(|| Ok(3)).expect("nothing failed");
        assert_eq!(passed, 3);
        let panicked = catch_unwind(|| {
            without_faults(|| -> anyhow::Result<()> { resume_unwind(Box::new("a bug")) })
        });
        assert!(panicked.is_err());
    }

    #[test]
    fn context_does_not_hide_the_code() {
        let error =
            Err::<(), _>(failure(Code::Remote, "no answer")).context("judging").expect_err("fails");
        assert_eq!(code_of(&error), Code::Remote);
        let error =
            anyhow::Error::from(patarm_train::Error::Interrupted { step: 3, path: "run".into() });
        assert_eq!(code_of(&error), Code::Interrupted);
        assert_eq!(code_of(&anyhow::anyhow!("what is this")), Code::Bug);
    }
}
