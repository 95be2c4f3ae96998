//! The normal form in which strings are indexed and compared.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// NFKD, combining marks dropped, case folded, `ß ø ł đ æ œ þ ı` mapped to base letters, punctuation dropped, white space collapsed to
/// single blanks. `O'Brien` becomes `obrien`, `Müller` becomes `muller`.
pub fn normal_form(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    if text.is_ascii() {
        text.chars().for_each(|letter| push(letter.to_ascii_lowercase(), &mut normal));
    } else {
        text.nfkd()
            .filter(|c| !is_combining_mark(*c))
            .flat_map(char::to_lowercase)
            .for_each(|c| push(c, &mut normal));
    }
    if normal.ends_with(' ') {
        normal.pop();
    }
    normal
}

fn push(letter: char, normal: &mut String) {
    match letter {
        'ß' => normal.push_str("ss"),
        'ø' => normal.push('o'),
        'ł' => normal.push('l'),
        'đ' | 'ð' => normal.push('d'),
        'æ' => normal.push_str("ae"),
        'œ' => normal.push_str("oe"),
        'þ' => normal.push_str("th"),
        'ı' => normal.push('i'),
        'ς' => normal.push('σ'),
        letter if letter.is_alphanumeric() => normal.push(letter),
        letter if letter.is_whitespace() && !normal.is_empty() && !normal.ends_with(' ') => normal.push(' '),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::normal_form;

    #[test]
    fn case_accents_punctuation_and_blanks_do_not_count() {
        for (text, normal) in [
            ("Müller", "muller"),
            ("O'Brien", "obrien"),
            ("GARCÍA  Márquez ", "garcia marquez"),
            ("Straße", "strasse"),
            ("Łódź", "lodz"),
            ("Ærø", "aero"),
            ("ΟΔΥΣΣΕΥΣ", "οδυσσευσ"),
            ("Οδυσσεύς", "οδυσσευσ"),
            ("山田", "山田"),
            ("  ", ""),
        ] {
            assert_eq!(normal_form(text), normal);
        }
    }
}
