//! HL7 v3 interactions as FHIR changes. The rule tables in `maps/v3` decide which element fills which FHIR element; the files here
//! decide which parts of an interaction belong together. The changes are those of the v2 messages that say the same.

mod convert;
mod interaction;
mod mapper;
mod table;

use hilum_fhir::{Issue, IssueCode};
use hilum_wire::v3::Message;

pub(crate) use self::table::Maps;
use crate::rules::Tables;
use crate::{Context, Normalised};

/// Maps one interaction.
pub(crate) fn normalise(message: &Message, tables: &Tables, context: &Context) -> Normalised {
    let mapped = message.with_tree(|root| {
        let mut mapper = mapper::Mapper::new(message, tables, context);
        interaction::run(&mut mapper, root);
        mapper.finish(root)
    });
    // it was a tree when it was read; if not, it must not pass for a message that says nothing
    mapped.unwrap_or_else(|| {
        let issue = Issue::error(IssueCode::Structure, "the interaction cannot be read again");
        Normalised { issues: vec![issue], ..Normalised::default() }
    })
}
