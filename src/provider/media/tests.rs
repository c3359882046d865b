//! Fetching from real sockets: what is fetched, and what never is.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    job::Fault::{Refused, Transient},
    settings::AddressRule,
    wire::converse::{Document, Image, Message, Role, ToolResult},
};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\nrest of it";

/// Answers each path in its own way, for as long as it is kept.
async fn files() -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default();
                let (head, body): (&str, Vec<u8>) = match path {
                    "/a.png" | "/a.png?signature=secret" => ("200 OK\r\ncontent-type: image/png", PNG.to_vec()),
                    "/a.md" => ("200 OK\r\ncontent-type: text/plain", b"# Title".to_vec()),
                    "/page" => ("200 OK\r\ncontent-type: image/png", b"<html>not a picture".to_vec()),
                    "/large" => ("200 OK\r\ncontent-type: image/png", [PNG, &[0; 2_000]].concat()),
                    "/moved" => ("302 Found\r\nlocation: /a.png", Vec::new()),
                    "/busy" => ("503 Busy", Vec::new()),
                    "/slow" => {
                        std::future::pending::<()>().await;
                        return;
                    }
                    _ => ("404 Not Found", Vec::new()),
                };
                // `/large` does not say how long it is: it is counted while it is read.
                let length =
                    if path == "/large" { String::new() } else { format!("\r\ncontent-length: {}", body.len()) };
                let head = format!("HTTP/1.1 {head}{length}\r\nconnection: close\r\n\r\n");
                let _sent = stream.write_all(&[head.as_bytes(), &body].concat()).await;
            });
        }
    });
    (address, task)
}

fn fetcher(allow: &[&str], private: bool) -> Fetcher {
    super::super::install_crypto();
    let settings = MediaSettings {
        allow: allow.iter().map(|rule| AddressRule::parse(rule).unwrap()).collect(),
        max_bytes: 1_000,
        timeout: Duration::from_millis(500),
        private,
    };
    Fetcher::open(&settings, &[]).unwrap()
}

fn image(url: &str) -> Block {
    Block::Image(Image { format: String::new(), source: Source::Remote(url.to_owned()) })
}

fn asking(content: Vec<Block>) -> Request {
    Request { messages: vec![Message { role: Role::User, content }], ..Request::default() }
}

#[tokio::test]
async fn media_are_put_in_their_places() {
    let (address, _files) = files().await;
    let url = |path: &str| format!("http://{address}{path}");
    let result = ToolResult { tool_use_id: "t".to_owned(), content: vec![image(&url("/a.png"))] };
    let document = Document { format: String::new(), name: "d".to_owned(), source: Source::Remote(url("/a.md")) };
    let here = Source::Bytes(Bytes::from_static(b"here"));
    let mut request = asking(vec![
        Block::Text("look".to_owned()),
        image(&url("/a.png?signature=secret")),
        Block::Image(Image { format: "gif".to_owned(), source: here.clone() }),
        Block::Document(document),
        Block::ToolResult(result),
    ]);
    let fetcher = fetcher(&[&format!("http://{address}")], true);
    fetcher.resolve(&mut request).await.unwrap();
    let png = Image { format: "png".to_owned(), source: Source::Bytes(Bytes::from_static(PNG)) };
    let md = Source::Bytes(Bytes::from_static(b"# Title"));
    let document = Document { format: "md".to_owned(), name: "d".to_owned(), source: md };
    let result = ToolResult { tool_use_id: "t".to_owned(), content: vec![Block::Image(png.clone())] };
    let expected = asking(vec![
        Block::Text("look".to_owned()),
        Block::Image(png),
        Block::Image(Image { format: "gif".to_owned(), source: here }),
        Block::Document(document),
        Block::ToolResult(result),
    ]);
    assert_eq!(request, expected);
}

#[tokio::test]
async fn what_cannot_be_fetched_says_why() {
    let (address, _files) = files().await;
    let port = address.port();
    let allow = [
        format!("http://{address}"),
        format!("http://localhost:{port}"),
        "http://169.254.169.254".to_owned(),
        "http://[::1]:9".to_owned(),
        "http://127.0.0.1:9".to_owned(),
        "http://no-such-host.invalid".to_owned(),
        "https://2130706433".to_owned(),
    ];
    let allow: Vec<&str> = allow.iter().map(String::as_str).collect();
    for (private, url, fault, code, says) in [
        (true, format!("http://{address}/none.png"), Refused, "media_not_found", "HTTP 404"),
        (true, format!("http://{address}/busy"), Transient, "media_not_found", "HTTP 503"),
        (true, format!("http://{address}/moved"), Refused, "media_not_found", "redirects are not followed"),
        (true, format!("http://{address}/large"), Refused, "media_too_large", "1000 bytes"),
        (true, format!("http://{address}/page"), Refused, "bad_media_format", "not a picture"),
        (true, format!("http://{address}/slow"), Transient, "media_timeout", "500ms"),
        (true, "http://127.0.0.1:9/a.png".to_owned(), Transient, "media_unreachable", "cannot be fetched"),
        (true, "http://no-such-host.invalid/a.png".to_owned(), Transient, "media_unreachable", "cannot be fetched"),
        (true, format!("https://{address}/a.png"), Refused, "media_not_allowed", "no rule"),
        (true, format!("http://other:{port}/a.png"), Refused, "media_not_allowed", "no rule"),
        (true, format!("http://me:pw@{address}/a.png"), Refused, "bad_media_url", "user name"),
        (true, "ftp://x/a.png".to_owned(), Refused, "bad_media_url", "https and http"),
        (true, "not a url".to_owned(), Refused, "bad_media_url", "no URL"),
        // Allowed by name, and still inside: by address, by what a name leads to, by an odd way to write it.
        (false, format!("http://{address}/a.png"), Refused, "media_inside", "inside this machine"),
        (false, format!("http://localhost:{port}/a.png"), Refused, "media_inside", "inside this machine"),
        (false, "http://169.254.169.254/latest/meta-data".to_owned(), Refused, "media_inside", "169.254.169.254"),
        (false, "http://[::1]:9/a.png".to_owned(), Refused, "media_inside", "inside this machine"),
        (false, format!("http://2130706433:{port}/a.png"), Refused, "media_inside", "127.0.0.1"),
        (false, format!("http://0x7f.1:{port}/a.png"), Refused, "media_inside", "127.0.0.1"),
    ] {
        let error = fetcher(&allow, private).resolve(&mut asking(vec![image(&url)])).await.unwrap_err();
        let label = format!("{url}: {error:?}");
        assert_eq!((error.fault, error.code.as_deref()), (fault, Some(code)), "{label}");
        assert!(error.message.contains(says), "{label}");
        assert!(!error.possibly_billed && !error.message.contains("pw"), "{label}");
    }
    // What a signature in a query says is nobody's business.
    let signed = format!("http://{address}/none?X-Amz-Signature=secret");
    let error = fetcher(&allow, true).resolve(&mut asking(vec![image(&signed)])).await.unwrap_err();
    assert!(!error.message.contains("secret"), "{error:?}");
}

#[tokio::test]
async fn nothing_is_fetched_that_no_rule_names() {
    let (address, _files) = files().await;
    let mut request = asking(vec![image(&format!("http://{address}/a.png"))]);
    let error = fetcher(&[], true).resolve(&mut request).await.unwrap_err();
    assert_eq!((error.fault, error.param.as_deref()), (Fault::Refused, Some("messages")));
    assert!(error.advice.unwrap().contains("data: URL"));
    let many = (0..=MOST).map(|_| image(&format!("http://{address}/a.png"))).collect();
    let error = fetcher(&[&format!("http://{address}")], true).resolve(&mut asking(many)).await.unwrap_err();
    assert_eq!(error.code.as_deref(), Some("too_many_media"), "{}", json!(error.message));
}
