//! patarm-files
