//! Who may speak to the policy. The bearer key is compared in constant time and never logged. Without a key the
//! gateway is open to this machine, and web pages in its browsers are kept out: they could train the policy.

use std::{fmt, net::IpAddr};

use axum::{
    extract::Request,
    http::{HeaderMap, Method, header},
};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::errors::ApiError;

/// A key that does not show itself.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key; `None` for an empty one.
    pub fn new(key: impl Into<String>) -> Option<Self> {
        Some(key.into()).filter(|key: &String| !key.is_empty()).map(Self)
    }

    /// Whether a request carries this key, as a bearer or, as Anthropic's clients do, in `x-api-key`.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let plain = headers.get("x-api-key").map(|value| value.as_bytes().trim_ascii());
        if plain.is_some_and(|key| bool::from(key.ct_eq(self.0.as_bytes()))) {
            return true;
        }
        let Some(value) = headers.get(header::AUTHORIZATION) else { return false };
        let value = value.as_bytes();
        let Some((scheme, token)) = value.split_at_checked("bearer ".len()) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(token.trim_ascii().ct_eq(self.0.as_bytes()))
    }
}

/// Why a request may not go on: it lacks the key where there is one, comes from a web page where there is none, or says
/// that its body is something else than JSON. Whether somebody serves is told to everyone.
pub fn refused(key: Option<&ApiKey>, origins: &[String], request: &Request) -> Option<ApiError> {
    let open = matches!(request.uri().path(), "/health" | "/healthz");
    let headers = request.headers();
    match key {
        Some(key) if !open && !key.admits(headers) => Some(ApiError::unauthorized()),
        None if to_foreign_name(headers) => Some(ApiError::foreign_name()),
        None if !open && from_foreign_page(headers, origins) => Some(ApiError::foreign_page()),
        _ if request.method() == Method::POST && is_not_json(headers) => {
            Some(ApiError::not_said_to_be_json())
        }
        _ => None,
    }
}

/// Whether a request was sent by a web page from elsewhere, and not from one of those `allowed`.
pub fn from_foreign_page(headers: &HeaderMap, allowed: &[String]) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let origin = origin.to_str().unwrap_or("null");
    if allowed.iter().any(|allowed| allowed == origin) {
        return false;
    }
    let Some(host) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else {
        // `null` is a page that hides where it is from; other schemes are desktop applications.
        return origin == "null";
    };
    let name = without_port(host);
    name != "localhost" && !name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a request was sent to a name that is not this machine's own. A web page whose name was made to lead here
/// (DNS rebinding) is of the same origin as what it asks, so its browser hands it every answer; it cannot hide the
/// name, and an address is no name.
pub fn to_foreign_name(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return false };
    let name = without_port(host.to_str().unwrap_or_default()).to_ascii_lowercase();
    let own = name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok();
    !own
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Whether a body is said to be something else than JSON. A web page may send forms and plain text anywhere without
/// asking; JSON it may not.
pub fn is_not_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        // Nothing is sent, or a body of nobody knows what.
        return headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
            || headers.contains_key(header::TRANSFER_ENCODING);
    };
    let kind =
        kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind != "application/json" && !(kind.starts_with("application/") && kind.ends_with("+json"))
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

    fn with(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn names_of_others_are_told_from_this_machines() {
        for host in
            ["evil.example", "evil.example:30000", "localhost.evil.example", "127.0.0.1.evil.example", ""]
        {
            assert!(to_foreign_name(&with(header::HOST, host)), "{host}");
        }
        for host in
            ["localhost", "LOCALHOST:30000", "a.localhost:1", "127.0.0.1:30000", "[::1]:30000", "10.0.0.7"]
        {
            assert!(!to_foreign_name(&with(header::HOST, host)), "{host}");
        }
        assert!(!to_foreign_name(&HeaderMap::new()), "no browser leaves it out");
    }

    #[test]
    fn json_is_told_from_what_a_page_may_send_unasked() {
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
        {
            assert!(is_not_json(&with(header::CONTENT_TYPE, kind)), "{kind}");
        }
        for kind in ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"] {
            assert!(!is_not_json(&with(header::CONTENT_TYPE, kind)), "{kind}");
        }
        assert!(is_not_json(&with(header::CONTENT_LENGTH, "12")));
        assert!(!is_not_json(&with(header::CONTENT_LENGTH, "0")) && !is_not_json(&HeaderMap::new()));
    }

    #[test]
    fn pages_from_elsewhere_are_told_from_those_of_this_machine() {
        let foreign = |origin: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            from_foreign_page(&headers, &["https://chat.example".to_owned()])
        };
        for origin in [
            "http://evil.example",
            "https://localhost.evil.example:80",
            "https://chat.example.evil",
            "null",
            "http://10.0.0.1",
        ] {
            assert!(foreign(origin), "{origin}");
        }
        for origin in [
            "http://localhost:3000",
            "http://127.0.0.1",
            "https://[::1]:8443",
            "app://desk",
            "https://chat.example",
        ] {
            assert!(!foreign(origin), "{origin}");
        }
        assert!(!from_foreign_page(&HeaderMap::new(), &[]));
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
        let plain = |value: &'static str| {
            HeaderMap::from_iter([(
                header::HeaderName::from_static("x-api-key"),
                HeaderValue::from_static(value),
            )])
        };
        assert!(
            key.admits(&plain("top-secret")) && !key.admits(&plain("top-secre")) && !key.admits(&plain(""))
        );
        assert_eq!(ApiKey::new(""), None);
        assert!(!format!("{key:?}").contains("secret"));
    }
}
