//! Whose a message is: MLLP has no keys, so a sender is known by the port, its address, MSH-3/MSH-4 and MSH-5/MSH-6.

use std::net::IpAddr;

use hilum_intake::store::{Client, Control, Hl7Identity, Site};
use hilum_wire::er7::Header;

/// Whether anybody at this address may send at all.
pub(crate) fn address(control: &Control, dedicated: Option<&Site>, address: IpAddr) -> bool {
    let sites = control.sites().unwrap_or_default();
    let own = sites.iter().filter(|site| !site.settings().disabled && dedicated.is_none_or(|d| d == *site));
    own.into_iter().any(|site| clients(site).any(|client| is_from(client, address)))
}

/// The one site a message belongs to: dedicated port, else client by address and MSH-3/4, with MSH-5/6 checked when both are
/// configured. Not exactly one site is none.
pub(crate) fn site(
    control: &Control,
    dedicated: Option<&Site>,
    address: IpAddr,
    message: &[u8],
) -> Option<Site> {
    let header = Header::read(message);
    let text = |number| header.as_ref().map(|header| header.text(number)).unwrap_or_default();
    let (sender, receiver) = ((text(3), text(4)), (text(5), text(6)));
    let sites = control.sites().ok()?;
    let mut found = sites.into_iter().filter(|site| {
        let settings = site.settings();
        !settings.disabled
            && dedicated.is_none_or(|dedicated| dedicated == site)
            && clients(site).any(|client| is_from(client, address) && is_named(client, &sender))
            && (settings.hl7_identities.is_empty()
                || settings.hl7_identities.iter().any(|one| is_meant(one, &receiver)))
    });
    let site = found.next()?;
    found.next().is_none().then_some(site)
}

fn clients(site: &Site) -> impl Iterator<Item = &Client> {
    site.settings()
        .clients
        .iter()
        .filter(|client| client.protocols.iter().any(|p| p == "mllp" || p == "hl7-mllp"))
}

fn is_from(client: &Client, address: IpAddr) -> bool {
    let address = address.to_canonical();
    client.addresses.is_empty() || client.addresses.iter().any(|network| network.contains(&address))
}

fn is_named(client: &Client, (application, facility): &(String, String)) -> bool {
    let fits = |wanted: &Option<String>, sent: &String| {
        wanted.as_ref().is_none_or(|wanted| wanted.is_empty() || wanted == sent)
    };
    fits(&client.msh3, application) && fits(&client.msh4, facility)
}

fn is_meant(identity: &Hl7Identity, (application, facility): &(String, String)) -> bool {
    let fits = |wanted: &Option<String>, sent: &String| {
        wanted.as_ref().is_none_or(|wanted| wanted.is_empty() || wanted == sent)
    };
    fits(&identity.application, application) && fits(&identity.facility, facility)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_may_send_and_to_which_site() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::open(dir.path()).unwrap();
        for settings in [
            json!({ "id": "a", "clients": [{ "protocols": ["mllp"], "addresses": ["10.1.0.0/16"], "msh3": "RIS", "msh4": "NORTH" }] }),
            json!({ "id": "b", "clients": [{ "protocols": ["hl7-mllp"], "addresses": ["10.1.0.0/16"], "msh3": "LAB" }],
                "hl7_identities": [{ "application": "HILUM" }] }),
            json!({ "id": "c", "clients": [{ "protocols": ["dicom"], "addresses": ["10.9.0.0/16"] }] }),
        ] {
            control.put_site(serde_json::from_value(settings).unwrap()).unwrap();
        }
        let dedicated = control.site("b").unwrap();
        for (address_text, message, port, expected) in [
            ("10.1.2.3", "MSH|^~\\&|RIS|NORTH|X|Y", None, Some("a")),
            ("10.1.2.3", "MSH|^~\\&|RIS|SOUTH|X|Y", None, None),
            ("10.2.2.3", "MSH|^~\\&|RIS|NORTH|X|Y", None, None),
            ("10.1.2.3", "MSH|^~\\&|LAB|ANY|HILUM|Y", None, Some("b")),
            ("10.1.2.3", "MSH|^~\\&|LAB|ANY|OTHER|Y", None, None),
            ("10.1.2.3", "MSH|^~\\&|RIS|NORTH|HILUM|Y", dedicated.as_ref(), None),
            ("10.1.2.3", "MSH|^~\\&|LAB|ANY|HILUM|Y", dedicated.as_ref(), Some("b")),
            ("10.9.2.3", "MSH|^~\\&|RIS|NORTH|X|Y", None, None),
            ("10.1.2.3", "<xml/>", None, None),
        ] {
            let ip: IpAddr = address_text.parse().unwrap();
            let found = site(&control, port, ip, message.as_bytes());
            assert_eq!(found.as_ref().map(|s| s.id()), expected, "{address_text} {message}");
        }
        assert!(address(&control, None, "10.1.9.9".parse().unwrap()));
        assert!(
            !address(&control, None, "10.9.9.9".parse().unwrap()),
            "dicom clients do not open the mllp door"
        );
    }
}
