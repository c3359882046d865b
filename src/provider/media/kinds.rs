//! What a medium is, by its own first bytes; a sender's word counts only among texts, which have no first bytes of
//! their own.

/// The format of a picture, as Converse names it.
pub(super) fn image(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some("png"),
        [0xff, 0xd8, 0xff, ..] => Some("jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("webp"),
        _ => None,
    }
}

/// The format of a document, as Converse names it.
pub(super) fn document(bytes: &[u8], content_type: &str, path: &str) -> Option<&'static str> {
    let ending = path.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default();
    let holds = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    match bytes {
        [] => None,
        [b'%', b'P', b'D', b'F', b'-', ..] => Some("pdf"),
        // A zip: the names of the files in it stand in it as they are.
        [b'P', b'K', 3, 4, ..] if holds(b"word/") => Some("docx"),
        [b'P', b'K', 3, 4, ..] if holds(b"xl/") => Some("xlsx"),
        // Some other zip.
        [b'P', b'K', 3, 4, ..] => None,
        // Word and Excel shared one container.
        [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1, ..] => {
            Some(if ending == "xls" || content_type.contains("excel") { "xls" } else { "doc" })
        }
        _ if image(bytes).is_some() || bytes.contains(&0) || std::str::from_utf8(bytes).is_err() => None,
        _ => Some(match ending.as_str() {
            "csv" => "csv",
            "html" | "htm" => "html",
            "md" | "markdown" => "md",
            _ if content_type.starts_with("text/html") => "html",
            _ if content_type.starts_with("text/csv") => "csv",
            _ if content_type.starts_with("text/markdown") => "md",
            _ => "txt",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_decide() {
        for (bytes, format) in [
            (&b"\x89PNG\r\n\x1a\nrest"[..], Some("png")),
            (b"\xff\xd8\xff\xe0", Some("jpeg")),
            (b"GIF89a", Some("gif")),
            (b"RIFF\x01\x02\x03\x04WEBPVP8 ", Some("webp")),
            (b"<svg xmlns=", None),
            (b"", None),
        ] {
            assert_eq!(image(bytes), format);
        }
        for (bytes, content_type, path, format) in [
            (&b"%PDF-1.7"[..], "text/html", "/a.html", Some("pdf")),
            (b"PK\x03\x04....word/document.xml", "", "/a", Some("docx")),
            (b"PK\x03\x04....xl/workbook.xml", "", "/a.docx", Some("xlsx")),
            (b"PK\x03\x04....other", "", "/a.docx", None),
            (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "", "/a.xls", Some("xls")),
            (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/msword", "/a", Some("doc")),
            (b"a,b\n1,2\n", "text/csv; charset=utf-8", "/a", Some("csv")),
            (b"# Title", "application/octet-stream", "/a.MD", Some("md")),
            (b"plain", "", "/a.exe", Some("txt")),
            (b"\x7fELF\x00", "", "/a.txt", None),
            (b"GIF89a", "", "/a.txt", None),
        ] {
            assert_eq!(document(bytes, content_type, path), format, "{path}");
        }
    }
}
