//! Images by their first bytes: which format they are, and how large.
//!
//! Invariant: nothing is decoded; reading is bounded by the bytes there are.

/// The format's name in Converse, for those that it takes.
pub(super) fn format(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("png"),
        [0xff, 0xd8, 0xff, ..] => Some("jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("webp"),
        _ => None,
    }
}

/// Width and height in pixels, where the bytes say.
pub(super) fn dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    match format(bytes)? {
        "png" => Some((big(bytes, 16, 4)?, big(bytes, 20, 4)?)),
        "gif" => Some((little(bytes, 6, 2)?, little(bytes, 8, 2)?)),
        "webp" => webp(bytes),
        _ => jpeg(bytes),
    }
}

fn big(bytes: &[u8], at: usize, length: usize) -> Option<u32> {
    let part = bytes.get(at..at.checked_add(length)?)?;
    Some(part.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

fn little(bytes: &[u8], at: usize, length: usize) -> Option<u32> {
    let part = bytes.get(at..at.checked_add(length)?)?;
    Some(part.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

fn webp(bytes: &[u8]) -> Option<(u32, u32)> {
    match bytes.get(12..16)? {
        b"VP8X" => Some((little(bytes, 24, 3)? + 1, little(bytes, 27, 3)? + 1)),
        b"VP8L" => {
            let bits = little(bytes, 21, 4)?;
            Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
        }
        b"VP8 " => Some((little(bytes, 26, 2)? & 0x3fff, little(bytes, 28, 2)? & 0x3fff)),
        _ => None,
    }
}

/// A JPEG says its size in the segment that starts the frame.
fn jpeg(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at: usize = 2;
    loop {
        match *bytes.get(at..at.checked_add(2)?)? {
            // Filling between segments.
            [0xff, 0xff] => at += 1,
            // The frame: of any kind but the tables and extensions that share its range.
            [0xff, 0xc0..=0xcf] if !matches!(bytes.get(at + 1), Some(0xc4 | 0xc8 | 0xcc)) => {
                return Some((big(bytes, at + 7, 2)?, big(bytes, at + 5, 2)?));
            }
            [0xff, _] => at = at.checked_add(2 + usize::try_from(big(bytes, at + 2, 2)?).ok()?)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_the_first_bytes() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend([0, 0, 0x1f, 0x41, 0, 0, 0, 2]);
        let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xc2\0\x0b\x08\x01\x02\x03\x04";
        let mut vp8x = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0".to_vec();
        vp8x.extend([0x0f, 0, 0, 0x1f, 0, 0]);
        let vp8l = b"RIFF\0\0\0\0WEBPVP8L\x0a\0\0\0\x2f\x0f\xc0\x07\0";
        for (bytes, name, size) in [
            (png.as_slice(), "png", Some((8_001, 2))),
            (b"GIF89a\x10\0\x20\0", "gif", Some((16, 32))),
            (jpeg, "jpeg", Some((0x0304, 0x0102))),
            (vp8x.as_slice(), "webp", Some((16, 32))),
            (vp8l, "webp", Some((16, 32))),
            (b"\x89PNG", "png", None),
            (b"\xff\xd8\xff\xe0\0\0", "jpeg", None),
        ] {
            assert_eq!((format(bytes), dimensions(bytes)), (Some(name), size), "{name}");
        }
        assert_eq!(format(b"<svg>"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(head in 0_usize..5, mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let heads: [&[u8]; 5] =
                [b"\x89PNG", b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8X", b"RIFF\0\0\0\0WEBPVP8L"];
            bytes.splice(0..0, heads[head].iter().copied());
            dimensions(&bytes);
        }
    }
}
