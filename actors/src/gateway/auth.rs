//! Who may speak to the policy. The bearer key is compared in constant time and never logged. Without a key the
//! gateway is open to this machine, and web pages in its browsers are kept out: they could train the policy.

use std::{fmt, net::IpAddr};

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

/// Whether a request was sent by a web page from elsewhere.
pub fn from_foreign_page(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let origin = origin.to_str().unwrap_or("null");
    let Some(host) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else {
        // `null` is a page that hides where it is from; other schemes are desktop applications.
        return origin == "null";
    };
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name != "localhost" && !name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
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
    fn pages_from_elsewhere_are_told_from_those_of_this_machine() {
        let foreign = |origin: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            from_foreign_page(&headers)
        };
        for origin in ["http://evil.example", "https://localhost.evil.example:80", "null", "http://10.0.0.1"]
        {
            assert!(foreign(origin), "{origin}");
        }
        for origin in ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:8443", "app://desk"] {
            assert!(!foreign(origin), "{origin}");
        }
        assert!(!from_foreign_page(&HeaderMap::new()));
    }

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
