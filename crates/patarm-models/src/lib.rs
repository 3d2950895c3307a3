//! patarm-models
