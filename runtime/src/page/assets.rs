//! What the browser loads: one document, one style sheet and a few modules, all in the binary. Nothing here is
//! private, and nothing of it asks anyone but this port.

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};

/// Nothing is loaded or asked from elsewhere, no script or style stands in the document, and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, media type and content of each.
pub(super) const ASSETS: [(&str, &str, &str); 17] = [
    ("/", "text/html; charset=utf-8", include_str!("assets/page.html")),
    ("/page/page.css", "text/css; charset=utf-8", include_str!("assets/page.css")),
    ("/page/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("/page/main.js", JAVASCRIPT, include_str!("assets/main.js")),
    ("/page/dom.js", JAVASCRIPT, include_str!("assets/dom.js")),
    ("/page/wire.js", JAVASCRIPT, include_str!("assets/wire.js")),
    ("/page/overview.js", JAVASCRIPT, include_str!("assets/overview.js")),
    ("/page/chart.js", JAVASCRIPT, include_str!("assets/chart.js")),
    ("/page/states.js", JAVASCRIPT, include_str!("assets/states.js")),
    ("/page/actions.js", JAVASCRIPT, include_str!("assets/actions.js")),
    ("/page/sessions.js", JAVASCRIPT, include_str!("assets/sessions.js")),
    ("/page/episodes.js", JAVASCRIPT, include_str!("assets/episodes.js")),
    ("/page/film.js", JAVASCRIPT, include_str!("assets/film.js")),
    ("/page/heatmap.js", JAVASCRIPT, include_str!("assets/heatmap.js")),
    ("/page/learning.js", JAVASCRIPT, include_str!("assets/learning.js")),
    ("/page/versions.js", JAVASCRIPT, include_str!("assets/versions.js")),
    ("/page/compare.js", JAVASCRIPT, include_str!("assets/compare.js")),
];

/// The document and what it loads.
pub(crate) fn assets() -> Router {
    ASSETS.into_iter().fold(Router::new(), |router, (path, kind, content)| {
        router.route(path, get(async move || ([(header::CONTENT_TYPE, kind)], content).into_response()))
    })
}

/// Every answer of `router` tells the browser what it may do with it.
pub(crate) fn guarded(router: Router) -> Router {
    router.layer(middleware::from_fn(async |request: Request, next: Next| -> Response {
        let mut response = next.run(request).await;
        for (name, value) in HEADERS {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }))
}
