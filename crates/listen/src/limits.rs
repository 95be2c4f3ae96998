//! Every limit of the edge in one place: read once from `[limits]`, handed to the doors and the pure parsers.
//!
//! The unit is in the name. A limit exceeded is counted, logged without content, and answered in the protocol.

use serde::{Deserialize, Serialize};

macro_rules! limits {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty = $default:expr),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type),+ }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default),+ }
            }
        }
    };
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: u64 = 1024 * 1024 * 1024;

limits! {
    /// All limits, `[limits]` in the configuration.
    Limits {
        /// `[limits.http]`
        http: Http = Http::default(),
        /// `[limits.mllp]`
        mllp: Mllp = Mllp::default(),
        /// `[limits.er7]`
        er7: Er7 = Er7::default(),
        /// `[limits.xml]`
        xml: Xml = Xml::default(),
        /// `[limits.dicom]`
        dicom: Dicom = Dicom::default(),
        /// `[limits.json]`
        json: Json = Json::default(),
        /// `[limits.fhir]`
        fhir: Fhir = Fhir::default(),
        /// `[limits.search]`
        search: Search = Search::default(),
        /// `[limits.store]`
        store: Store = Store::default(),
        /// `[limits.blobs]`
        blobs: Blobs = Blobs::default(),
        /// `[limits.delivery]`
        delivery: Delivery = Delivery::default(),
    }
}

limits! {
    /// HTTP listeners.
    Http {
        /// Connections of one listener.
        connections_max: usize = 4_000,
        /// Connections of one peer address.
        per_peer_max: usize = 256,
        /// Time for the TLS handshake.
        tls_handshake_timeout_ms: u64 = 10_000,
        /// Bytes of a request body as sent.
        body_bytes_max: usize = 16 * MIB,
        /// Bytes of a request body after gzip.
        body_inflated_bytes_max: usize = 64 * MIB,
        /// Largest ratio of inflated to sent bytes.
        inflate_ratio_max: usize = 100,
        /// Bytes of all bodies of a listener that are being received or worked on, after gzip; then the sender that goes on is told to send again.
        bodies_bytes_max: usize = 512 * MIB,
        /// Bytes of the request target.
        uri_bytes_max: usize = 8 * KIB,
        /// Number of header lines (HTTP/1).
        headers_max: usize = 100,
        /// Bytes of all header lines (HTTP/1).
        headers_bytes_max: usize = 64 * KIB,
        /// Bytes of all header fields (HTTP/2).
        header_list_bytes_max: u32 = 16 * 1024,
        /// Time to send the header.
        header_timeout_ms: u64 = 30_000,
        /// Longest silence within a body.
        body_idle_timeout_ms: u64 = 30_000,
        /// Time from header to answer.
        request_timeout_ms: u64 = 60_000,
        /// Streams of one connection (HTTP/2).
        streams_max: u32 = 100,
        /// Streams reset by the peer and not yet seen by us (HTTP/2).
        pending_resets_max: usize = 20,
        /// Wrong keys of one address within a minute; further wrong ones are answered 429, a right one is served.
        auth_failures_per_minute_max: u32 = 20,
        /// Time for work in flight after SIGTERM.
        drain_timeout_ms: u64 = 20_000,
    }
}

limits! {
    /// MLLP listeners.
    Mllp {
        /// Connections of one listener.
        connections_max: usize = 10_000,
        /// Connections of one peer address.
        per_peer_max: usize = 256,
        /// Time for the TLS handshake.
        tls_handshake_timeout_ms: u64 = 10_000,
        /// Time for the peer to take an answer.
        write_timeout_ms: u64 = 30_000,
        /// Time for work in flight after SIGTERM.
        drain_timeout_ms: u64 = 20_000,
        /// Bytes of one message. Raise to 16 MiB where documents travel in OBX.
        frame_bytes_max: usize = MIB,
        /// Time from the first to the last byte of a frame.
        frame_timeout_ms: u64 = 30_000,
        /// Longest silence between frames; 0 = none (TCP keep-alive after 60 s).
        idle_timeout_ms: u64 = 0,
        /// Bytes outside frames before the connection is closed.
        junk_bytes_max: usize = 64 * KIB,
        /// Unanswered frames of one connection; then it is not read further.
        in_flight_max: usize = 64,
        /// Bytes of the unanswered frames of one connection; then it is not read further.
        unanswered_bytes_max: usize = 4 * MIB,
        /// Bytes in unfinished frames of a whole listener; then the sender that goes on is told to send again.
        unfinished_bytes_max: usize = 256 * MIB,
    }
}

limits! {
    /// HL7 v2 messages.
    Er7 {
        /// Segments of one message.
        segments_max: usize = 10_000,
        /// Values of one message; of one segment empty places between separators count as well.
        leaves_max: usize = 200_000,
        /// Repetitions of one field; a text may have one for each of its lines.
        repeats_max: usize = 10_000,
        /// Messages of one batch.
        batch_messages_max: usize = 1_000,
    }
}

limits! {
    /// HL7 v3 bodies.
    Xml {
        /// Bytes of a body after gzip.
        bytes_max: usize = 16 * MIB,
        /// Nested elements.
        depth_max: usize = 64,
        /// Attributes of one element.
        attributes_max: usize = 64,
        /// Elements, attributes, texts, comments and namespaces in scope in all.
        nodes_max: usize = 1_000_000,
    }
}

limits! {
    /// DICOM listeners.
    Dicom {
        /// Associations of one listener.
        associations_max: usize = 1_000,
        /// Associations of one peer address.
        per_peer_max: usize = 64,
        /// Time for the TLS handshake.
        tls_handshake_timeout_ms: u64 = 10_000,
        /// Time for the peer to take an answer.
        write_timeout_ms: u64 = 30_000,
        /// Time for work in flight after SIGTERM.
        drain_timeout_ms: u64 = 20_000,
        /// Bytes of an A-ASSOCIATE-RQ.
        associate_bytes_max: usize = 256 * KIB,
        /// Time from accept to a complete A-ASSOCIATE-RQ (ARTIM).
        associate_timeout_ms: u64 = 5_000,
        /// Bytes of a P-DATA-TF after its header; announced to the peer.
        pdu_bytes_max: u32 = 131_072,
        /// Time from the first to the last byte of a PDU.
        pdu_timeout_ms: u64 = 30_000,
        /// Longest silence within a message.
        message_timeout_ms: u64 = 60_000,
        /// Longest silence between messages.
        idle_timeout_ms: u64 = 300_000,
        /// Time for the peer to close after release or abort.
        close_timeout_ms: u64 = 2_000,
        /// Bytes of a command set.
        command_bytes_max: usize = 64 * KIB,
        /// Messages of one association that may be unanswered, for peers that ask for an asynchronous operations window.
        async_operations_max: u16 = 8,
        /// Bytes of a data set.
        object_bytes_max: u64 = 2 * GIB,
        /// Nested sequences.
        depth_max: usize = 64,
        /// Elements and items of a data set.
        elements_max: usize = 5_000_000,
        /// Bytes of the elements the record is drawn from, also of those left out for `wanted_bytes_max`; what is skipped does not count.
        header_bytes_max: usize = 16 * MIB,
        /// Bytes of one value copied for the record.
        value_bytes_max: usize = 4 * KIB,
        /// Bytes of all elements copied for the record; further ones are left out.
        wanted_bytes_max: usize = 64 * KIB,
        /// Bytes inflated of a data set (deflated transfer syntax).
        inflated_bytes_max: u64 = 2 * GIB,
        /// Largest ratio of inflated to received bytes before pixel data.
        inflate_ratio_max: usize = 100,
    }
}

limits! {
    /// JSON bodies.
    Json {
        /// Nested objects and lists.
        depth_max: usize = 64,
        /// Values and members in all.
        nodes_max: usize = 1_000_000,
    }
}

limits! {
    /// FHIR requests.
    Fhir {
        /// Entries of a batch or transaction.
        bundle_entries_max: usize = 5_000,
    }
}

limits! {
    /// FHIR searches.
    Search {
        /// Largest `_count`; larger ones are clamped.
        count_max: u32 = 1_000,
        /// `_count` when none is given.
        count_default: u32 = 20,
        /// Included resources of a page.
        includes_max: u32 = 1_000,
        /// Parameters of a search.
        parameters_max: usize = 64,
        /// Comma-separated values of a search.
        or_values_max: usize = 500,
        /// References a chained parameter or `_has` follows, at most 16; 0 = there are none.
        chain_depth_max: usize = 4,
        /// Resources that a link of a chained parameter or `_has` may lead over.
        chained_max: u32 = 10_000,
        /// Candidates a search may look at.
        candidates_max: u32 = 100_000,
        /// Matches counted for a total that was not asked for.
        total_probe_max: u32 = 1_000,
    }
}

limits! {
    /// The store.
    Store {
        /// Jobs waiting for the writer of a site.
        queue_jobs_max: usize = 4_096,
        /// Bytes waiting for the writer of a site.
        queue_bytes_max: usize = 256 * MIB,
        /// Jobs of one transaction.
        batch_jobs_max: usize = 512,
        /// Bytes of one transaction.
        batch_bytes_max: usize = 4 * MIB,
        /// Below this much free disk nothing is accepted.
        free_bytes_min: u64 = GIB,
        /// Bytes kept of the originals of a site's rejected submissions; then the oldest go, their rows with the issues stay.
        quarantine_bytes_max: u64 = 10 * GIB,
        /// Days the originals of rejected submissions are kept.
        quarantine_days_max: u32 = 30,
        /// Page cache of a site's writer.
        cache_bytes: u64 = 256 * 1024 * 1024,
    }
}

limits! {
    /// Images and large originals.
    Blobs {
        /// Below this much free disk no blob is begun.
        free_bytes_min: u64 = GIB,
    }
}

limits! {
    /// Deliveries.
    Delivery {
        /// Bytes read of an answer.
        response_bytes_max: usize = 64 * KIB,
        /// Time of one attempt.
        attempt_timeout_ms: u64 = 30_000,
        /// Time until a delivery is given up.
        retry_hours_max: u64 = 72,
        /// Deliveries waiting for one destination; beyond, the oldest are given up.
        backlog_rows_max: u64 = 100_000,
        /// Days a delivery waits, also while its destination is in error; then it is given up.
        backlog_days_max: u64 = 7,
    }
}

impl Er7 {
    /// As the reader of HL7 v2 takes them.
    pub fn reader(&self) -> hilum_wire::er7::Limits {
        hilum_wire::er7::Limits {
            segments_max: self.segments_max,
            leaves_max: self.leaves_max,
            repeats_max: self.repeats_max,
            batch_messages_max: self.batch_messages_max,
        }
    }
}

impl Xml {
    /// As the reader of HL7 v3 takes them.
    pub fn reader(&self) -> hilum_wire::v3::Limits {
        hilum_wire::v3::Limits {
            bytes_max: self.bytes_max,
            depth_max: self.depth_max,
            attributes_max: self.attributes_max,
            nodes_max: self.nodes_max,
        }
    }
}

impl Limits {
    /// Every limit by its name, `section.key` as in the configuration, in its order.
    pub fn named(&self) -> Vec<(String, u64)> {
        let sections = serde_json::to_value(self).unwrap_or_default();
        let all = sections.as_object().into_iter().flatten().flat_map(|(section, keys)| {
            let keys = keys.as_object().into_iter().flatten();
            keys.filter_map(move |(key, value)| Some((format!("{section}.{key}"), value.as_u64()?)))
        });
        all.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Limits;

    #[test]
    fn every_limit_has_a_name_and_a_number() {
        let named = Limits::default().named();
        assert!(named.contains(&("dicom.object_bytes_max".to_owned(), 2_147_483_648)), "{named:?}");
        let value = serde_json::to_value(Limits::default()).unwrap();
        let count: usize = value.as_object().unwrap().values().map(|s| s.as_object().unwrap().len()).sum();
        assert_eq!(named.len(), count);
    }

    #[test]
    fn an_unknown_limit_is_refused() {
        assert!(serde_json::from_str::<Limits>(r#"{"mllp":{"frame_bytes_max":5}}"#).is_ok());
        assert!(serde_json::from_str::<Limits>(r#"{"mllp":{"frame_byte_max":5}}"#).is_err());
    }
}
