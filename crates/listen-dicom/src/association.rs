//! Negotiation of an association (PS3.8 section 7.1): who calls whom, and which contexts are accepted.

use std::collections::HashMap;

use dicom_ul::pdu::{
    AssociationAC, AssociationRJ, AssociationRJResult, AssociationRJServiceProviderASCEReason,
    AssociationRJServiceProviderPresentationReason, AssociationRJServiceUserReason, AssociationRJSource,
    AssociationRQ, Pdu, PresentationContextResult, PresentationContextResultReason, UserVariableItem,
    read_pdu, write_pdu,
};
use hilum_intake::store::{Control, Site};
use hilum_listen::Peer;
use hilum_listen::limits::Dicom as Limits;
use hilum_wire::scan::is_uid;

use crate::classes::{VERIFICATION, is_storage};
use crate::pdu::{End, INVALID, UNEXPECTED};

/// Item type of the asynchronous operations window.
const ASYNC_OPERATIONS: u8 = 0x53;
const IMPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2";
const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";
/// Our implementation class UID, under the 2.25 arc of UUIDs.
pub(crate) const IMPLEMENTATION_UID: &str = "2.25.207530618924873014937425178320985173241";
pub(crate) const IMPLEMENTATION_NAME: &str = "HILUM_01";
/// An accepted association.
pub(crate) struct Association {
    pub(crate) site: Site,
    pub(crate) calling: String,
    pub(crate) called: String,
    /// Accepted contexts by id.
    pub(crate) contexts: HashMap<u8, Context>,
    /// Messages that may be unanswered at a time: 1 unless more was negotiated.
    pub(crate) window: usize,
    /// A-ASSOCIATE-AC.
    pub(crate) answer: Vec<u8>,
}

/// An accepted presentation context.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) abstract_syntax: String,
    pub(crate) transfer_syntax: String,
}

/// The outcome of a request.
pub(crate) enum Negotiated {
    Accepted(Box<Association>),
    Rejected(Vec<u8>),
}

/// Decides about an A-ASSOCIATE-RQ.
pub(crate) fn negotiate(
    pdu: &[u8],
    control: &Control,
    peer: &Peer,
    limits: &Limits,
) -> Result<Negotiated, End> {
    let max = u32::try_from(limits.associate_bytes_max).unwrap_or(u32::MAX).clamp(4096, 131_072);
    let Ok(Some(Pdu::AssociationRQ(request))) = read_pdu(pdu, max, false) else { return Err(INVALID) };
    if request.protocol_version & 1 == 0 {
        let reason = AssociationRJServiceProviderASCEReason::ProtocolVersionNotSupported;
        return Ok(Negotiated::Rejected(reject(AssociationRJSource::ServiceProviderASCE(reason))));
    }
    let user = |reason| Ok(Negotiated::Rejected(reject(AssociationRJSource::ServiceUser(reason))));
    if request.application_context_name.trim_matches(['\0', ' ']) != APPLICATION_CONTEXT {
        return user(AssociationRJServiceUserReason::ApplicationContextNameNotSupported);
    }
    let (called, calling) = (title(&request.called_ae_title), title(&request.calling_ae_title));
    let Some(site) = control.site_by_ae_title(called).unwrap_or_default() else {
        return user(AssociationRJServiceUserReason::CalledAETitleNotRecognized);
    };
    match admission(&site, calling, peer) {
        Admission::Fine => {}
        Admission::Title => return user(AssociationRJServiceUserReason::CallingAETitleNotRecognized),
        Admission::Address => return user(AssociationRJServiceUserReason::NoReasonGiven),
    }
    accept(&request, site, (called, calling), limits)
        .map(|association| Negotiated::Accepted(Box::new(association)))
}

/// An AE title without its padding: it ends at a NUL, else at the blanks that fill its field (PS3.8 table 9-11).
fn title(field: &str) -> &str {
    field.split('\0').next().unwrap_or_default().trim()
}

/// A UID without its padding, if it is one.
fn uid(field: &str) -> Option<&str> {
    Some(field.trim_end_matches(['\0', ' '])).filter(|text| is_uid(text))
}

enum Admission {
    Fine,
    Title,
    Address,
}

/// A site without DICOM clients takes any caller; else one must fit by title and address.
fn admission(site: &Site, calling: &str, peer: &Peer) -> Admission {
    let address = peer.address.ip().to_canonical();
    let clients: Vec<_> =
        site.settings().clients.iter().filter(|c| c.protocols.iter().any(|p| p == "dicom")).collect();
    if clients.is_empty() {
        return Admission::Fine;
    }
    let mut named =
        clients.iter().filter(|c| c.calling_aet.as_ref().is_none_or(|title| title == calling)).peekable();
    if named.peek().is_none() {
        return Admission::Title;
    }
    let from_here =
        named.any(|c| c.addresses.is_empty() || c.addresses.iter().any(|network| network.contains(&address)));
    if from_here { Admission::Fine } else { Admission::Address }
}

fn accept(
    request: &AssociationRQ,
    site: Site,
    (called, calling): (&str, &str),
    limits: &Limits,
) -> Result<Association, End> {
    let mut contexts = HashMap::new();
    let mut results: Vec<PresentationContextResult> = Vec::new();
    for proposed in &request.presentation_contexts {
        if proposed.id % 2 == 0 || results.iter().any(|known| known.id == proposed.id) {
            return Err(UNEXPECTED);
        }
        let class =
            uid(&proposed.abstract_syntax).filter(|class| *class == VERIFICATION || is_storage(class));
        let first = proposed.transfer_syntaxes.first().and_then(|syntax| uid(syntax));
        let reason = match (class, first) {
            (None, _) => PresentationContextResultReason::AbstractSyntaxNotSupported,
            (Some(_), None) => PresentationContextResultReason::TransferSyntaxesNotSupported,
            (Some(_), Some(_)) => PresentationContextResultReason::Acceptance,
        };
        // of a refused context it means nothing
        let transfer_syntax = first.unwrap_or(IMPLICIT_LITTLE_ENDIAN).to_owned();
        if let (Some(class), Some(_)) = (class, first) {
            let (abstract_syntax, transfer_syntax) = (class.to_owned(), transfer_syntax.clone());
            contexts.insert(proposed.id, Context { abstract_syntax, transfer_syntax });
        }
        results.push(PresentationContextResult { id: proposed.id, reason, transfer_syntax });
    }
    let answer = Pdu::AssociationAC(AssociationAC {
        protocol_version: 1,
        calling_ae_title: request.calling_ae_title.clone(),
        called_ae_title: request.called_ae_title.clone(),
        application_context_name: APPLICATION_CONTEXT.to_owned(),
        presentation_contexts: results,
        user_variables: user_variables(request, limits),
    });
    let window = window(request, limits).map_or(1, |(invoked, _)| usize::from(invoked));
    Ok(Association {
        site,
        calling: calling.to_owned(),
        called: called.to_owned(),
        contexts,
        window,
        answer: bytes(&answer),
    })
}

/// The asynchronous operations window (PS3.7 D.3.3.3) when one was proposed: operations invoked and performed; 0 asks for no limit.
fn window(request: &AssociationRQ, limits: &Limits) -> Option<(u16, u16)> {
    let most = limits.async_operations_max.max(1);
    let granted = |asked: [u8; 2]| match u16::from_be_bytes(asked) {
        0 => most,
        asked => asked.min(most),
    };
    request.user_variables.iter().find_map(|item| match item {
        UserVariableItem::Unknown(ASYNC_OPERATIONS, data) => {
            let [a, b, c, d] = *data.first_chunk::<4>()?;
            Some((granted([a, b]), granted([c, d])))
        }
        _ => None,
    })
}

fn user_variables(request: &AssociationRQ, limits: &Limits) -> Vec<UserVariableItem> {
    let mut items = vec![
        UserVariableItem::MaxLength(limits.pdu_bytes_max),
        UserVariableItem::ImplementationClassUID(IMPLEMENTATION_UID.to_owned()),
        UserVariableItem::ImplementationVersionName(IMPLEMENTATION_NAME.to_owned()),
    ];
    if let Some((invoked, performed)) = window(request, limits) {
        let data = [invoked.to_be_bytes(), performed.to_be_bytes()].concat();
        items.push(UserVariableItem::Unknown(ASYNC_OPERATIONS, data));
    }
    for item in &request.user_variables {
        if let UserVariableItem::ScuScpRoleSelectionSubItem(class, roles) = item {
            let mut roles = *roles;
            roles.scp = false;
            items.push(UserVariableItem::ScuScpRoleSelectionSubItem(class.clone(), roles));
        }
    }
    items
}

fn reject(source: AssociationRJSource) -> Vec<u8> {
    bytes(&Pdu::AssociationRJ(AssociationRJ { result: AssociationRJResult::Permanent, source }))
}

/// A-ASSOCIATE-RJ transient, local limit exceeded (2, 3, 2).
pub(crate) fn local_limit() -> Vec<u8> {
    let reason = AssociationRJServiceProviderPresentationReason::LocalLimitExceeded;
    let source = AssociationRJSource::ServiceProviderPresentation(reason);
    bytes(&Pdu::AssociationRJ(AssociationRJ { result: AssociationRJResult::Transient, source }))
}

fn bytes(pdu: &Pdu) -> Vec<u8> {
    let mut out = Vec::new();
    match write_pdu(&mut out, pdu) {
        Ok(()) => out,
        Err(_) => Vec::new(),
    }
}
