//! HL7 v3: every interaction that can be read can be mapped and answered, and the answer is one that can be read.
#![no_main]

use std::sync::{Arc, LazyLock};

use hilum_normalise::{Context, Payload, Rules, normalise};
use hilum_wire::er7::AckCode;
use hilum_wire::v3::{Ack, Limits, Message, Refusal, acknowledge};
use libfuzzer_sys::fuzz_target;

static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::compile(&[]).unwrap());

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let message = match Message::read(bytes, &limits) {
        Ok(message) => message,
        Err(Refusal::Soap(envelope, trouble)) => return drop(envelope.fault(trouble)),
        Err(Refusal::Xml(_)) => return,
    };
    let ack = acknowledge(&message.wrapper, &Ack { code: AckCode::CE, faults: &[], id: "1", time: "2024" });
    let answer = Message::read(message.wrap(&ack).as_bytes(), &limits).unwrap();
    assert!(answer.wrapper.is_acknowledgement());
    assert_eq!(answer.envelope.is_some(), message.envelope.is_some());
    let context = Context {
        site: "default".into(),
        zone: jiff::tz::TimeZone::UTC,
        patient_identifier_system: "urn:x".into(),
        naming_systems: [].into(),
        join_unqualified: true,
        keep_unidentified: false,
        received: hilum_fhir::Timestamp::from_micros(0),
        seed: 1,
    };
    let length = message.text.len();
    let normalised = normalise(&Payload::V3(Arc::new(message)), &RULES, &context);
    for (start, end) in normalised.lineage.iter().filter_map(|l| l.bytes) {
        assert!(start <= end && end as usize <= length + 3);
    }
});
