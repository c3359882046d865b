//! `/v1/files`: uploads for batches, and what batches wrote.
//!
//! Invariant: an upload goes to the store piece by piece as it arrives; one that is cut short or too large leaves nothing.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use multer::Multipart;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    access::Caller,
    engine::files::{ContentWriter, FileRecord, PIECE, new_file_id},
    http::{ApiError, App, discard, param::Param},
    store::{DocumentKind, DocumentPage},
};

/// What a form has beside its file.
const FORM_BYTES: u64 = 64 * 1024;
/// Longest name of a file, in characters.
const MAX_FILENAME: usize = 255;
/// Longest value of a form's text field.
const MAX_FIELD: usize = 1_024;
/// Files on a page, unless asked otherwise, and at most.
const PAGE: u32 = 10_000;
/// Rows looked at in one go.
const ROWS: u32 = 500;
/// How long a file may ask to be kept.
const KEPT: std::ops::RangeInclusive<u64> = 3_600..=2_592_000;

/// Takes a file in.
pub(super) async fn create(State(app): State<App>, caller: Caller, request: Request) -> Result<Response, ApiError> {
    let most = app.engine.batch_limits().max_bytes;
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let boundary = content_type.and_then(|value| multer::parse_boundary(value).ok());
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let body = request.into_body();
    if length.is_some_and(|length| length > most + FORM_BYTES) {
        discard(body).await;
        return Err(too_large(most));
    }
    let Some(boundary) = boundary else {
        discard(body).await;
        return Err(ApiError::invalid(
            None,
            "a file comes as multipart/form-data, with the fields `purpose` and `file`",
        ));
    };
    if !app.engine.is_accepting() {
        return Err(ApiError::unavailable("this daemon is draining and takes no new files; try again in a moment"));
    }
    let form = read_form(&app, Multipart::new(body.into_data_stream(), boundary), most).await?;
    let now = app.engine.now();
    let file = form.file.ok_or_else(|| ApiError::invalid(Some("file"), "the form has no `file`"))?;
    match form.purpose.as_deref() {
        Some("batch") => {}
        Some(other) => {
            let shown: String = other.chars().take(80).collect();
            let message = format!("files of purpose {shown:?} are not served here; only `batch` is");
            return Err(ApiError::invalid(Some("purpose"), message));
        }
        None => return Err(ApiError::invalid(Some("purpose"), "the form has no `purpose`; write `batch`")),
    }
    let kept = match (form.anchor.as_deref(), form.seconds) {
        (None, None) => crate::engine::batches::FILES_KEPT,
        (Some("created_at"), Some(seconds)) => kept("expires_after.seconds", seconds)?,
        _ => {
            let message = "`expires_after` needs `anchor`: \"created_at\" and `seconds`";
            return Err(ApiError::invalid(Some("expires_after"), message));
        }
    };
    let id = file.writer.id().to_owned();
    let bytes = file.writer.seal().await?;
    let record = FileRecord {
        id,
        bytes,
        created_at: now,
        expires_at: Some(now + kept),
        filename: file.name,
        purpose: "batch".to_owned(),
        owner: caller.id().to_owned(),
        pipelines: std::collections::BTreeSet::new(),
    };
    if let Err(error) = app.engine.store().apply(vec![record.change()], None).await {
        app.engine.store().delete_content(&record.id).await?;
        return Err(error.into());
    }
    Ok(Json(view(&record)).into_response())
}

/// Checks how long a file asks to be kept.
pub(super) fn kept(param: &str, seconds: u64) -> Result<Duration, ApiError> {
    if KEPT.contains(&seconds) {
        return Ok(Duration::from_secs(seconds));
    }
    let message = format!("`{param}` must be from {} to {}", KEPT.start(), KEPT.end());
    Err(ApiError::invalid(Some(param), message))
}

#[derive(Default)]
struct Form {
    file: Option<Upload>,
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<u64>,
}

struct Upload {
    writer: ContentWriter,
    name: String,
}

async fn read_form(app: &App, mut multipart: Multipart<'static>, most: u64) -> Result<Form, ApiError> {
    let mut form = Form::default();
    let mut fields = 0;
    while let Some(mut field) = multipart.next_field().await.map_err(broken)? {
        fields += 1;
        if fields > 32 {
            return Err(ApiError::invalid(None, "the form has too many fields"));
        }
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            if form.file.is_some() {
                return Err(ApiError::invalid(Some("file"), "the form has two `file`s; send one"));
            }
            let filename: String = field.file_name().unwrap_or("upload.jsonl").chars().take(MAX_FILENAME).collect();
            let mut writer = ContentWriter::begin(app.engine.store().clone(), new_file_id()).await?;
            while let Some(piece) = field.chunk().await.map_err(broken)? {
                if writer.bytes() + piece.len() as u64 > most {
                    return Err(too_large(most));
                }
                writer.write(&piece).await?;
            }
            form.file = Some(Upload { writer, name: filename });
            continue;
        }
        let mut value = Vec::new();
        while let Some(piece) = field.chunk().await.map_err(broken)? {
            if value.len() + piece.len() > MAX_FIELD {
                return Err(ApiError::invalid(Some(&name), format!("`{name}` has more than {MAX_FIELD} bytes")));
            }
            value.extend_from_slice(&piece);
        }
        let Ok(value) = String::from_utf8(value) else {
            return Err(ApiError::invalid(Some(&name), format!("`{name}` is not UTF-8")));
        };
        match name.as_str() {
            "purpose" => form.purpose = Some(value),
            "expires_after[anchor]" => form.anchor = Some(value),
            "expires_after[seconds]" => {
                let wrong =
                    |_| ApiError::invalid(Some("expires_after.seconds"), "`expires_after.seconds` must be a number");
                form.seconds = Some(value.trim().parse().map_err(wrong)?);
            }
            _ => {
                let shown: String = name.chars().take(80).collect();
                return Err(ApiError::invalid(
                    Some(&shown),
                    format!("unknown field {shown:?}; there are file, purpose, expires_after"),
                ));
            }
        }
    }
    Ok(form)
}

fn broken(error: multer::Error) -> ApiError {
    ApiError::invalid(None, format!("the form did not arrive whole: {error}")).coded("incomplete_upload")
}

fn too_large(most: u64) -> ApiError {
    let message = format!(
        "the file is larger than {} MB, the most that is taken (`batches: {{ max_megabytes }}`)",
        most / 1_000_000
    );
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "file_too_large", message)
}

/// What a list of files may be asked.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ListQuery {
    purpose: Option<String>,
    limit: Option<u32>,
    order: Option<String>,
    after: Option<String>,
}

/// Files, newest first unless asked otherwise.
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=PAGE).contains(&limit) {
        return Err(ApiError::invalid(Some("limit"), format!("`limit` is a number from 1 to {PAGE}")));
    }
    let descending = match query.order.as_deref() {
        None | Some("desc") => true,
        Some("asc") => false,
        Some(_) => return Err(ApiError::invalid(Some("order"), "`order` is asc or desc")),
    };
    let now = app.engine.now();
    let mut page = DocumentPage { kind: DocumentKind::File, after: query.after, descending, limit: ROWS };
    let mut found: Vec<FileRecord> = Vec::new();
    'pages: loop {
        let rows = app.engine.store().documents_page(page.clone()).await?;
        let Some((last, _)) = rows.last() else { break };
        page.after = Some(last.clone());
        for (_, value) in rows {
            let Ok(file) = serde_json::from_value::<FileRecord>(value) else { continue };
            let wanted = query.purpose.as_ref().is_none_or(|purpose| *purpose == file.purpose);
            if wanted && file.is_seen_by(&caller) && file.expires_at.is_none_or(|end| now < end) {
                found.push(file);
                if found.len() > limit as usize {
                    break 'pages;
                }
            }
        }
    }
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    Ok(Json(page_of(found.iter().map(view).collect(), has_more)))
}

/// A list as the original shows it.
pub(super) fn page_of(data: Vec<Value>, has_more: bool) -> Value {
    let id = |item: Option<&Value>| item.and_then(|item| item.get("id")).cloned().unwrap_or(Value::Null);
    let (first, last) = (id(data.first()), id(data.last()));
    json!({ "object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more })
}

/// Which file, below a fixed pipeline or not.
#[derive(Debug, Deserialize)]
pub(super) struct FilePath {
    file: String,
}

/// A file that the caller may know of; to others it is not there.
pub(super) async fn visible(app: &App, caller: &Caller, id: &str) -> Result<FileRecord, ApiError> {
    let file = app.engine.file(id).await?.filter(|file| file.is_seen_by(caller));
    file.ok_or_else(|| {
        let shown: String = id.chars().take(80).collect();
        ApiError::not_found("file_not_found", format!("there is no file {shown:?}; files go when their time is over"))
    })
}

/// One file.
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Param(FilePath { file }): Param<FilePath>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(view(&visible(&app, &caller, &file).await?)))
}

/// What is in it.
pub(super) async fn content(
    State(app): State<App>,
    caller: Caller,
    Param(FilePath { file }): Param<FilePath>,
) -> Result<Response, ApiError> {
    let file = visible(&app, &caller, &file).await?;
    if !caller.sees_content(&file.owner) {
        let message = format!("key {:?} may not see what is in files: it needs the scope `content`", caller.name());
        return Err(ApiError::forbidden("insufficient_scope", message));
    }
    let store = app.engine.store().clone();
    let (id, bytes) = (file.id.clone(), file.bytes);
    let pieces = stream::try_unfold(0_u64, move |at| {
        let (store, id) = (store.clone(), id.clone());
        async move {
            if at >= bytes {
                return Ok::<_, std::io::Error>(None);
            }
            let piece: Option<Bytes> = store.read_content(&id, at, PIECE / 4).await.map_err(std::io::Error::other)?;
            // What was promised by its length must not end early in silence.
            let piece = piece.filter(|piece| !piece.is_empty());
            let piece = piece.ok_or_else(|| std::io::Error::other(format!("the content of {id} is gone")))?;
            let next = at + piece.len() as u64;
            Ok(Some((piece, next)))
        }
    });
    let mut response = Body::from_stream(pieces).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, bytes.into());
    let name: String = file.filename.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\')).collect();
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// Deletes it.
pub(super) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Param(FilePath { file }): Param<FilePath>,
) -> Result<Json<Value>, ApiError> {
    let file = visible(&app, &caller, &file).await?;
    if caller.key().is_some() && !caller.owns(&file.owner) && !caller.may(crate::access::Scope::Operate) {
        let message = "only the key that uploaded a file, or one with the scope `operate`, deletes it";
        return Err(ApiError::forbidden("insufficient_scope", message));
    }
    if app.engine.file_is_read(&file.id) {
        return Err(ApiError::conflict(format!(
            "a batch still reads {}; cancel it first, or wait for its end",
            file.id
        )));
    }
    app.engine.delete_file(&file.id).await?;
    Ok(Json(json!({ "id": file.id, "object": "file", "deleted": true })))
}

/// A file as the original shows it.
fn view(file: &FileRecord) -> Value {
    json!({
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at.as_micros().div_euclid(1_000_000),
        "expires_at": file.expires_at.map(|end| end.as_micros().div_euclid(1_000_000)),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": null,
    })
}
