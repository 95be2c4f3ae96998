//! A real browser: a page of another origin reads a Patient with its key, and one that is not listed does not. Needs Chromium.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use harness::{Edge, http};

/// A browser that says nothing for longer than this is a failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// Reads a Patient with the key behind `#` and tells its own server what came of it.
const PAGE: &str = r#"<!doctype html><script>
fetch("URL", { headers: { "X-API-Key": location.hash.slice(1) } })
  .then(answer => answer.json().then(patient => [answer.status, patient.birthDate, answer.headers.get("ETag")].join(" ")))
  .catch(() => "hidden")
  .then(said => fetch("/said/" + encodeURIComponent(said)));
</script>"#;

/// A web server with one page.
struct Pages {
    listener: TcpListener,
}

impl Pages {
    fn open() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn origin(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }

    /// Serves the page to whoever asks; gives what it says.
    fn serve(self, page: String) -> Receiver<String> {
        let (told, said) = channel();
        std::thread::spawn(move || {
            for stream in self.listener.incoming().flatten() {
                let (page, told) = (page.clone(), told.clone());
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                    let target = lines.next().and_then(|line| line.split(' ').nth(1).map(str::to_owned));
                    lines.find(String::is_empty);
                    if let Some(said) = target.as_deref().and_then(|target| target.strip_prefix("/said/")) {
                        let _ = told.send(said.replace("%20", " ").replace("%22", "\"").replace("%2F", "/"));
                    }
                    let head =
                        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length:";
                    let _ = (&stream).write_all(format!("{head} {}\r\n\r\n{page}", page.len()).as_bytes());
                });
            }
        });
        said
    }
}

/// An open server, and what its page says.
struct Served {
    origin: String,
    said: Receiver<String>,
}

impl Served {
    fn new(pages: Pages, page: &str) -> Self {
        Self { origin: pages.origin(), said: pages.serve(page.to_owned()) }
    }
}

struct Browser(Child);

impl Browser {
    /// Opens a page; `None` where there is no Chromium, which is said loudly.
    #[expect(clippy::print_stderr, reason = "a peer that is missing is said loudly")]
    fn open(profile: &std::path::Path, url: &str) -> Option<Self> {
        let names = ["chromium", "chromium-browser", "google-chrome"].map(str::to_owned);
        let named = std::env::var("HILUM_TEST_CHROMIUM").ok();
        for name in named.into_iter().chain(names) {
            let mut command = Command::new(&name);
            command.args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-dev-shm-usage",
            ]);
            command.arg(format!("--user-data-dir={}", profile.display())).arg(url);
            if let Ok(child) =
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
            {
                return Some(Self(child));
            }
        }
        eprintln!("!! chromium (a browser): its tests were NOT run");
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "a missing peer is a failure in CI");
        None
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_page_of_a_listed_origin_reads_a_patient_and_no_other_page_does() {
    let dir = tempfile::tempdir().unwrap();
    let (listed, other) = (Pages::open(), Pages::open());
    let origins = format!("[{:?}]", listed.origin());
    let edge = Edge::start_with_environment(dir.path(), "", &[("HILUM__LISTEN__1__CORS_ORIGINS", &origins)]);
    let patient = r#"{"resourceType":"Patient","id":"a","birthDate":"1970-02-03"}"#;
    let made =
        http::send(edge.http, "PUT", "/fhir/Patient/a", &["Content-Type: application/fhir+json"], patient);
    assert_eq!(made.status, 201, "{made:?}");
    let page = PAGE.replace("URL", &format!("http://{}/fhir/Patient/a", edge.keyed));
    let (listed, other) = (Served::new(listed, &page), Served::new(other, &page));
    for (served, scope, expected) in [
        (&listed, "system/Patient.r", "200 1970-02-03 W/\"1\""),
        // a refusal is shown too: the status is read, and there is no birth date
        (&listed, "system/Basic.r", "403  "),
        (&other, "system/Patient.r", "hidden"),
    ] {
        let key = edge.key(scope);
        let profile = tempfile::tempdir().unwrap();
        let url = format!("{}/#{}", served.origin, key.strip_prefix("X-API-Key: ").unwrap());
        let Some(_browser) = Browser::open(profile.path(), &url) else { return };
        assert_eq!(served.said.recv_timeout(PATIENCE).expect("what the page says"), expected, "{scope}");
    }
}
