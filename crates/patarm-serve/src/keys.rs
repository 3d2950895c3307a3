//! Keys: read once, compared in constant time, never shown.

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::fault::{Fault, FaultCode};

/// The keys a request may carry, as digests: keys of any length take equally long.
pub(crate) struct Keys {
    digests: Vec<[u8; 32]>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("count", &self.digests.len()).finish()
    }
}

impl Keys {
    pub(crate) fn new(keys: &[String]) -> Self {
        Self { digests: keys.iter().map(|key| digest(key.as_bytes())).collect() }
    }

    /// Which client the request's key stands for; `None` where no keys are asked for.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<Option<u64>, Fault> {
        if self.digests.is_empty() {
            return Ok(None);
        }
        let given = digest(given(headers).unwrap_or_default());
        // Every key is compared, wherever a match is found.
        let mut found = None;
        for (index, own) in self.digests.iter().enumerate() {
            if bool::from(own.ct_eq(&given)) {
                found = Some(index as u64);
            }
        }
        found.map(Some).ok_or_else(|| Fault::plain(FaultCode::Unauthorized))
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A bearer token, or the header that some clients use instead.
fn given(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
    });
    bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes()))
}

/// Keys of a file: one a line, blank lines and lines that begin with `#` left out.
///
/// # Errors
/// When there is none, or one is shorter than 16 characters or not printable.
pub fn parse_keys(text: &str) -> Result<Vec<String>, String> {
    let lines = text.lines().map(str::trim).enumerate();
    let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let mut parsed = Vec::new();
    for (index, key) in keys {
        let is_printable = key.bytes().all(|byte| (0x21..0x7f).contains(&byte));
        if key.len() < 16 || !is_printable {
            return Err(format!(
                "line {}: a key has at least 16 printable characters and no blanks",
                index + 1
            ));
        }
        parsed.push(key.to_owned());
    }
    match parsed.is_empty() {
        true => Err("there is no key in it".into()),
        false => Ok(parsed),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn keys_open_and_nothing_else_does() {
        let keys = Keys::new(&["first-key-0123456789".into(), "second-key-012345678".into()]);
        let open = |name, value: &str| keys.check(&headers(name, value)).ok();
        assert_eq!(open("authorization", "Bearer first-key-0123456789"), Some(Some(0)));
        assert_eq!(open("authorization", "bearer second-key-012345678"), Some(Some(1)));
        assert_eq!(open("x-api-key", "second-key-012345678"), Some(Some(1)));
        assert_eq!(open("authorization", "first-key-0123456789"), None);
        assert_eq!(open("authorization", "Bearer first-key-012345678"), None);
        assert_eq!(open("authorization", "Bearer "), None);
        assert_eq!(keys.check(&HeaderMap::new()).unwrap_err().code, FaultCode::Unauthorized);
        assert_eq!(Keys::new(&[]).check(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn key_files() {
        let text = "# two keys\n\n  abcdefghijklmnop  \nqrstuvwxyz012345\n";
        assert_eq!(parse_keys(text).unwrap(), ["abcdefghijklmnop", "qrstuvwxyz012345"]);
        assert!(parse_keys("\n# none\n").is_err());
        assert!(parse_keys("short").unwrap_err().contains("line 1"));
        assert!(parse_keys("has a blank inside it").is_err());
    }

    #[test]
    fn keys_are_not_shown() {
        let shown = format!("{:?}", Keys::new(&["abcdefghijklmnop".into()]));
        assert!(!shown.contains("abc"));
    }
}
