//! `hilum health`

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cli::HealthArgs;

const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks `/readyz` of a plain http listener. Exit code 0 when ready, 1 when not.
#[expect(clippy::print_stdout, reason = "this is the command's output")]
pub(crate) fn run(arguments: &HealthArgs) -> Result<ExitCode> {
    let mut stream = TcpStream::connect(&arguments.address)
        .with_context(|| format!("nobody answers on {}", arguments.address))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    println!("{}", answer.lines().last().unwrap_or_default());
    Ok(if answer.starts_with("HTTP/1.1 200") { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
