//! `hilum send`

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use hilum_wire::er7::unframed;
use hilum_wire::mllp::{Codec, Frame, Limits};
use hilum_wire::v3;
use reqwest::{Certificate, Client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::codec::{Decoder, Encoder};

use crate::cli::{Send, SendProtocol};

const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Sends each file and prints the answer. Exit code 1 when an answer was negative.
pub(crate) fn run(arguments: &Send) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let fine = runtime.block_on(async {
        match arguments.protocol {
            SendProtocol::Mllp => mllp(arguments).await,
            SendProtocol::V2 => http(arguments, "/v2/ingest", "text/plain").await,
            SendProtocol::V3 => http(arguments, "/v3/ingest", "application/xml").await,
            SendProtocol::Mpps => http(arguments, "/ingest", "application/json").await,
            SendProtocol::Fhir => http(arguments, "/fhir", "application/fhir+json").await,
            SendProtocol::Dicom => super::send_dicom::run(arguments).await,
        }
    })?;
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "this is the command's output")]
async fn mllp(arguments: &Send) -> Result<bool> {
    let target = arguments.target.trim_start_matches("mllp://");
    let mut stream =
        TcpStream::connect(target).await.with_context(|| format!("nobody answers on {target}"))?;
    let mut codec = Codec::new(Limits { frame_bytes_max: ANSWER_BYTES_MAX, junk_bytes_max: 4096 });
    let (mut buffer, mut fine) = (BytesMut::new(), true);
    let limit = Duration::from_secs(arguments.timeout);
    for path in super::map::files(&arguments.paths)? {
        let message = Bytes::copy_from_slice(unframed(&read(&path)?));
        let mut out = BytesMut::new();
        codec.encode(message, &mut out)?;
        stream.write_all(&out).await?;
        let answer = tokio::time::timeout(limit, async {
            loop {
                if let Some(Frame::Message(answer)) = codec.decode(&mut buffer)? {
                    return anyhow::Ok(answer);
                }
                ensure!(
                    stream.read_buf(&mut buffer).await? > 0,
                    "the connection was closed without an answer"
                );
            }
        });
        let answer =
            answer.await.with_context(|| format!("no answer to {} in {limit:?}", path.display()))??;
        let text = String::from_utf8_lossy(&answer).replace('\r', "\n");
        fine &= text.contains("\nMSA|AA") || text.contains("\nMSA|CA");
        println!("{}:\n{text}", path.display());
    }
    Ok(fine)
}

#[expect(clippy::print_stdout, reason = "this is the command's output")]
async fn http(arguments: &Send, path: &str, content_type: &str) -> Result<bool> {
    let limit = Duration::from_secs(arguments.timeout);
    let mut client = Client::builder().timeout(limit).no_proxy().redirect(reqwest::redirect::Policy::none());
    if let Some(authority) = &arguments.cacert {
        client = client.tls_certs_only([Certificate::from_pem(&read(authority)?)?]);
    }
    let client = client.build()?;
    let mut fine = true;
    for file in super::map::files(&arguments.paths)? {
        let body = read(&file)?;
        let url = format!("{}{}", arguments.target.trim_end_matches('/'), address(path, &body));
        let mut request =
            client.post(&url).header("content-type", media_type(content_type, &body)).body(body);
        if let Some(key) = &arguments.key {
            request = request.header("x-api-key", key);
        }
        let answer = request.send().await.with_context(|| format!("{url} does not answer"))?;
        let status = answer.status();
        let text = answer.text().await?.replace('\r', "\n");
        // trouble of HL7 v3 is an answer like any other
        fine &= status.is_success()
            && !["\"CE\"", "\"CR\""].iter().any(|code| path == "/v3/ingest" && text.contains(code));
        println!("{}: {status}\n{text}", file.display());
    }
    Ok(fine)
}

/// The type of an HL7 v3 body tells its wrapping.
fn media_type(content_type: &str, body: &[u8]) -> String {
    let read = (content_type == "application/xml").then(|| v3::Message::read(body, &v3::Limits::default()));
    match read {
        Some(Ok(v3::Message { envelope: Some(envelope), .. })) => envelope.version.media_type().to_owned(),
        _ => content_type.to_owned(),
    }
}

/// Bundles go to the FHIR base, other resources to their type.
fn address(path: &str, body: &[u8]) -> String {
    let kind = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|v| v["resourceType"].as_str().map(str::to_owned));
    match kind {
        Some(kind) if path == "/fhir" && kind != "Bundle" => format!("{path}/{kind}"),
        _ => path.to_owned(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
