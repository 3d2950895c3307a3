//! stub
pub(super) fn run(_: &crate::cli::DataCommand, _: &crate::cli::Global) -> anyhow::Result<()> { Ok(()) }
