//! Blobs as objects in a bucket that speaks S3: `{prefix}/{site}/ab/{name}`.
//!
//! A small object is one PUT under its address. A larger one is uploaded in parts as it arrives, under a name of its own because its address is
//! not known before its end, and then copied to its address by the server. Every request carries a checksum; nothing is durable before the
//! server has said so. A request may take longer the more bytes it moves.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
    WriteMultipart,
};
use parking_lot::Mutex;
use tokio::sync::RwLock;
use tokio_util::io::StreamReader;

use super::{AGED, BlobId, BlobReader, Pending, UNUSED_AGE_MIN, hex, told};
use crate::Error;

/// Bytes of a part of an upload, the least that S3 takes, and what is kept in memory of an object before parts are sent.
const PART_BYTES: usize = 5 * 1024 * 1024;
/// Parts of one object on their way at a time.
const PARTS_MAX: usize = 2;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A request that moves no bytes to speak of, and the wait for the next bytes of an object.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// More time is given to what moves bytes: so slow it may be.
const BYTES_PER_SECOND_MIN: u64 = 1024 * 1024;
/// So slow may a server copy within itself.
const COPIED_BYTES_PER_SECOND_MIN: u64 = 16 * 1024 * 1024;
/// A server copies no larger object in one request (5 GiB); it is sent once more then.
const COPY_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;
/// Blobs whose places are remembered at least, before those that nobody uses are forgotten.
const PLACES_KEPT: usize = 256;
/// A sender waits for its answer meanwhile: better to say soon that it is to send again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(6);
const RETRIES_MAX: usize = 2;
const TEMPORARY: &str = "tmp";
/// Uploads without an address that are older than this are garbage of a crash.
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Where the bucket is. Credentials come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, or a role), and so
/// may all else: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_DEFAULT_REGION`, `AWS_ALLOW_HTTP`. What is set here wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// Before every name; empty = none.
    pub prefix: String,
    /// Address of a server other than AWS's. One that begins with `http://` is spoken to without TLS.
    pub endpoint: Option<String>,
    /// Region; `us-east-1` when neither this nor the environment says.
    pub region: Option<String>,
}

/// The blobs of one site, in a bucket.
#[derive(Clone, Debug)]
pub struct S3 {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    places: Places,
    pub(super) pending: Pending,
}

impl S3 {
    /// The bucket of a configuration.
    ///
    /// # Errors
    /// `Unavailable` when the configuration makes no client.
    pub fn connect(config: &S3Config) -> Result<Arc<dyn ObjectStore>, Error> {
        let store = builder(
            config,
            std::env::vars_os().filter_map(|(k, v)| k.into_string().ok().zip(v.into_string().ok())),
        )
        .build();
        Ok(Arc::new(store.map_err(|e| Error::unavailable("the s3 bucket is not usable").because(e))?))
    }

    /// The blobs of a site below a prefix of the bucket.
    pub fn of_site(store: Arc<dyn ObjectStore>, prefix: &str, site: &str) -> Self {
        let prefix =
            Path::from_iter([prefix, site].iter().flat_map(|part| part.split('/')).filter(|p| !p.is_empty()));
        Self { store, prefix, places: Places::default(), pending: Pending::default() }
    }

    /// Writes, reads back and removes an object: whether the bucket can be used at all.
    ///
    /// # Errors
    /// `Unavailable`, naming the bucket.
    pub async fn probe(store: &dyn ObjectStore, config: &S3Config) -> Result<(), Error> {
        let name = format!("{}/.probe-{}", config.prefix, uuid::Uuid::now_v7());
        let path = Path::from(name.trim_start_matches('/'));
        let probed = async {
            store.put(&path, PutPayload::from_static(b"hilum")).await?;
            let read = store.get(&path).await?.bytes().await?;
            store.delete(&path).await?;
            Ok::<bool, object_store::Error>(read.as_ref() == b"hilum")
        };
        let at = config.endpoint.as_deref().unwrap_or("AWS (or the endpoint of the environment)");
        let bucket = &config.bucket;
        match within(REQUEST_TIMEOUT, probed).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(Error::unavailable(format!("the bucket {bucket} at {at} gives back other bytes")))
            }
            Err(error) => {
                let text = format!("the bucket {bucket} at {at} cannot be written, read and deleted in");
                Err(Error { message: text, ..error })
            }
        }
    }

    /// The name of a blob in the bucket.
    pub fn path(&self, id: &BlobId) -> Path {
        let name = id.hex();
        self.prefix.clone().join(&name[..2]).join(name)
    }

    pub(super) fn writer(&self, head: &[u8]) -> Writer {
        Writer { s3: self.clone(), buffer: BytesMut::from(head), bytes: head.len() as u64, upload: None }
    }

    /// Writes a whole blob.
    pub(super) async fn put(&self, id: &BlobId, bytes: Bytes) -> Result<(), Error> {
        let place = self.places.of(id);
        let _shared = place.read().await;
        let time = time_for(bytes.len() as u64);
        within(time, self.store.put(&self.path(id), bytes.into())).await.map(drop)
    }

    pub(super) async fn reader(&self, id: &BlobId) -> Result<Option<BlobReader>, Error> {
        let path = self.path(id);
        let found = within(REQUEST_TIMEOUT, found(self.store.get(&path))).await?;
        Ok(found.map(|found| {
            let (bytes, pieces) = (found.meta.size, Pieces(found.into_stream()));
            BlobReader { bytes, reader: Box::pin(StreamReader::new(pieces.into_stream())) }
        }))
    }

    /// Bytes of a stored blob; `None` when there is none with this address.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn bytes(&self, id: &BlobId) -> Result<Option<u64>, Error> {
        Ok(self.head(id).await?.map(|meta| meta.size))
    }

    /// Removes a blob unless it took its place a short time ago. Whether it is gone.
    pub(super) async fn remove_old(&self, id: &BlobId) -> Result<bool, Error> {
        let place = self.places.of(id);
        let _alone = place.write().await;
        let Some(meta) = self.head(id).await? else { return Ok(true) };
        if !is_older(&meta, UNUSED_AGE_MIN) {
            return Ok(false);
        }
        within(REQUEST_TIMEOUT, self.store.delete(&self.path(id))).await?;
        Ok(true)
    }

    pub(super) async fn aged(&self, fan: u8) -> Result<Vec<BlobId>, Error> {
        let folder = self.prefix.clone().join(hex(&[fan]));
        let (mut aged, mut listed) = (Vec::new(), self.store.list(Some(&folder)));
        while let Some(meta) = within(REQUEST_TIMEOUT, listed.try_next()).await? {
            if is_older(&meta, AGED) {
                aged.extend(meta.location.filename().and_then(BlobId::from_hex));
            }
        }
        Ok(aged)
    }

    /// Removes uploads that a crash left without an address.
    pub(super) async fn sweep(&self) -> Result<(), Error> {
        let folder = self.prefix.clone().join(TEMPORARY);
        let mut left = self.store.list(Some(&folder));
        while let Some(meta) = within(REQUEST_TIMEOUT, left.try_next()).await? {
            if is_older(&meta, TEMPORARY_AGE_MAX) {
                within(REQUEST_TIMEOUT, self.store.delete(&meta.location)).await?;
            }
        }
        Ok(())
    }

    async fn head(&self, id: &BlobId) -> Result<Option<ObjectMeta>, Error> {
        let path = self.path(id);
        within(REQUEST_TIMEOUT, found(self.store.head(&path))).await
    }
}

/// The client of a bucket; `environment` are the variables of the process.
fn builder(config: &S3Config, environment: impl Iterator<Item = (String, String)>) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::new();
    let mut allows_http = None;
    for (name, value) in environment.filter(|(name, _)| name.starts_with("AWS_")) {
        if name == "AWS_ALLOW_HTTP" {
            allows_http = Some(value.eq_ignore_ascii_case("true") || value == "1");
        }
        if let Ok(key) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(key, value);
        }
    }
    let of_environment = |key| builder.get_config_value(&key).filter(|value| !value.is_empty());
    let endpoint = config
        .endpoint
        .clone()
        .or_else(|| of_environment(AmazonS3ConfigKey::S3Endpoint))
        .or_else(|| of_environment(AmazonS3ConfigKey::Endpoint));
    let is_plain = endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let is_forbidden = config.endpoint.is_none() && allows_http == Some(false);
    // how long a request may take is said for each (`within`)
    let client = ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout_disabled()
        .with_allow_http(is_plain && !is_forbidden);
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIMEOUT,
    };
    builder = builder
        .with_bucket_name(&config.bucket)
        .with_client_options(client)
        .with_retry(retry)
        .with_checksum_algorithm(Checksum::SHA256);
    if let Some(endpoint) = endpoint {
        // this key goes before the other one, whatever the environment says
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    builder
}

/// The places of blobs that somebody puts one at or removes one from. A place is held shared while its object takes it, alone while it is removed:
/// none is removed that was placed again, and nobody waits for another blob.
#[derive(Clone, Debug, Default)]
struct Places(Arc<Mutex<HashMap<BlobId, Weak<RwLock<()>>>>>);

impl Places {
    fn of(&self, id: &BlobId) -> Arc<RwLock<()>> {
        let mut places = self.0.lock();
        if let Some(place) = places.get(id).and_then(Weak::upgrade) {
            return place;
        }
        if places.len() >= PLACES_KEPT {
            places.retain(|_, place| place.strong_count() > 0);
        }
        let place = Arc::default();
        places.insert(*id, Arc::downgrade(&place));
        place
    }
}

/// The bytes of an object as they arrive; each piece in time.
struct Pieces(futures_util::stream::BoxStream<'static, object_store::Result<Bytes>>);

impl Pieces {
    fn into_stream(self) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send {
        futures_util::stream::unfold(Some(self.0), async |left| {
            let mut left = left?;
            match tokio::time::timeout(REQUEST_TIMEOUT, left.next()).await {
                Ok(piece) => piece.map(|piece| (piece.map_err(std::io::Error::other), Some(left))),
                Err(late) => Some((Err(std::io::Error::new(std::io::ErrorKind::TimedOut, late)), None)),
            }
        })
    }
}

/// How long a request may take that moves so many bytes.
fn time_for(bytes: u64) -> Duration {
    REQUEST_TIMEOUT + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN)
}

/// What a request answers, when it does in time.
async fn within<T>(
    time: Duration,
    request: impl Future<Output = object_store::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(time, request).await {
        Ok(answer) => answer.map_err(refused),
        Err(late) => Err(Error::unavailable("the bucket did not answer in time").because(late)),
    }
}

/// `None` when there is none.
async fn found<T>(request: impl Future<Output = object_store::Result<T>>) -> object_store::Result<Option<T>> {
    match request.await {
        Ok(found) => Ok(Some(found)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An object being written: bytes in memory, and when there are many an upload in parts under a name of its own.
pub(super) struct Writer {
    s3: S3,
    buffer: BytesMut,
    /// All bytes so far.
    bytes: u64,
    upload: Option<(Path, WriteMultipart)>,
}

impl Writer {
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.bytes += bytes.len() as u64;
        if self.buffer.len() + bytes.len() > PART_BYTES {
            self.send_buffer().await?;
        }
        match &mut self.upload {
            Some((_, upload)) => {
                let capacity = async { upload.wait_for_capacity(PARTS_MAX).await };
                within(time_for((PARTS_MAX * PART_BYTES) as u64), capacity).await?;
                upload.write(bytes);
            }
            None => self.buffer.extend_from_slice(bytes),
        }
        Ok(())
    }

    /// Begins the upload, or goes on with it.
    async fn send_buffer(&mut self) -> Result<(), Error> {
        if self.upload.is_none() {
            let path = self.s3.prefix.clone().join(TEMPORARY).join(uuid::Uuid::now_v7().to_string());
            let upload = within(REQUEST_TIMEOUT, self.s3.store.put_multipart(&path)).await?;
            self.upload = Some((path, WriteMultipart::new_with_chunk_size(upload, PART_BYTES)));
        }
        if let Some((_, upload)) = &mut self.upload {
            upload.put(self.buffer.split().freeze());
        }
        Ok(())
    }

    /// Ends the body: it goes to its place while the caller goes on.
    pub(super) fn seal(mut self, id: BlobId) {
        let (s3, settle) = (self.s3.clone(), self.s3.pending.begin(id));
        let (buffer, bytes, upload) = (self.buffer.split().freeze(), self.bytes, self.upload.take());
        tokio::spawn(async move {
            let done = match upload {
                None => s3.put(&id, buffer).await,
                Some((path, upload)) => s3.place(&id, path, upload, bytes).await,
            };
            s3.pending.end(&id, &settle, done.map_err(told));
        });
    }
}

impl S3 {
    /// Ends an upload and gives the object of so many bytes its address.
    async fn place(
        &self,
        id: &BlobId,
        temporary: Path,
        upload: WriteMultipart,
        bytes: u64,
    ) -> Result<(), Error> {
        let in_server = REQUEST_TIMEOUT + Duration::from_secs(bytes / COPIED_BYTES_PER_SECOND_MIN);
        // the last parts, and what the server does to make one object of all
        within(in_server + time_for((PARTS_MAX * PART_BYTES) as u64), upload.finish()).await?;
        let place = self.places.of(id);
        let shared = place.read().await;
        let placed = if bytes <= COPY_BYTES_MAX {
            within(in_server, self.store.copy(&temporary, &self.path(id))).await
        } else {
            self.send_again(&temporary, id).await
        };
        drop(shared);
        // what cannot be removed is garbage of a known name; the blob is where it belongs
        if let Err(error) = within(REQUEST_TIMEOUT, self.store.delete(&temporary)).await {
            tracing::warn!(%error, "a temporary object was not removed");
        }
        placed
    }

    /// Copies by reading and writing.
    async fn send_again(&self, temporary: &Path, id: &BlobId) -> Result<(), Error> {
        let read = within(REQUEST_TIMEOUT, self.store.get(temporary)).await?;
        let read_bytes = read.meta.size;
        let upload = within(REQUEST_TIMEOUT, self.store.put_multipart(&self.path(id))).await?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut pieces = read.into_stream();
        let sent = async {
            while let Some(piece) = within(REQUEST_TIMEOUT, pieces.try_next()).await? {
                let capacity = async { upload.wait_for_capacity(PARTS_MAX).await };
                within(time_for((PARTS_MAX * PART_BYTES) as u64), capacity).await?;
                upload.put(piece);
            }
            Ok(())
        };
        if let Err(error) = sent.await {
            let _ = within(REQUEST_TIMEOUT, upload.abort()).await;
            return Err(error);
        }
        let in_server = Duration::from_secs(read_bytes / COPIED_BYTES_PER_SECOND_MIN);
        within(in_server + time_for((PARTS_MAX * PART_BYTES) as u64), upload.finish()).await.map(drop)
    }
}

impl Drop for Writer {
    /// An upload that was not sealed is given up: the server keeps its parts otherwise.
    fn drop(&mut self) {
        if let (Some((_, upload)), Ok(runtime)) = (self.upload.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move {
                if let Err(error) = upload.abort().await {
                    tracing::warn!(%error, "an upload was not given up");
                }
            });
        }
    }
}

fn is_older(meta: &ObjectMeta, age: Duration) -> bool {
    let ms = jiff::Timestamp::now().as_millisecond() - meta.last_modified.timestamp_millis();
    u64::try_from(ms).is_ok_and(|ms| Duration::from_millis(ms) >= age)
}

fn refused(error: object_store::Error) -> Error {
    Error::unavailable("the bucket did not take or give a blob").because(root(&error))
}

/// The innermost cause: each error around it says the same again, with all requests made.
fn root(error: &object_store::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use object_store::ClientConfigKey;
    use object_store::memory::InMemory;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};
    use tokio::io::AsyncReadExt;

    use super::super::Blobs;
    use super::*;
    use crate::ErrorKind;

    async fn written(blobs: &Blobs, head: &'static [u8], body: &[u8]) -> super::super::FinishedBlob {
        let mut writer = blobs.writer(Bytes::from_static(head));
        for piece in body.chunks(700_000) {
            writer.write(piece).await.unwrap();
        }
        writer.finish().await.unwrap()
    }

    #[tokio::test]
    async fn small_and_large_objects_are_found_under_their_content() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let blobs = Blobs::S3(S3::of_site(store.clone(), "hilum/blobs", "north"));
        for bytes in [0, 1, 700_001, PART_BYTES, 3 * PART_BYTES + 17] {
            let body: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
            for _ in 0..2 {
                let blob = written(&blobs, b"head", &body).await;
                assert_eq!(blob.bytes, bytes as u64 + 4);
                let mut found = blobs.reader(&blob.id).await.unwrap().unwrap();
                let mut read = Vec::new();
                found.reader.read_to_end(&mut read).await.unwrap();
                assert_eq!(found.bytes, blob.bytes);
                assert!(read.starts_with(b"head") && read[4..] == body, "{bytes}");
            }
        }
        let names: Vec<String> =
            store.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
        assert_eq!(names.len(), 5, "each content once, nothing temporary left: {names:?}");
        assert!(names.iter().all(|name| name.starts_with("hilum/blobs/north/")), "{names:?}");
        assert!(blobs.reader(&BlobId([0; 32])).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_said_in_time_and_nothing_is_durable() {
        let config = S3Config {
            bucket: "b".into(),
            prefix: String::new(),
            endpoint: Some("http://127.0.0.1:1".into()),
            region: Some("us-east-1".into()),
        };
        let store = S3::connect(&config).unwrap();
        let error = S3::probe(store.as_ref(), &config).await.unwrap_err();
        assert!(error.message.contains("the bucket b at http://127.0.0.1:1"), "{}", error.message);
        let blobs = Blobs::S3(S3::of_site(store, "", "north"));
        let mut writer = blobs.writer(Bytes::new());
        writer.write(b"x").await.unwrap();
        let sealed = writer.seal().unwrap();
        assert_eq!(blobs.durable(&sealed.id).await.unwrap_err().kind, ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn an_object_that_no_server_copies_is_sent_again() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let s3 = S3::of_site(store.clone(), "", "north");
        let body: Vec<u8> = (0..PART_BYTES + 100).map(|n| (n % 253) as u8).collect();
        let (temporary, id) = (Path::from("north/tmp/x"), BlobId([7; 32]));
        store.put(&temporary, body.clone().into()).await.unwrap();
        s3.send_again(&temporary, &id).await.unwrap();
        let sent = store.get(&s3.path(&id)).await.unwrap().bytes().await.unwrap();
        assert!(sent == body);
    }

    #[tokio::test]
    async fn a_removal_that_takes_long_holds_up_no_other_blob() {
        let slow = ThrottledStore::new(InMemory::new(), ThrottleConfig::default());
        slow.config_mut(|config| config.wait_get_per_call = Duration::from_secs(3600));
        let s3 = S3::of_site(Arc::new(slow), "", "north");
        let (removed, other) = (BlobId([1; 32]), BlobId([2; 32]));
        let removing = {
            let s3 = s3.clone();
            tokio::spawn(async move { s3.remove_old(&removed).await })
        };
        let is_held = async {
            while s3.places.of(&removed).try_write().is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is_held).await.expect("it never begins");
        let placed = s3.put(&other, Bytes::from_static(b"x"));
        tokio::time::timeout(Duration::from_secs(10), placed).await.expect("it waits").unwrap();
        assert!(!removing.is_finished());
        removing.abort();
    }

    #[test]
    fn what_is_not_configured_is_taken_from_the_environment() {
        let with = |endpoint: Option<&str>, region: Option<&str>, variables: &[(&str, &str)]| {
            let config = S3Config {
                bucket: "b".into(),
                prefix: String::new(),
                endpoint: endpoint.map(str::to_owned),
                region: region.map(str::to_owned),
            };
            let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let builder = builder(&config, variables);
            let value = |key| builder.get_config_value(&key).unwrap_or_default();
            let allows_http = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
            [
                value(AmazonS3ConfigKey::S3Endpoint),
                value(AmazonS3ConfigKey::Region),
                value(AmazonS3ConfigKey::Token),
                value(allows_http),
                value(AmazonS3ConfigKey::Bucket),
            ]
        };
        let plain = ("AWS_ENDPOINT_URL", "http://minio:9000");
        let of_s3 = ("AWS_ENDPOINT_URL_S3", "https://s3.example");
        let token = ("AWS_SESSION_TOKEN", "t");
        let (north, east) = (("AWS_REGION", "north-1"), ("AWS_DEFAULT_REGION", "east-1"));
        for (found, expected) in [
            (with(None, None, &[plain, east, token]), ["http://minio:9000", "east-1", "t", "true", "b"]),
            (
                with(None, None, &[plain, of_s3, east, north]),
                ["https://s3.example", "north-1", "", "false", "b"],
            ),
            (
                with(None, None, &[plain, ("AWS_ALLOW_HTTP", "true")]),
                ["http://minio:9000", "", "", "true", "b"],
            ),
            (
                with(None, None, &[plain, ("AWS_ALLOW_HTTP", "false")]),
                ["http://minio:9000", "", "", "false", "b"],
            ),
            (
                with(Some("http://own:1"), Some("own-1"), &[of_s3, plain, north, ("AWS_BUCKET", "other")]),
                ["http://own:1", "own-1", "", "true", "b"],
            ),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn large_objects_have_time() {
        let config = S3Config { bucket: "b".into(), prefix: String::new(), endpoint: None, region: None };
        let whole = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
        assert_eq!(
            builder(&config, std::iter::empty()).get_config_value(&whole),
            None,
            "none for any request"
        );
        assert!(time_for(4 << 30) > Duration::from_secs(4096) && time_for(0) == REQUEST_TIMEOUT);
    }
}
