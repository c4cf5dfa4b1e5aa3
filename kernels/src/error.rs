//! What can go wrong in an operation.

/// Result of an operation.
pub type Result<T> = std::result::Result<T, KernelError>;

/// Why an operation did not run.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Two arguments disagree about a shape.
    #[error("{op}: {what} has {found} elements, expected {expected}")]
    Shape {
        /// Name of the operation.
        op: &'static str,
        /// Name of the argument.
        what: &'static str,
        /// Number of elements it has.
        found: usize,
        /// Number of elements it must have.
        expected: usize,
    },
    /// An argument holds a value the operation cannot use.
    #[error("{op}: {what}")]
    Argument {
        /// Name of the operation.
        op: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// The device refused an ordinary request, out of memory for example.
    #[error("{device}: {what}")]
    Device {
        /// The device.
        device: String,
        /// What it said.
        what: String,
    },
    /// The device cannot be used any more by this process.
    #[error("{device} is lost: {what}")]
    DeviceLost {
        /// The device.
        device: String,
        /// What it said last.
        what: String,
    },
}

/// The number of rows of `width` in `len` elements, when there is one.
pub(crate) fn expect_rows(op: &'static str, what: &'static str, len: usize, width: usize) -> Result<usize> {
    if width == 0 || !len.is_multiple_of(width) {
        let what = format!("{what} has {len} elements, which are no rows of {width}");
        return Err(KernelError::Argument { op, what });
    }
    Ok(len / width)
}

/// `Err` when `found != expected`.
pub(crate) fn expect_len(op: &'static str, what: &'static str, found: usize, expected: usize) -> Result<()> {
    if found == expected { Ok(()) } else { Err(KernelError::Shape { op, what, found, expected }) }
}
