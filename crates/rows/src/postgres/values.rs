//! Values as the server takes and gives them.

use tokio_postgres::Row;

use crate::Error;
use crate::row::Head;

/// A text as the server takes it: it knows no NUL.
pub(super) fn clean(text: &str) -> String {
    if text.contains('\0') { text.replace('\0', "\u{FFFD}") } else { text.to_owned() }
}

/// 32 bytes of a column.
pub(super) fn digest(bytes: &[u8]) -> Result<[u8; 32], Error> {
    bytes.try_into().map_err(|_| Error::unavailable("a stored digest has another length"))
}

/// A head whose columns begin at one: rid, ver, vid, ord, deleted, applied, successor.
pub(super) fn head_at(row: &Row, at: usize) -> Head {
    Head {
        rid: row.get(at),
        version: row.get::<_, i64>(at + 1).cast_unsigned(),
        vid: row.get(at + 2),
        ord: row.get(at + 3),
        deleted: row.get(at + 4),
        applied: row.get(at + 5),
        successor: row.get(at + 6),
        sender: row.get(at + 7),
    }
}
