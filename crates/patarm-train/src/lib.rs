//! patarm-train
