//! Compression of what is kept, alone or as what is new beside other bytes. Unpacked, it is the same to the last bit.

use std::io;

use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, SafeResult, compress_bound, get_error_name, get_frame_content_size,
};

use super::codec::LIMIT_BYTES;

/// zstd's usual one.
const LEVEL: i32 = 3;
/// Bits of the smallest and the largest window: what is searched for repetitions.
const WINDOW_BITS: (u32, u32) = (10, 27);
/// Where more than this is to be searched, an index of long repetitions is kept, too.
const LONG_BYTES: usize = 256 << 10;

/// `bytes`, of which only what `base` does not hold takes room.
pub(crate) fn pack(bytes: &[u8], base: Option<&[u8]>) -> io::Result<Vec<u8>> {
    let base = base.unwrap_or_default();
    let searched = bytes.len() + base.len();
    // All of both, so that nothing of the base falls out of it.
    let window = (searched.max(1).ilog2() + 1).clamp(WINDOW_BITS.0, WINDOW_BITS.1);
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(LEVEL),
        CParameter::WindowLog(window),
        CParameter::EnableLongDistanceMatching(searched > LONG_BYTES),
        // Another base would give other bytes.
        CParameter::ChecksumFlag(true),
    ] {
        done(context.set_parameter(parameter))?;
    }
    done(context.ref_prefix(base))?;
    let mut packed = Vec::with_capacity(compress_bound(bytes.len()));
    done(context.compress2(&mut packed, bytes))?;
    packed.shrink_to_fit();
    Ok(packed)
}

/// What was packed beside the same `base`.
pub(crate) fn unpack(packed: &[u8], base: Option<&[u8]>) -> io::Result<Vec<u8>> {
    let torn = || io::Error::new(io::ErrorKind::InvalidData, "it does not say how large it is");
    let size = get_frame_content_size(packed).ok().flatten().ok_or_else(torn)?;
    let size = usize::try_from(size).ok().filter(|size| *size <= LIMIT_BYTES).ok_or_else(torn)?;
    let mut context = DCtx::create();
    done(context.ref_prefix(base.unwrap_or_default()))?;
    let mut bytes = Vec::with_capacity(size);
    done(context.decompress(&mut bytes, packed))?;
    Ok(bytes)
}

fn done(result: SafeResult) -> io::Result<()> {
    let failed = |code| io::Error::new(io::ErrorKind::InvalidData, get_error_name(code));
    result.map(|_| ()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn what_is_new_beside_a_base_takes_little_room_and_comes_back_bit_for_bit() {
        let mut rng = StdRng::seed_from_u64(1);
        for len in [0, 1, 300, 40_000, 3 << 20] {
            let base: Vec<u8> = (0..len).map(|_| rng.random()).collect();
            let tail: Vec<u8> = (0..100).map(|_| rng.random()).collect();
            let whole = [b"new".as_slice(), &base, &tail].concat();
            let packed = pack(&whole, Some(&base)).expect("packed");
            assert!(packed.len() < 300 + len / 500, "{} for {len}", packed.len());
            assert_eq!(unpack(&packed, Some(&base)).expect("unpacked"), whole);
            if len > 300 {
                let other = [&base[1..], &[7]].concat();
                assert!(unpack(&packed, Some(&other)).is_err(), "another base");
                assert!(unpack(&packed, None).is_err(), "no base");
            }
            assert!(unpack(&packed[..packed.len() - 1], Some(&base)).is_err(), "cut");
        }
    }

    #[test]
    fn what_says_that_it_is_too_large_is_refused_before_room_is_made_for_it() {
        let packed = pack(&[0; 100], None).expect("packed");
        // A frame's header with its size in 8 bytes: a terabyte.
        let huge = [&packed[..4], &[0xe0], &(1_u64 << 40).to_le_bytes(), &packed[4..]].concat();
        assert!(unpack(&huge, None).is_err());
        assert!(unpack(&[], None).is_err() && unpack(b"nothing", None).is_err());
    }
}
