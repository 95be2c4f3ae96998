//! `hilum key`

use std::process::ExitCode;

use anyhow::{Result, bail};
use hilum_intake::store::ApiKey;

use crate::cli::{KeyArgs, KeyCommand};
use crate::config::Config;

const DAY_SECONDS: i64 = 86_400;

/// Makes, lists and revokes keys. A running edge sees the change on its next request.
#[expect(clippy::print_stdout, reason = "this is the command's output")]
pub(crate) fn run(config: &Config, arguments: &KeyArgs) -> Result<ExitCode> {
    let control = super::control(config)?;
    let now = hilum_intake::now();
    match &arguments.command {
        KeyCommand::Add { site, name, scope, days } => {
            let scopes: Vec<String> = scope.split_whitespace().map(str::to_owned).collect();
            let expires = days.map(|days| now.seconds() + i64::from(days) * DAY_SECONDS);
            let (key, secret) = control.add_key(site, name, &scopes, expires, now)?;
            println!("key {} of site {} may: {}", key.key_id, key.site, key.scopes.join(" "));
            println!("it is shown only once; send it in the X-API-Key header:");
            println!("{}", secret.0);
        }
        KeyCommand::List { json: true } => println!("{}", serde_json::to_string_pretty(&control.keys()?)?),
        KeyCommand::List { json: false } => {
            control.keys()?.iter().for_each(|key| println!("{}", line(key, now.seconds())))
        }
        KeyCommand::Revoke { key_id } => {
            if !control.revoke_key(key_id, now)? {
                bail!("there is no key {key_id:?}; `hilum key list` shows them");
            }
            println!("revoked {key_id}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(key: &ApiKey, now_seconds: i64) -> String {
    let state = match (key.revoked, key.expires) {
        (Some(_), _) => "revoked",
        (None, Some(at)) if at <= now_seconds => "expired",
        _ => "active",
    };
    format!("{:<14} {:<8} {:<16} {:<24} {}", key.key_id, state, key.site, key.name, key.scopes.join(" "))
}
