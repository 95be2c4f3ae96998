//! `hilum check`

use std::process::ExitCode;

use anyhow::Result;
use hilum_listen::http::ALPN;
use hilum_listen::{TlsFiles, TlsServer};

use crate::config::Config;

/// Reads everything a start would read. Nothing is opened.
#[expect(clippy::print_stdout, reason = "this is the command's output")]
pub(crate) fn run(config: &Config) -> Result<ExitCode> {
    super::rules(config)?;
    println!("rule tables: understood");
    for listen in &config.listen {
        if let (Some(cert), Some(key)) = (&listen.cert, &listen.key) {
            let files =
                TlsFiles { cert: cert.clone(), key: key.clone(), client_ca: listen.client_ca.clone() };
            TlsServer::load(files, ALPN)?;
        }
        println!("listener {} {}: fine", listen.protocol.as_str(), listen.address);
    }
    for site in config.sites()? {
        println!(
            "site {}: {} ae titles, {} clients, zone {}",
            site.id,
            site.ae_titles.len(),
            site.clients.len(),
            site.timezone
        );
        for authority in &site.authorities {
            println!("  authority {}: {}", authority.names.join(", "), authority.system);
        }
    }
    println!("the configuration is fine");
    Ok(ExitCode::SUCCESS)
}
