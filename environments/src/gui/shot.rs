//! A screenshot by its content.

use sha2::{Digest, Sha256};

use crate::world::{ImageRef, WorldError};

/// What a PNG begins with, up to its size.
const START: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

/// A screenshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Names it.
    pub image: ImageRef,
    /// A PNG.
    pub png: Vec<u8>,
}

impl Picture {
    /// Of a PNG.
    pub fn new(png: Vec<u8>) -> Result<Self, WorldError> {
        let size = png.strip_prefix(START).and_then(|rest| rest.split_first_chunk::<8>());
        let Some((&[a, b, c, d, e, f, g, h], _)) = size else {
            return Err(WorldError::Broken("a screenshot is no png".to_owned()));
        };
        let sha256: String = Sha256::digest(&png).iter().map(|byte| format!("{byte:02x}")).collect();
        let image = ImageRef {
            sha256,
            width: u32::from_be_bytes([a, b, c, d]),
            height: u32::from_be_bytes([e, f, g, h]),
            media_type: "image/png".to_owned(),
        };
        Ok(Self { image, png })
    }
}
