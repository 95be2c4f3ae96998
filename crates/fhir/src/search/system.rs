//! Code systems that are known under two URLs.

/// The URL under which a code system is compared and indexed. The directories of endpoints publish three systems under two URLs
/// each; what is stored is never changed.
pub fn canonical_system(system: &str) -> &str {
    match system {
        "http://hl7.org/fhir/endpoint-connection-type" => {
            "http://terminology.hl7.org/CodeSystem/endpoint-connection-type"
        }
        "http://terminology.hl7.org.au/CodeSystem/endpoint-connection-type" => {
            "http://hl7.org.au/fhir/CodeSystem/smd-interfaces"
        }
        "http://terminology.hl7.org.au/CodeSystem/endpoint-payload-type" => {
            "http://hl7.org.au/fhir/CodeSystem/endpoint-payload-type"
        }
        other => other,
    }
}
