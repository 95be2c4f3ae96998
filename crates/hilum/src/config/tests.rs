use super::*;

fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config> {
    Config::read(text, environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

const SITE: &str = "[[site]]\nid = \"default\"\n";

#[test]
fn the_development_default_is_loopback_only() {
    let config = Config::development().unwrap();
    assert!(config.listen.iter().all(|l| l.address.ip().is_loopback()));
    assert!(config.listen.iter().any(|l| l.address.port() == 8080 && l.auth == AuthMode::None));
}

#[test]
fn the_documented_configuration_is_valid() {
    let text = include_str!("../../../../config/hilum.toml");
    let config = read(text, &[]).unwrap();
    assert_eq!(config.limits, Limits::default(), "config/hilum.toml shows the defaults");
    let documented: toml::Table = text.parse().unwrap();
    let all = toml::Value::try_from(Limits::default()).unwrap();
    assert_eq!(documented["limits"], all, "config/hilum.toml shows every limit");
}

#[test]
fn the_default_limits_of_the_store_are_the_same_wherever_it_is_opened() {
    let config = Config::development().unwrap();
    let opened = crate::serve::store_config(&config);
    assert_eq!(opened, hilum_intake::store::Config::new(config.node.data));
}

#[test]
fn blobs_lie_in_files_or_in_a_bucket() {
    let bucket = |text: &str| {
        let url: BlobUrl = toml::from_str(text).unwrap();
        url.bucket().map(|bucket| bucket.map(|b| (b.bucket, b.prefix, b.endpoint)))
    };
    let parts = |prefix: &str, endpoint: Option<&str>| {
        Some(("images".to_owned(), prefix.to_owned(), endpoint.map(str::to_owned)))
    };
    assert_eq!(bucket("").unwrap(), None);
    assert_eq!(bucket("url = \"s3://images\"").unwrap(), parts("", None));
    let minio = "url = \"s3://images/a/b/\"\nendpoint = \"http://127.0.0.1:9000\"";
    assert_eq!(bucket(minio).unwrap(), parts("a/b", Some("http://127.0.0.1:9000")));
    assert!(bucket("url = \"http://images\"").is_err() && bucket("url = \"s3://\"").is_err());
    assert!(bucket("region = \"eu-central-1\"").is_err(), "of no bucket");
}

#[test]
fn rows_lie_in_files_or_on_a_server() {
    let server = |text: &str| toml::from_str::<StoreUrl>(text).unwrap().server();
    assert_eq!(server("").unwrap(), None);
    let set = "url = \"postgresql://edge@db.example/hilum\"\npassword = \"secret\"";
    assert_eq!(server(set).unwrap().unwrap().password.as_deref(), Some("secret"));
    for wrong in [
        "url = \"mysql://db\"",
        "url = \"postgresql://edge:secret@db.example\"",
        "url = \"postgresql://edge:secret@db.example:x/hilum\"",
        "ca = \"ca.pem\"",
    ] {
        let error = format!("{:#}", server(wrong).unwrap_err());
        assert!(error.contains("store") && !error.contains("secret"), "{error}");
    }
}

#[test]
fn a_misspelt_key_stops_the_start_by_name() {
    let error = read("[node]\ndatta = \"x\"\n", &[]).unwrap_err();
    assert!(format!("{error:#}").contains("datta"), "{error:#}");
}

#[test]
fn no_authentication_is_refused_beyond_loopback() {
    let listen = "[[listen]]\nprotocol = \"http\"\naddress = \"0.0.0.0:8080\"\nsurfaces = [\"fhir\"]\nauth = \"none\"\n";
    let error = read(&format!("{SITE}{listen}"), &[]).unwrap_err();
    assert!(format!("{error:#}").contains("0.0.0.0:8080"), "{error:#}");
}

#[test]
fn the_environment_overrides_sections_and_list_entries() {
    let listen = "[[listen]]\nprotocol = \"mllp\"\naddress = \"127.0.0.1:3000\"\n";
    let config = read(
        &format!("{SITE}{listen}"),
        &[
            ("HILUM__NODE__DATA", "/srv/hilum"),
            ("HILUM__LISTEN__0__ADDRESS", "127.0.0.1:0"),
            ("HILUM__LIMITS__MLLP__FRAME_BYTES_MAX", "99"),
        ],
    )
    .unwrap();
    assert_eq!(config.node.data, Path::new("/srv/hilum"));
    assert_eq!(config.listen[0].address.port(), 0);
    assert_eq!(config.limits.mllp.frame_bytes_max, 99);
}

#[test]
fn an_authority_has_names_of_its_own_and_a_uri() {
    let listen = "[[listen]]\nprotocol = \"mllp\"\naddress = \"127.0.0.1:3000\"\n";
    let with = |tables: &str| read(&format!("{SITE}{tables}{listen}"), &[]);
    let table = |name: &str, system: &str| {
        format!("[[site.authority]]\nnames = [\"{name}\"]\nsystem = \"{system}\"\n")
    };
    let settings = with(&table("NORTH", "urn:oid:1.2.3")).unwrap().sites().unwrap().remove(0);
    assert_eq!(settings.authorities[0].system, "urn:oid:1.2.3");
    assert!(settings.join_unqualified && settings.unidentified == Unidentified::Reject, "the defaults");
    let twice = table("NORTH", "urn:a") + &table("NORTH", "urn:b");
    for (tables, says) in [
        (table("NORTH", "north"), "absolute URI"),
        (twice, "\"NORTH\" is of two"),
        (table(" ", "urn:a"), "empty name"),
    ] {
        let error = format!("{:#}", with(&tables).unwrap_err());
        assert!(error.contains(says) && error.contains("default"), "{error}");
    }
}

#[test]
fn warnings_are_only_told_where_hl7_is_acknowledged() {
    let listen = "[[listen]]\nprotocol = \"dicom\"\naddress = \"127.0.0.1:0\"\nack_warnings = true\n";
    let error = format!("{:#}", read(&format!("{SITE}{listen}"), &[]).unwrap_err());
    assert!(error.contains("ack_warnings"), "{error}");
}

#[test]
fn one_ae_title_has_one_site() {
    let text = "[[site]]\nid = \"a\"\nae_titles = [\"X\"]\n[[site]]\nid = \"b\"\nae_titles = [\"X\"]\n[[listen]]\nprotocol = \"mllp\"\naddress = \"127.0.0.1:3000\"\n";
    assert!(read(text, &[]).is_err());
}

#[test]
fn what_stands_before_a_listener_is_written_in_a_known_form() {
    let with = |protocol: &str, keys: &str| {
        let surfaces = if protocol == "http" { "surfaces = [\"fhir\"]\n" } else { "" };
        let listen = format!(
            "[[listen]]\nprotocol = \"{protocol}\"\naddress = \"127.0.0.1:8080\"\n{surfaces}{keys}\n"
        );
        read(&format!("{SITE}{listen}"), &[])
    };
    let good = "public_url = \"https://fhir.hospital.example/edge\"\ntrusted_proxies = [\"10.0.0.0/8\", \"fd00::1\"]\ncors_origins = [\"*\"]";
    let listen = with("http", good).unwrap().listen.remove(0);
    assert_eq!(listen.front().unwrap().roots().len(), 2);
    assert!(listen.cors().unwrap().unwrap().is_any());
    with("http", "auth = \"none\"\ncors_origins = [\"http://localhost:3000\"]").unwrap();
    for (protocol, keys, says) in [
        ("http", "public_url = \"fhir.example\"", "write \"https://"),
        ("http", "trusted_proxies = [\"proxy\"]", "write \"10.1.2.3\""),
        ("http", "cors_origins = [\"https://app.example/\"]", "write \"https://app.example\""),
        ("http", "auth = \"none\"\ncors_origins = [\"*\"]", "keys"),
        ("http", "auth = \"none\"\ntrusted_proxies = [\"127.0.0.1\"]", "keys"),
        ("http", "auth = \"none\"\npublic_url = \"https://fhir.example\"", "keys"),
        ("mllp", "trusted_proxies = [\"10.0.0.1\"]", "for http and https"),
        ("mllp", "cors_origins = [\"https://app.example\"]", "for http and https"),
    ] {
        let error = format!("{:#}", with(protocol, keys).unwrap_err());
        assert!(error.contains(says) && error.contains("127.0.0.1:8080"), "{error}");
    }
}
