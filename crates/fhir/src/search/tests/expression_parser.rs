//! The parser of SearchParameter expressions, which the build script uses.

use super::expression::{Expr, Test, parse};

fn name(text: &str) -> Box<Expr> {
    Box::new(Expr::Name(text.into()))
}

fn member(base: Box<Expr>, text: &str) -> Box<Expr> {
    Box::new(Expr::Member(base, text.into()))
}

#[test]
fn the_forms_of_the_definitions_are_understood() {
    let path = || member(name("A"), "b");
    for (text, expected) in [
        ("A.b", *path()),
        ("A.b | C", Expr::Union(vec![*path(), *name("C")])),
        ("A.b as Quantity", Expr::OfType(path(), "Quantity".into())),
        ("(A.b as Quantity).text", *member(Box::new(Expr::OfType(path(), "Quantity".into())), "text")),
        ("A.b.as(Quantity)", Expr::OfType(path(), "Quantity".into())),
        ("A.b.ofType(Quantity)", Expr::OfType(path(), "Quantity".into())),
        ("A.b.where(c='d e')", Expr::Where(path(), Test::Equals("c".into(), "d e".into()))),
        ("A.b.where(resolve() is Patient)", Expr::Where(path(), Test::ResolvesTo("Patient".into()))),
        ("A.b.where(hasExtension('u'))", Expr::Where(path(), Test::HasExtension("u".into()))),
        (
            "A.b.extension('http://x').value",
            *member(Box::new(Expr::Extension(path(), "http://x".into())), "value"),
        ),
        ("A.b[0].c", *member(Box::new(Expr::Index(path(), 0)), "c")),
        ("A.b.first()", Expr::Index(path(), 0)),
        ("A.b.exists() and A.b != false", Expr::NotFalse(path())),
        ("%resource.c", *member(Box::new(Expr::Resource), "c")),
    ] {
        assert_eq!(parse(text).as_ref(), Ok(&expected), "{text}");
    }
}

#[test]
fn anything_else_is_an_error() {
    for text in [
        "",
        "A.",
        "A | ",
        "(A",
        "A)",
        "A.b.where(",
        "A.b.where(c)",
        "A.count()",
        "A = 'b'",
        "A.where(c='d",
        "A.b[x]",
        "A.b.exists() and A.c != false",
        "%context",
        "$this",
        "é",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}
