//! Web pages from elsewhere that may use the API, as browsers ask for it.

use axum::http::{HeaderName, HeaderValue};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

/// Headers of an answer that a page may read.
const EXPOSED: [&str; 5] =
    ["x-session-id", "x-policy-version", "x-request-id", "x-parts-not-shown", "retry-after"];

/// Lets pages of these origins in; none are let in by an empty list. With `*` anybody's page could speak for the user,
/// so that a key is needed.
pub fn layer(origins: &[String], has_key: bool) -> Result<Option<CorsLayer>, &'static str> {
    if origins.is_empty() {
        return Ok(None);
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        if !has_key {
            return Err("lets in every web page, which needs an api_key");
        }
        AllowOrigin::any()
    } else {
        let is_origin = |origin: &&String| {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_some_and(|host| !host.is_empty() && !host.contains('/'))
        };
        if !origins.iter().all(|origin| is_origin(&origin)) {
            return Err("has an entry that is no origin, such as https://chat.example");
        }
        let values = origins.iter().map(|origin| HeaderValue::from_str(origin));
        let values: Result<Vec<_>, _> = values.collect();
        AllowOrigin::list(values.map_err(|_| "has an entry that no header can carry")?)
    };
    let cors = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED.map(HeaderName::from_static));
    Ok(Some(cors))
}

/// What is wrong with a list of origins.
pub fn check(origins: &[String], has_key: bool) -> Result<(), &'static str> {
    layer(origins, has_key).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_origin_is_refused() {
        let of = |origins: &[&str], has_key| {
            layer(&origins.iter().map(|origin| (*origin).to_owned()).collect::<Vec<_>>(), has_key)
        };
        assert!(of(&[], false).expect("nothing is asked for").is_none());
        assert!(of(&["https://chat.example", "http://10.0.0.7:3000"], false).expect("fine").is_some());
        assert!(of(&["*"], true).expect("a key").is_some());
        for origins in [&["*"][..], &["chat.example"], &["https://chat.example/"], &["https://"]] {
            assert!(of(origins, false).is_err(), "{origins:?}");
        }
    }
}
