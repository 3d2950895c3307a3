//! patarm-eval
