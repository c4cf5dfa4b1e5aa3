//! The bearer key. Compared in constant time; never logged.

use std::fmt;

use axum::http::{HeaderMap, header};
use serde::Deserialize;
use subtle::ConstantTimeEq;

/// A key that does not show itself.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key; `None` for an empty one.
    pub fn new(key: impl Into<String>) -> Option<Self> {
        Some(key.into()).filter(|key: &String| !key.is_empty()).map(Self)
    }

    /// Whether a request carries this key.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return false };
        let value = value.as_bytes();
        let Some((scheme, token)) = value.split_at_checked("bearer ".len()) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(token.trim_ascii().ct_eq(self.0.as_bytes()))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_exact_key_is_admitted() {
        let key = ApiKey::new("top-secret").expect("not empty");
        let admits = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).expect("visible characters"));
            key.admits(&headers)
        };
        assert!(admits("Bearer top-secret") && admits("bearer  top-secret "));
        for wrong in
            ["Bearer top-secre", "Bearer top-secret2", "Bearer", "Bearer ", "top-secret", "Basic top-secret"]
        {
            assert!(!admits(wrong), "{wrong}");
        }
        assert!(!key.admits(&HeaderMap::new()));
        assert_eq!(ApiKey::new(""), None);
        assert!(!format!("{key:?}").contains("secret"));
    }
}
