//! Blobs as objects in a bucket that speaks S3: `{prefix}/{site}/ab/{name}`.
//!
//! A small object is one PUT under its address. A larger one is uploaded in parts as it arrives, under a name of its own because its address is
//! not known before its end, and then copied to its address by the server. Every request carries a checksum; nothing is durable before the
//! server has said so.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
    WriteMultipart,
};
use tokio::sync::RwLock;
use tokio_util::io::StreamReader;

use super::{AGED, BlobId, BlobReader, Pending, UNUSED_AGE_MIN, hex, told};
use crate::Error;

/// Bytes of a part of an upload, the least that S3 takes, and what is kept in memory of an object before parts are sent.
const PART_BYTES: usize = 5 * 1024 * 1024;
/// Parts of one object on their way at a time.
const PARTS_MAX: usize = 2;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// A sender waits for its answer meanwhile: better to say soon that it is to send again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(6);
const RETRIES_MAX: usize = 2;
const TEMPORARY: &str = "tmp";
/// Uploads without an address that are older than this are garbage of a crash.
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Where the bucket is. Credentials come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, or a role).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// Before every name; empty = none.
    pub prefix: String,
    /// Address of a server other than AWS's.
    pub endpoint: Option<String>,
    /// Region; `us-east-1` when neither this nor the environment says.
    pub region: Option<String>,
}

/// The blobs of one site, in a bucket.
#[derive(Clone, Debug)]
pub struct S3 {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Held shared while an object takes its place, alone while one is removed: none is removed that was placed again.
    placing: Arc<RwLock<()>>,
    pub(super) pending: Pending,
}

impl S3 {
    /// The bucket of a configuration.
    ///
    /// # Errors
    /// `Unavailable` when the configuration makes no client.
    pub fn connect(config: &S3Config) -> Result<Arc<dyn ObjectStore>, Error> {
        let is_plain = config.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let client = ClientOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_timeout(REQUEST_TIMEOUT)
            .with_allow_http(is_plain);
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIMEOUT,
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&config.bucket)
            .with_client_options(client)
            .with_retry(retry)
            .with_checksum_algorithm(Checksum::SHA256);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &config.region {
            builder = builder.with_region(region);
        }
        let store =
            builder.build().map_err(|e| Error::unavailable("the s3 bucket is not usable").because(e))?;
        Ok(Arc::new(store))
    }

    /// The blobs of a site below a prefix of the bucket.
    pub fn of_site(store: Arc<dyn ObjectStore>, prefix: &str, site: &str) -> Self {
        let prefix =
            Path::from_iter([prefix, site].iter().flat_map(|part| part.split('/')).filter(|p| !p.is_empty()));
        Self { store, prefix, placing: Arc::default(), pending: Pending::default() }
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
        let at = config.endpoint.as_deref().unwrap_or("AWS");
        let bucket = &config.bucket;
        match probed.await {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(Error::unavailable(format!("the bucket {bucket} at {at} gives back other bytes")))
            }
            Err(error) => {
                let text = format!("the bucket {bucket} at {at} cannot be written, read and deleted in");
                Err(Error::unavailable(text).because(root(&error)))
            }
        }
    }

    /// The name of a blob in the bucket.
    pub fn path(&self, id: &BlobId) -> Path {
        let name = id.hex();
        self.prefix.clone().join(&name[..2]).join(name)
    }

    pub(super) fn writer(&self, head: &[u8]) -> Writer {
        Writer { s3: self.clone(), buffer: BytesMut::from(head), upload: None }
    }

    /// Writes a whole blob.
    pub(super) async fn put(&self, id: &BlobId, bytes: Bytes) -> Result<(), Error> {
        let _shared = self.placing.read().await;
        self.store.put(&self.path(id), bytes.into()).await.map(drop).map_err(refused)
    }

    pub(super) async fn reader(&self, id: &BlobId) -> Result<Option<BlobReader>, Error> {
        match self.store.get(&self.path(id)).await {
            Ok(found) => {
                let bytes = found.meta.size;
                let stream = found.into_stream().map_err(std::io::Error::other);
                Ok(Some(BlobReader { bytes, reader: Box::pin(StreamReader::new(stream)) }))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(refused(error)),
        }
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
        let _alone = self.placing.write().await;
        let Some(meta) = self.head(id).await? else { return Ok(true) };
        if !is_older(&meta, UNUSED_AGE_MIN) {
            return Ok(false);
        }
        self.store.delete(&self.path(id)).await.map_err(refused)?;
        Ok(true)
    }

    pub(super) async fn aged(&self, fan: u8) -> Result<Vec<BlobId>, Error> {
        let folder = self.prefix.clone().join(hex(&[fan]));
        let found: Vec<ObjectMeta> = self.store.list(Some(&folder)).try_collect().await.map_err(refused)?;
        let aged = found.iter().filter(|meta| is_older(meta, AGED));
        Ok(aged.filter_map(|meta| BlobId::from_hex(meta.location.filename()?)).collect())
    }

    /// Removes uploads that a crash left without an address.
    pub(super) async fn sweep(&self) -> Result<(), Error> {
        let folder = self.prefix.clone().join(TEMPORARY);
        let mut left = self.store.list(Some(&folder));
        while let Some(meta) = left.try_next().await.map_err(refused)? {
            if is_older(&meta, TEMPORARY_AGE_MAX) {
                self.store.delete(&meta.location).await.map_err(refused)?;
            }
        }
        Ok(())
    }

    async fn head(&self, id: &BlobId) -> Result<Option<ObjectMeta>, Error> {
        match self.store.head(&self.path(id)).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(refused(error)),
        }
    }
}

/// An object being written: bytes in memory, and when there are many an upload in parts under a name of its own.
pub(super) struct Writer {
    s3: S3,
    buffer: BytesMut,
    upload: Option<(Path, WriteMultipart)>,
}

impl Writer {
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.buffer.len() + bytes.len() > PART_BYTES {
            self.send_buffer().await?;
        }
        match &mut self.upload {
            Some((_, upload)) => {
                upload.wait_for_capacity(PARTS_MAX).await.map_err(refused)?;
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
            let upload = self.s3.store.put_multipart(&path).await.map_err(refused)?;
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
        let (buffer, upload) = (self.buffer.split().freeze(), self.upload.take());
        tokio::spawn(async move {
            let done = match upload {
                None => s3.put(&id, buffer).await,
                Some((path, upload)) => s3.place(&id, path, upload).await,
            };
            s3.pending.end(&id, &settle, done.map_err(told));
        });
    }
}

impl S3 {
    /// Ends an upload and gives the object its address.
    async fn place(&self, id: &BlobId, temporary: Path, upload: WriteMultipart) -> Result<(), Error> {
        upload.finish().await.map_err(refused)?;
        let shared = self.placing.read().await;
        let placed = self.store.copy(&temporary, &self.path(id)).await.map_err(refused);
        drop(shared);
        // what cannot be removed is garbage of a known name; the blob is where it belongs
        if let Err(error) = self.store.delete(&temporary).await {
            tracing::warn!(%error, "a temporary object was not removed");
        }
        placed
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
    use object_store::memory::InMemory;
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
}
