//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Hilum hears every protocol in the building and gives back one clean FHIR record.
///
/// Without a command it serves the development default: FHIR, HL7 v2 and v3 and MPPS over HTTP on 127.0.0.1:8080, HL7 v2 over MLLP on
/// 127.0.0.1:3000, DICOM on 127.0.0.1:11112, data in ./data.
#[derive(Debug, Parser)]
#[command(name = "hilum", version, max_term_width = 110)]
pub(crate) struct Cli {
    /// Configuration file; without one the development default is used
    #[arg(long, short, global = true, env = "HILUM_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// What to do; `serve` when left out
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Open all doors and serve until SIGTERM
    Serve(Serve),
    /// Read the configuration, certificates and rule tables, and say what is wrong with them
    Check,
    /// Make a certificate authority and a server certificate for development in certs/
    DevCerts(DevCerts),
    /// List the sites, or switch one off and on
    Site(SiteArgs),
    /// Make, list and revoke API keys; works beside a running edge
    Key(KeyArgs),
    /// Show the FHIR transaction an HL7 v2, HL7 v3, MPPS or DICOM file makes, with lineage and unmapped fields; stores nothing
    Map(Map),
    /// Send files as a sender would, and print each answer
    Send(Send),
    /// List what came in, show what was answered and why, and replay it by today's rules; works beside a running edge
    Submissions(SubmissionsArgs),
    /// Show what waits to be delivered, and pass over what a receiver refuses; works beside a running edge
    Deliveries(DeliveriesArgs),
    /// Remove a study with its images for good
    Study(StudyArgs),
    /// Bring the databases below the data folder to this version's schema
    Migrate,
    /// Copy databases and blobs to a folder while the edge runs
    Backup {
        /// The folder; one with an older backup is brought up to date
        out: PathBuf,
    },
    /// Put a backup into the data folder, which must be empty
    Restore {
        /// The folder of the backup
        from: PathBuf,
    },
    /// Check rows, index and blobs against each other; works beside a running edge
    Fsck(Fsck),
    /// Exit 0 when a running edge on this machine is ready (container health check)
    Health(HealthArgs),
}

/// Arguments of `serve`.
#[derive(Debug, Default, Args)]
pub(crate) struct Serve {
    /// Write {"listeners":[{"protocol","address","surfaces"}]} here once all doors are open
    #[arg(long, value_name = "PATH")]
    pub(crate) ready_file: Option<PathBuf>,
}

/// Arguments of `fsck`.
#[derive(Debug, Args)]
pub(crate) struct Fsck {
    /// Read every blob and compare it with its name
    #[arg(long)]
    pub(crate) deep: bool,
    /// Make the search index again from the stored resources first. With SQLite the edge must be stopped; with PostgreSQL senders are told to send again meanwhile
    #[arg(long)]
    pub(crate) rebuild: bool,
}

/// Arguments of `dev-certs`.
#[derive(Debug, Args)]
pub(crate) struct DevCerts {
    /// Folder for ca.pem, edge.pem, edge.key
    #[arg(long, default_value = "certs")]
    pub(crate) out: PathBuf,
    /// Names and addresses the certificate is for
    #[arg(long, default_values_t = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])]
    pub(crate) host: Vec<String>,
}

/// Arguments of `site`.
#[derive(Debug, Args)]
pub(crate) struct SiteArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: SiteCommand,
}

/// The `site` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum SiteCommand {
    /// List all sites
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Refuse everything of a site; its data is kept
    Disable {
        /// Its id
        id: String,
    },
    /// Serve a disabled site again
    Enable {
        /// Its id
        id: String,
    },
}

/// Arguments of `key`.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

/// The `key` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key; it is printed once, alone on the last line
    Add {
        /// The site it belongs to
        #[arg(long, default_value = "default")]
        site: String,
        /// What people call it
        #[arg(long)]
        name: String,
        /// What it may do, separated by blanks: system/*.cruds, system/Patient.rs, system/Observation.rs?category=laboratory, ingest/hl7v2, ingest/hl7v3, ingest/mpps, endpoint.reveal, admin/metrics, admin/submissions, admin/studies, admin/all
        #[arg(long, default_value = "system/*.cruds ingest/hl7v2 ingest/hl7v3 ingest/mpps")]
        scope: String,
        /// Days until it expires
        #[arg(long, value_name = "DAYS")]
        days: Option<u32>,
    },
    /// List all keys, revoked ones too
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key; the next request with it is refused
    Revoke {
        /// The part between hil_ and the second underscore
        key_id: String,
    },
}

/// Arguments of `map`.
#[derive(Debug, Args)]
pub(crate) struct Map {
    /// Files, or folders to go through
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Site whose settings apply
    #[arg(long, default_value = "default")]
    pub(crate) site: String,
    /// One line for each file instead of its Bundle
    #[arg(long)]
    pub(crate) summary: bool,
    /// One JSON object for each file: bundle, issues, unmapped, lineage
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `send`.
#[derive(Debug, Args)]
pub(crate) struct Send {
    /// The protocol
    pub(crate) protocol: SendProtocol,
    /// mllp, dicom: HOST:PORT; v2, v3, mpps, fhir: http://HOST:PORT
    pub(crate) target: String,
    /// Files, or folders to go through; dicom without any asks for C-ECHO
    #[arg(required_if_eq_any([("protocol", "mllp"), ("protocol", "v2"), ("protocol", "v3"), ("protocol", "mpps"), ("protocol", "fhir")]), value_name = "FILE")]
    pub(crate) paths: Vec<PathBuf>,
    /// API key for v2, v3, mpps and fhir
    #[arg(long, env = "HILUM_API_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// Certificate authority (PEM) of an https target
    #[arg(long, value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,
    /// Called AE title (dicom)
    #[arg(long, default_value = "HILUM", value_name = "AE")]
    pub(crate) called: String,
    /// Calling AE title (dicom)
    #[arg(long, default_value = "HILUM_SCU", value_name = "AE")]
    pub(crate) calling: String,
    /// Longest wait for an answer
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}

/// Arguments of `submissions`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SubmissionsArgs {
    /// What to do; `list` when left out
    #[command(subcommand)]
    pub(crate) command: Option<SubmissionsCommand>,
    #[command(flatten)]
    pub(crate) list: SubmissionsList,
    /// The site; the first one of the configuration when left out
    #[arg(long, global = true)]
    pub(crate) site: Option<String>,
}

/// The `submissions` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum SubmissionsCommand {
    /// List submissions, newest first
    List(SubmissionsList),
    /// Show a submission: changes made, issues, what no rule consumed, answer, deliveries
    Show(SubmissionsShow),
    /// Show what a submission would change by today's rules, and commit it
    Replay(SubmissionsReplay),
}

/// Which submissions are listed: all that is given has to hold.
#[derive(Debug, Args)]
pub(crate) struct SubmissionsList {
    /// Only those somebody should look at: whose they are was not clear, or they came late
    #[arg(long)]
    pub(crate) attention: bool,
    /// Only rejected ones
    #[arg(long)]
    pub(crate) rejected: bool,
    /// Only of this peer: its address, its AE title or key id, MSH-3, MSH-4 or both (RIS|NORTH)
    #[arg(long)]
    pub(crate) peer: Option<String>,
    /// Only with this control id or SOP Instance UID
    #[arg(long, value_name = "ID")]
    pub(crate) control: Option<String>,
    /// Only since then: 90m, 12h, 3d, a date (2024-01-31) or a time of the site's zone (2024-01-31T08:00)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only of this kind: v2, v3, mpps, dicom, fhir, or ADT^A08, ADT, C-STORE CT
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Only through this listener, such as mllp-3000
    #[arg(long, value_name = "NAME")]
    pub(crate) listener: Option<String>,
    /// Only with a smaller number
    #[arg(long, value_name = "NUMBER")]
    pub(crate) before: Option<u64>,
    /// At most so many
    #[arg(long, default_value_t = 50)]
    pub(crate) count: u32,
    /// Print one JSON object for each
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `submissions show`.
#[derive(Debug, Args)]
pub(crate) struct SubmissionsShow {
    /// Its number
    #[arg(value_name = "NUMBER")]
    pub(crate) submission: u64,
    /// Print the bytes as they came in, and nothing else
    #[arg(long)]
    pub(crate) original: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `submissions replay`.
#[derive(Debug, Args)]
pub(crate) struct SubmissionsReplay {
    /// Its number
    #[arg(value_name = "NUMBER")]
    pub(crate) submission: u64,
    /// Commit it, as a new submission that names this one. With SQLite the edge must be stopped; a running one does it by POST /admin/submissions/NUMBER/replay?commit=true
    #[arg(long)]
    pub(crate) commit: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `deliveries`.
#[derive(Debug, Args)]
pub(crate) struct DeliveriesArgs {
    /// What to do; `list` when left out
    #[command(subcommand)]
    pub(crate) command: Option<DeliveriesCommand>,
    /// The site; the first one of the configuration when left out
    #[arg(long, global = true)]
    pub(crate) site: Option<String>,
    /// Print one JSON object for each
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// The `deliveries` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum DeliveriesCommand {
    /// List the Subscriptions with their state and what waits for them
    List,
    /// Give up the delivery that a Subscription sends next, so that those behind it go on; one in error is asked for again
    PassOver(PassOver),
}

/// Arguments of `deliveries pass-over`.
#[derive(Debug, Args)]
pub(crate) struct PassOver {
    /// Id of the Subscription. With SQLite the edge must be stopped; a running one does it by POST /admin/deliveries/ID/NUMBER/pass-over
    #[arg(value_name = "ID")]
    pub(crate) subscription: String,
    /// Number of the delivery; `hilum deliveries` shows it
    pub(crate) number: u64,
}

/// Arguments of `study`.
#[derive(Debug, Args)]
pub(crate) struct StudyArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: StudyCommand,
    /// The site; the first one of the configuration when left out
    #[arg(long, global = true)]
    pub(crate) site: Option<String>,
}

/// The `study` commands.
#[derive(Debug, Subcommand)]
pub(crate) enum StudyCommand {
    /// Remove a study with its images, performed steps, ImagingStudy and Procedures for good; a submission says who did it
    Delete(StudyDelete),
}

/// Arguments of `study delete`.
#[derive(Debug, Args)]
pub(crate) struct StudyDelete {
    /// Its Study Instance UID. With SQLite the edge must be stopped; a running one does it by DELETE /admin/studies/UID
    pub(crate) uid: String,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How files are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SendProtocol {
    Mllp,
    V2,
    V3,
    Mpps,
    Dicom,
    Fhir,
}

/// Arguments of `health`.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Address of an http listener on this machine
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) address: String,
}
