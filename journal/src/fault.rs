//! Places where a test may inject a failure. Without the feature `failpoints` there is nothing here.

/// A test may make the thread panic, wait or end the process here.
#[inline]
pub fn point(name: &str) {
    #[cfg(feature = "failpoints")]
    let _ = fail::eval(name, |_| ());
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
}

/// A test may make the caller act as if it had failed here, with what it set between the brackets of `return(..)`.
#[inline]
pub fn failure(name: &str) -> Option<String> {
    #[cfg(feature = "failpoints")]
    return fail::eval(name, Option::unwrap_or_default);
    #[cfg(not(feature = "failpoints"))]
    {
        let _ = name;
        None
    }
}
