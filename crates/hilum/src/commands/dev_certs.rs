//! `hilum dev-certs`

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use crate::cli::DevCerts;

/// Makes an authority and a server certificate signed by it. Existing files are never overwritten.
#[expect(clippy::print_stdout, reason = "this is the command's output")]
pub(crate) fn run(arguments: &DevCerts) -> Result<ExitCode> {
    let out = &arguments.out;
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    for name in ["ca.pem", "edge.pem", "edge.key"] {
        ensure!(
            !out.join(name).exists(),
            "{} exists already; remove it to make a new one",
            out.join(name).display()
        );
    }
    let authority = CertifiedIssuer::self_signed(authority_params(), KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = server_params(&arguments.host)?.signed_by(&key, &authority)?;
    write(&out.join("ca.pem"), &authority.pem(), 0o644)?;
    write(&out.join("edge.pem"), &certificate.pem(), 0o644)?;
    write(&out.join("edge.key"), &key.serialize_pem(), 0o600)?;
    println!(
        "wrote {0}/ca.pem, {0}/edge.pem and {0}/edge.key for {1}",
        out.display(),
        arguments.host.join(", ")
    );
    println!(
        "for development only; try: curl --cacert {}/ca.pem https://localhost:8443/fhir/metadata",
        out.display()
    );
    Ok(ExitCode::SUCCESS)
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Hilum development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn server_params(hosts: &[String]) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(hosts.to_vec())?;
    params.distinguished_name.push(DnType::CommonName, "Hilum edge (development)");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
