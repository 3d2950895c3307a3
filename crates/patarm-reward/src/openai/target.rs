//! The address of a remote model: `openai:BASE_URL#MODEL`.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// A model on a server that speaks the OpenAI chat protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OpenAiTarget {
    /// Address up to, not including, `/chat/completions`; no slash at its end.
    pub base_url: String,
    /// The model's name on the server.
    pub model: String,
}

impl OpenAiTarget {
    /// Whether a model name is meant as a remote address.
    #[must_use]
    pub fn is_remote(name: &str) -> bool {
        name.starts_with("openai:")
    }

    /// Reads `openai:BASE_URL#MODEL`.
    ///
    /// # Errors
    /// When the address is not of that form, or its scheme is neither http nor https.
    pub fn parse(name: &str) -> Result<Self> {
        let wrong = |what: &str| {
            let message = format!("{what}: write openai:http://HOST:PORT/v1#MODEL");
            Error::new(ErrorKind::Engine, message)
        };
        let address = name.strip_prefix("openai:").ok_or_else(|| wrong("no remote model"))?;
        let (base, model) = address.split_once('#').ok_or_else(|| wrong("no #MODEL"))?;
        let base = base.trim_end_matches('/');
        let host = ["http://", "https://"].iter().find_map(|scheme| base.strip_prefix(scheme));
        let host = host.ok_or_else(|| wrong("no http:// or https:// address"))?;
        let has_user = host.split('/').next().is_some_and(|authority| authority.contains('@'));
        let printable = |text: &str| text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
        if host.is_empty() || host.starts_with('/') || !printable(base) {
            return Err(wrong("the address has no host, or blanks"));
        }
        if has_user || base.contains('?') {
            return Err(wrong("the address holds a user name or a query"));
        }
        if model.is_empty() || model.chars().any(char::is_control) {
            return Err(wrong("the model has no name"));
        }
        Ok(Self { base_url: base.to_owned(), model: model.to_owned() })
    }

    pub(super) fn chat_completions_url(&self) -> String {
        format!("{}/chat/completions", self.base_url)
    }
}

impl fmt::Display for OpenAiTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "openai:{}#{}", self.base_url, self.model)
    }
}

#[cfg(test)]
mod tests {
    use super::OpenAiTarget;

    #[test]
    fn addresses() {
        let target = OpenAiTarget::parse("openai:http://localhost:8000/v1/#org/model").unwrap();
        assert_eq!(target.base_url, "http://localhost:8000/v1");
        assert_eq!(target.model, "org/model");
        assert_eq!(target.chat_completions_url(), "http://localhost:8000/v1/chat/completions");
        assert_eq!(target.to_string(), "openai:http://localhost:8000/v1#org/model");
        assert!(OpenAiTarget::is_remote("openai:x") && !OpenAiTarget::is_remote("gpt"));
        for wrong in [
            "http://localhost#m",
            "openai:http://localhost",
            "openai:localhost:8000#m",
            "openai:ftp://x#m",
            "openai:http://#m",
            "openai:http:///v1#m",
            "openai:http://x y#m",
            "openai:http://user:key@x/v1#m",
            "openai:http://x/v1?k=1#m",
            "openai:http://x#",
        ] {
            let error = OpenAiTarget::parse(wrong).unwrap_err().to_string();
            assert!(error.contains("write openai:"), "{wrong}: {error}");
        }
    }
}
