use dicom_ul::pdu::{PresentationContextResult, PresentationContextResultReason};
use tokio::io::DuplexStream;

use super::*;

const EXPLICIT: &str = "1.2.840.10008.1.2.1";

fn object(class: &str) -> Object {
    Object {
        path: PathBuf::new(),
        sop_class: class.into(),
        sop_instance: "1.2.3".into(),
        transfer_syntax: EXPLICIT.into(),
        data_set_at: 0,
        bytes: 0,
    }
}

fn options() -> Options {
    Options { called: "THERE".into(), calling: "HERE".into(), timeout: Duration::from_secs(5) }
}

/// A file with a data set of explicit little endian elements.
fn file(dir: &Path, class_in_meta: &str, data_set: &[u8]) -> PathBuf {
    let path = dir.join("object.dcm");
    let mut bytes = part10::head(class_in_meta, "1.2.3.9", EXPLICIT, ("2.25.1", "T"));
    bytes.extend(data_set);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// One PDU of the peer's side, with its header.
async fn pdu(stream: &mut DuplexStream) -> Vec<u8> {
    let mut pdu = vec![0; 6];
    stream.read_exact(&mut pdu).await.unwrap();
    let length = u32::from_be_bytes([pdu[2], pdu[3], pdu[4], pdu[5]]) as usize;
    pdu.resize(6 + length, 0);
    stream.read_exact(&mut pdu[6..]).await.unwrap();
    pdu
}

/// Accepts the contexts for which `takes` says so, and announces a maximum length.
async fn accept(stream: &mut DuplexStream, max: u32, takes: impl Fn(&str) -> bool) -> AssociationRQ {
    let Ok(Some(Pdu::AssociationRQ(request))) = read_pdu(pdu(stream).await.as_slice(), 1 << 20, false) else {
        panic!("a request")
    };
    let results = request.presentation_contexts.iter().map(|c| PresentationContextResult {
        id: c.id,
        reason: if takes(&c.abstract_syntax) {
            PresentationContextResultReason::Acceptance
        } else {
            PresentationContextResultReason::AbstractSyntaxNotSupported
        },
        transfer_syntax: c.transfer_syntaxes[0].clone(),
    });
    let answer = Pdu::AssociationAC(AssociationAC {
        protocol_version: 1,
        calling_ae_title: request.calling_ae_title.clone(),
        called_ae_title: request.called_ae_title.clone(),
        application_context_name: APPLICATION_CONTEXT.into(),
        presentation_contexts: results.collect(),
        user_variables: vec![UserVariableItem::MaxLength(max)],
    });
    let mut bytes = Vec::new();
    write_pdu(&mut bytes, &answer).unwrap();
    stream.write_all(&bytes).await.unwrap();
    request
}

#[test]
fn an_association_holds_128_contexts_and_the_rest_goes_into_the_next() {
    let mut objects: Vec<Object> = (0..130).map(|n| object(&format!("1.2.{n}"))).collect();
    objects.push(object("1.2.129"));
    let parts = parts(objects);
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [128, 3]);
}

#[tokio::test]
async fn a_data_set_arrives_byte_for_byte_in_pieces_the_peer_can_take() {
    let dir = tempfile::tempdir().unwrap();
    let data_set = [
        b"\x08\0\x16\0UI\x04\x001.5\0\x08\0\x18\0UI\x06\x001.2.3\0\xE0\x7F\x10\0OW\0\0".as_slice(),
        &[7; 5000],
    ]
    .concat();
    let object = Object::open(&file(dir.path(), "1.9", &data_set)).await.unwrap();
    assert_eq!(
        (object.sop_class.as_str(), object.sop_instance.as_str()),
        ("1.5", "1.2.3"),
        "the data set's, not the meta group's"
    );
    let (ours, mut theirs) = tokio::io::duplex(1 << 20);
    let peer = tokio::spawn(async move {
        let request = accept(&mut theirs, 1000, |_| true).await;
        assert_eq!(request.called_ae_title.trim(), "THERE");
        let mut received = Vec::new();
        let command = pdu(&mut theirs).await;
        let command = Command::read(pdvs(&command[6..]).unwrap()[0].bytes).unwrap();
        loop {
            let pdu = pdu(&mut theirs).await;
            assert!(pdu.len() <= 6 + 1000);
            let value = pdvs(&pdu[6..]).unwrap()[0];
            received.extend_from_slice(value.bytes);
            if value.is_last {
                break;
            }
        }
        theirs.write_all(&command_pdu(1, &command.response(0xB006, "cut"))).await.unwrap();
        let released = pdu(&mut theirs).await;
        theirs.write_all(&[6, 0, 0, 0, 0, 4, 0, 0, 0, 0]).await.unwrap();
        (released[0], received)
    });
    let mut association = Association::open(ours, std::slice::from_ref(&object), &options()).await.unwrap();
    let answer = association.store(&object).await.unwrap();
    assert_eq!(answer, Stored::Answered(Answer { message_id: 1, status: 0xB006, comment: "cut".into() }));
    association.release().await.unwrap();
    assert_eq!(peer.await.unwrap(), (5, data_set));
}

#[tokio::test]
async fn what_the_peer_refuses_is_said_in_its_words() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let peer = tokio::spawn(async move {
        pdu(&mut theirs).await;
        theirs.write_all(&[3, 0, 0, 0, 0, 4, 0, 1, 1, 7]).await.unwrap();
    });
    let error = Association::open(ours, &[], &options()).await.unwrap_err();
    assert!(error.to_string().contains("called AE title"), "{error}");
    peer.await.unwrap();

    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let peer = tokio::spawn(async move {
        accept(&mut theirs, 0, |class| class == "1.1").await;
        pdu(&mut theirs).await;
        theirs.write_all(&[7, 0, 0, 0, 0, 4, 0, 0, 2, 6]).await.unwrap();
    });
    let dir = tempfile::tempdir().unwrap();
    let taken = Object::open(&file(dir.path(), "1.1", b"\x08\0\x05\0CS\0\0")).await.unwrap();
    let mut association = Association::open(ours, &[taken.clone(), object("1.2")], &options()).await.unwrap();
    assert_eq!(association.store(&object("1.2")).await.unwrap(), Stored::NoContext);
    let error = association.store(&taken).await.unwrap_err();
    assert!(matches!(error, ScuError::Aborted { origin: 2, reason: 6 }), "{error}");
    peer.await.unwrap();
}

#[tokio::test]
async fn a_file_without_a_data_set_is_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    for bytes in [b"".as_slice(), b"not dicom at all", b"\x08\0\x05\0CS\0\0"] {
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(Object::open(&path).await, Err(ScuError::NotSendable)));
    }
}
