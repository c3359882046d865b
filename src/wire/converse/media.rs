//! Images and files in messages: data URIs and base64 to bytes, addresses to sources.
//!
//! Invariant: what goes out fits the service's limits of count, size and naming, or is refused with the numbers; bytes
//! at an http(s) address are only named here, since nothing is fetched in this room.

use std::collections::BTreeSet;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use serde_json::Value;

use super::{Block, Document, Image, Source, family::Habits, pictures};
use crate::{
    job::FidelityAction,
    wire::{Refusal, fidelity::Ledger, parameters::short},
};

/// Images that a request may hold.
const MOST_IMAGES: usize = 20;
/// Largest image: 3.75 MiB.
const LARGEST_IMAGE: usize = 3 * 1024 * 1024 + 768 * 1024;
/// Longest side of an image, in pixels.
const LONGEST_SIDE: u32 = 8_000;
/// Documents that a request may hold.
const MOST_DOCUMENTS: usize = 5;
/// Largest document: 4.5 MiB.
const LARGEST_DOCUMENT: usize = 4 * 1024 * 1024 + 512 * 1024;
/// Longest name of a document.
const LONGEST_NAME: usize = 200;

/// File name endings and media types of the documents that Converse takes.
const DOCUMENTS: [(&str, &str, &str); 11] = [
    ("pdf", "pdf", "application/pdf"),
    ("csv", "csv", "text/csv"),
    ("doc", "doc", "application/msword"),
    ("docx", "docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("xls", "xls", "application/vnd.ms-excel"),
    ("xlsx", "xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("html", "html", "text/html"),
    ("htm", "html", "application/xhtml+xml"),
    ("txt", "txt", "text/plain"),
    ("md", "md", "text/markdown"),
    ("markdown", "md", "text/x-markdown"),
];

/// Padding may be missing: callers cut it.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// The media of one request, counted.
#[derive(Debug, Default)]
pub(super) struct Media {
    images: usize,
    documents: usize,
    names: BTreeSet<String>,
}

impl Media {
    /// An `image_url` part.
    pub(super) fn image(
        &mut self,
        param: &str,
        part: &Value,
        habits: Habits<'_>,
        ledger: &mut Ledger<'_>,
    ) -> Result<Block, Refusal> {
        if !habits.takes_images() {
            return Err(ledger.impossible(param, "the model takes no images"));
        }
        let image = part.get("image_url");
        let url = match image {
            Some(Value::String(url)) => Some(url.as_str()),
            Some(Value::Object(fields)) => {
                if fields.get("detail").and_then(Value::as_str).is_some_and(|detail| detail != "auto") {
                    let detail = "Bedrock looks at every image in one way";
                    ledger.inexact(format!("{param}.image_url.detail"), FidelityAction::Dropped, detail)?;
                }
                for name in fields.keys().filter(|name| !matches!(name.as_str(), "url" | "detail")) {
                    ledger.breach(format!("{param}.image_url.{name}"), "this release does not know this field")?;
                }
                fields.get("url").and_then(Value::as_str)
            }
            _ => None,
        };
        let at = format!("{param}.image_url.url");
        let Some(url) = url else {
            return Err(Refusal::of(at.as_str(), format!("{at}: must be an address or a data URI")));
        };
        self.images += 1;
        if self.images > MOST_IMAGES {
            let message = format!("{at}: this is image {}; Bedrock takes {MOST_IMAGES} a request", self.images);
            return Err(Refusal::of(at, message));
        }
        if let Some((format, source)) = elsewhere(&at, url, ledger)? {
            let format = match (format.as_str(), &source) {
                ("jpg" | "jpeg", _) => "jpeg",
                (known @ ("png" | "gif" | "webp"), _) => known,
                // What it is shows when it has been fetched.
                (_, Source::Remote(_)) => "",
                _ => {
                    let message = format!("{at}: an image in S3 must end in .png, .jpg, .jpeg, .gif or .webp");
                    return Err(Refusal::of(at, message));
                }
            };
            return Ok(Block::Image(Image { format: format.to_owned(), source }));
        }
        let Some(uri) = DataUri::parse(url) else {
            let message = format!(
                "{at}: must begin with data:, https://, http:// or s3://, not {}",
                short(&Value::from(url.chars().take(40).collect::<String>()))
            );
            return Err(Refusal::of(at, message));
        };
        let bytes = uri.bytes(&at)?;
        let Some(format) = pictures::format(&bytes) else {
            let message = format!("{at}: is no PNG, JPEG, GIF or WebP image (it says {:?})", uri.kind);
            return Err(Refusal::of(at, message));
        };
        if bytes.len() > LARGEST_IMAGE {
            let message = format!("{at}: {} bytes; Bedrock takes images of {LARGEST_IMAGE} at most", bytes.len());
            return Err(Refusal::of(at, message));
        }
        if let Some((width, height)) = pictures::dimensions(&bytes)
            && width.max(height) > LONGEST_SIDE
        {
            let message =
                format!("{at}: {width} x {height} pixels; Bedrock takes images of {LONGEST_SIDE} a side at most");
            return Err(Refusal::of(at, message));
        }
        Ok(Block::Image(Image { format: format.to_owned(), source: Source::Bytes(bytes) }))
    }

    /// A `file` part.
    pub(super) fn file(
        &mut self,
        param: &str,
        part: &Value,
        habits: Habits<'_>,
        ledger: &mut Ledger<'_>,
    ) -> Result<Block, Refusal> {
        if !habits.takes_documents() {
            return Err(ledger.impossible(param, "the model takes no files"));
        }
        let Some(file) = part.get("file").and_then(Value::as_object) else {
            return Err(Refusal::of(param, format!("{param}.file: must be an object")));
        };
        for (name, _) in file.iter().filter(|(_, value)| !value.is_null()) {
            match name.as_str() {
                "file_data" | "filename" => {}
                "file_id" => {
                    let detail = "the file is kept by OpenAI, where Bedrock cannot read it: send it in the request, as \
                                  `file_data` with a `filename`";
                    return Err(ledger.impossible(format!("{param}.file.file_id"), detail));
                }
                name => ledger.breach(format!("{param}.file.{name}"), "this release does not know this field")?,
            }
        }
        let at = format!("{param}.file.file_data");
        let Some(data) = file.get("file_data").and_then(Value::as_str) else {
            return Err(Refusal::of(at.as_str(), format!("{at}: must be a data URI or base64 text")));
        };
        self.documents += 1;
        if self.documents > MOST_DOCUMENTS {
            let message = format!("{at}: this is file {}; Bedrock takes {MOST_DOCUMENTS} a request", self.documents);
            return Err(Refusal::of(at, message));
        }
        let filename = file.get("filename").and_then(Value::as_str).unwrap_or_default();
        let ending = filename.rsplit_once('.').map_or("", |(_, ending)| ending);
        let by_ending = |ending: &str| {
            DOCUMENTS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(ending)).map(|(_, format, _)| *format)
        };
        let (format, source) = if let Some((ending_there, source)) = elsewhere(&at, data, ledger)? {
            let format = by_ending(ending).or_else(|| by_ending(&ending_there));
            if format.is_none() && matches!(source, Source::S3(_)) {
                let message = format!("{at}: a file in S3 must end as what it is, such as .pdf or .txt");
                return Err(Refusal::of(at, message));
            }
            (format, source)
        } else {
            let uri = DataUri::parse(data);
            let bytes = match &uri {
                Some(uri) => uri.bytes(&at)?,
                None => decoded(data).ok_or_else(|| not_base64(&at))?,
            };
            if bytes.len() > LARGEST_DOCUMENT {
                let message = format!("{at}: {} bytes; Bedrock takes files of {LARGEST_DOCUMENT} at most", bytes.len());
                return Err(Refusal::of(at, message));
            }
            if bytes.is_empty() {
                return Err(Refusal::of(at.as_str(), format!("{at}: is empty")));
            }
            let kind = uri.map_or("", |uri| uri.kind);
            let by_kind = || DOCUMENTS.iter().find(|(.., known)| *known == kind).map(|(_, format, _)| *format);
            let by_bytes = || {
                if bytes.starts_with(b"%PDF-") {
                    return Some("pdf");
                }
                // Any other text is text.
                std::str::from_utf8(&bytes).is_ok().then_some("txt")
            };
            let Some(format) = by_ending(ending).or_else(by_kind).or_else(by_bytes) else {
                let message = format!(
                    "{at}: Bedrock takes pdf, csv, doc, docx, xls, xlsx, html, txt and md files, and this is none of \
                     them (filename {filename:?}, type {kind:?})"
                );
                return Err(Refusal::of(at, message));
            };
            (Some(format), Source::Bytes(bytes))
        };
        let name = self.name(param, filename, ledger)?;
        Ok(Block::Document(Document { format: format.unwrap_or_default().to_owned(), name, source }))
    }

    /// A name that the service takes and that no other file of the request has.
    fn name(&mut self, param: &str, filename: &str, ledger: &mut Ledger<'_>) -> Result<String, Refusal> {
        // The ending is what `format` says.
        let stem = filename.rsplit_once('.').map_or(filename, |(stem, _)| stem);
        let stem = if stem.is_empty() { "document" } else { stem };
        let mut name = String::with_capacity(stem.len());
        for letter in stem.chars() {
            let letter = if letter.is_ascii_alphanumeric() || "-()[]".contains(letter) { letter } else { ' ' };
            if letter != ' ' || !name.ends_with(' ') {
                name.push(letter);
            }
        }
        let mut name: String = name.trim().chars().take(LONGEST_NAME - 8).collect();
        if name.trim().is_empty() {
            "document".clone_into(&mut name);
        }
        let plain = name.trim_end().to_owned();
        let mut name = plain.clone();
        let mut copy = 2;
        while !self.names.insert(name.clone()) {
            name = format!("{plain} ({copy})");
            copy += 1;
        }
        if !filename.is_empty() && name != stem {
            let detail = format!("Bedrock restricts the names of files: it goes as {name:?}");
            ledger.inexact(format!("{param}.file.filename"), FidelityAction::Approximated, detail)?;
        }
        Ok(name)
    }
}

/// Bytes that are not in the request: the ending of their name, and where they are.
fn elsewhere(at: &str, address: &str, ledger: &mut Ledger<'_>) -> Result<Option<(String, Source)>, Refusal> {
    let opens = |scheme: &str| address.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme));
    let ending = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default()
    };
    if opens("https://") || opens("http://") {
        ledger.inexact(at, FidelityAction::Emulated, "fetched by the daemon, and sent along")?;
        let path = address.split(['?', '#']).next().unwrap_or_default();
        return Ok(Some((ending(path), Source::Remote(address.to_owned()))));
    }
    if opens("s3://") {
        return Ok(Some((ending(address), Source::S3(address.to_owned()))));
    }
    Ok(None)
}

/// `data:KIND;…;base64,DATA`, taken apart.
struct DataUri<'a> {
    kind: &'a str,
    is_base64: bool,
    data: &'a str,
}

impl<'a> DataUri<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let scheme = text.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("data:"))?;
        let (head, data) = text.get(scheme.len()..)?.split_once(',')?;
        let mut words = head.split(';').map(str::trim);
        let kind = words.next().unwrap_or_default();
        Some(Self { kind, is_base64: words.any(|word| word.eq_ignore_ascii_case("base64")), data })
    }

    fn bytes(&self, at: &str) -> Result<Bytes, Refusal> {
        if !self.is_base64 {
            return Err(Refusal::of(at, format!("{at}: the data URI must hold base64")));
        }
        decoded(self.data).ok_or_else(|| not_base64(at))
    }
}

fn not_base64(at: &str) -> Refusal {
    Refusal::of(at, format!("{at}: is no valid base64"))
}

fn decoded(text: &str) -> Option<Bytes> {
    let decode = |text: &str| STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok().map(Bytes::from);
    decode(text).or_else(|| {
        // Encoders that wrap lines are common.
        let packed: String = text.chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
        (packed.len() < text.len()).then(|| decode(&packed)).flatten()
    })
}
