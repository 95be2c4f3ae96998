//! Whether everything is as it should be: rows against rows, index against bodies, blobs against rows. Works beside running edges, in one
//! snapshot a site; the index can be made again.

use std::fs::File;
use std::sync::Arc;

use hilum_blobs::S3;
use hilum_blobs::disk::{is_intact, path_in};
use hilum_rows::{Checks, Findings, Shelf};
use object_store::ObjectStore;

use crate::{BlobId, Config, Error};

/// Checks every site.
///
/// # Errors
/// `Unavailable` when a database cannot be read at all, or may not be changed as `rebuild` asks.
pub fn fsck(config: &Config, checks: Checks) -> Result<Vec<Findings>, Error> {
    hilum_rows::check(&config.of_rows(), checks, &BlobShelf::open(config)?)
}

/// Where the blobs are.
enum BlobShelf<'c> {
    Files(&'c Config),
    Bucket { runtime: tokio::runtime::Runtime, bucket: Arc<dyn ObjectStore>, prefix: &'c str },
}

impl<'c> BlobShelf<'c> {
    fn open(config: &'c Config) -> Result<Self, Error> {
        let Some(of) = &config.bucket else { return Ok(Self::Files(config)) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self::Bucket { runtime, bucket: S3::connect(of)?, prefix: &of.prefix })
    }
}

impl Shelf for BlobShelf<'_> {
    fn check(
        &self,
        referred: &[(BlobId, [u8; 32])],
        deep: bool,
        findings: &mut Findings,
    ) -> Result<(), Error> {
        for (blob, body_sha256) in referred {
            findings.blobs += 1;
            match self {
                Self::Files(config) => {
                    let blobs = config.data_dir.join("sites").join(&findings.site).join("blobs");
                    let wrong = match File::open(path_in(&blobs, blob)) {
                        Err(_) => "missing",
                        Ok(mut file) => match !deep || is_intact(&mut file, blob, body_sha256)? {
                            true => continue,
                            false => "its bytes are not those its name stands for",
                        },
                    };
                    findings.wrong(format!("blob {}: {wrong}", blob.hex()));
                }
                Self::Bucket { runtime, bucket, prefix } => {
                    let bucket = S3::of_site(bucket.clone(), prefix, &findings.site);
                    if runtime.block_on(bucket.bytes(blob))?.is_none() {
                        findings.wrong(format!("blob {}: missing in the bucket", blob.hex()));
                    }
                }
            }
        }
        Ok(())
    }
}
