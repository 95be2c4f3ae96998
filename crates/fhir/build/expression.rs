//! The FHIRPath subset in which SearchParameters are written, as a syntax tree.
//!
//! The grammar is the one counted over all R4 and R5 definitions: member paths, `|`, parentheses, `as`, `.as()`, `.ofType()`,
//! `where(x='y')`, `where(resolve() is T)`, `extension('url')`, `hasExtension('url')`, `[n]`, `first()`, `%resource`, and
//! `X.exists() and X != false`.

/// An expression. Collections are flattened at every step, as in FHIRPath.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    /// A leading name: a type, or a member of the context.
    Name(String),
    /// `%resource`
    Resource,
    /// `.member`
    Member(Box<Expr>, String),
    /// `[n]`, `.first()`
    Index(Box<Expr>, usize),
    /// `as T`, `.as(T)`, `.ofType(T)`: keeps what is of the type.
    OfType(Box<Expr>, String),
    /// `.where(test)`
    Where(Box<Expr>, Test),
    /// `.extension('url')`
    Extension(Box<Expr>, String),
    /// `a | b`
    Union(Vec<Expr>),
    /// `X.exists() and X != false`: a boolean.
    NotFalse(Box<Expr>),
}

/// The test of a `where`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    /// `member = 'text'`
    Equals(String, String),
    /// `resolve() is T`
    ResolvesTo(String),
    /// `hasExtension('url')`
    HasExtension(String),
}

/// Parses a whole expression; an error says what was expected where.
pub(crate) fn parse(text: &str) -> Result<Expr, String> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0 };
    let expr = parser.union()?;
    let expr = if parser.word("and") { parser.not_false(expr)? } else { expr };
    if parser.at < parser.tokens.len() {
        return Err(parser.expected("the end"));
    }
    Ok(expr)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Number(usize),
    Mark(char),
    NotEqual,
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut letters = text.char_indices().peekable();
    while let Some((start, letter)) = letters.next() {
        let mut run = |accept: fn(char) -> bool| {
            let mut end = start + letter.len_utf8();
            while let Some((at, next)) = letters.next_if(|(_, next)| accept(*next)) {
                end = at + next.len_utf8();
            }
            &text[start..end]
        };
        match letter {
            ' ' | '\n' | '\r' | '\t' => {}
            'a'..='z' | 'A'..='Z' | '_' => {
                tokens.push(Token::Name(run(|c| c.is_ascii_alphanumeric() || c == '_').to_owned()));
            }
            '0'..='9' => {
                let digits = run(|c| c.is_ascii_digit());
                tokens.push(Token::Number(digits.parse().map_err(|_| format!("number at {start}"))?));
            }
            '\'' => {
                let rest = &text[start + 1..];
                let end = rest.find('\'').ok_or_else(|| format!("open text at {start}"))?;
                tokens.push(Token::Text(rest[..end].to_owned()));
                while letters.next_if(|(at, _)| *at <= start + 1 + end).is_some() {}
            }
            '!' if letters.next_if(|(_, next)| *next == '=').is_some() => tokens.push(Token::NotEqual),
            '.' | '|' | '(' | ')' | '[' | ']' | '=' | '%' => tokens.push(Token::Mark(letter)),
            _ => return Err(format!("unknown letter at {start}")),
        }
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn union(&mut self) -> Result<Expr, String> {
        let mut branches = vec![self.typed()?];
        while self.mark('|') {
            branches.push(self.typed()?);
        }
        Ok(if branches.len() == 1 { branches.remove(0) } else { Expr::Union(branches) })
    }

    fn typed(&mut self) -> Result<Expr, String> {
        let mut expr = self.path()?;
        while self.word("as") {
            expr = Expr::OfType(Box::new(expr), self.name()?);
        }
        Ok(expr)
    }

    fn path(&mut self) -> Result<Expr, String> {
        let mut expr = self.start()?;
        loop {
            if self.mark('.') {
                expr = self.step(expr)?;
            } else if self.mark('[') {
                let Some(Token::Number(n)) = self.next() else { return Err(self.expected("a number")) };
                self.close(']')?;
                expr = Expr::Index(Box::new(expr), n);
            } else {
                return Ok(expr);
            }
        }
    }

    fn start(&mut self) -> Result<Expr, String> {
        if self.mark('(') {
            let inner = self.union()?;
            self.close(')')?;
            return Ok(inner);
        }
        if self.mark('%') {
            return if self.word("resource") { Ok(Expr::Resource) } else { Err(self.expected("resource")) };
        }
        // a function on the context: `extension('url')`
        if matches!(self.tokens.get(self.at + 1), Some(Token::Mark('('))) {
            return Err(self.expected("a path"));
        }
        Ok(Expr::Name(self.name()?))
    }

    fn step(&mut self, base: Expr) -> Result<Expr, String> {
        let name = self.name()?;
        let base = Box::new(base);
        if !self.mark('(') {
            return Ok(Expr::Member(base, name));
        }
        let expr = match name.as_str() {
            "as" | "ofType" => Expr::OfType(base, self.name()?),
            "where" => Expr::Where(base, self.test()?),
            "extension" => Expr::Extension(base, self.text()?),
            "hasExtension" => Expr::Where(base, Test::HasExtension(self.text()?)),
            "first" => Expr::Index(base, 0),
            "exists" => *base,
            _ => return Err(self.expected("a known function")),
        };
        self.close(')')?;
        Ok(expr)
    }

    fn test(&mut self) -> Result<Test, String> {
        let name = self.name()?;
        if self.mark('=') {
            return Ok(Test::Equals(name, self.text()?));
        }
        self.close('(')?;
        match name.as_str() {
            "resolve" => {
                self.close(')')?;
                if self.word("is") { Ok(Test::ResolvesTo(self.name()?)) } else { Err(self.expected("is")) }
            }
            "hasExtension" => {
                let url = self.text()?;
                self.close(')')?;
                Ok(Test::HasExtension(url))
            }
            _ => Err(self.expected("a known test")),
        }
    }

    /// The rest of `X.exists() and X != false`; `exists()` itself adds nothing to a path.
    fn not_false(&mut self, path: Expr) -> Result<Expr, String> {
        let again = self.path()?;
        if again == path && self.next() == Some(Token::NotEqual) && self.word("false") {
            return Ok(Expr::NotFalse(Box::new(path)));
        }
        Err(self.expected("the same path != false"))
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn mark(&mut self, mark: char) -> bool {
        self.accept(&Token::Mark(mark))
    }

    fn word(&mut self, word: &str) -> bool {
        self.accept(&Token::Name(word.to_owned()))
    }

    fn accept(&mut self, token: &Token) -> bool {
        let found = self.tokens.get(self.at) == Some(token);
        self.at += usize::from(found);
        found
    }

    fn close(&mut self, mark: char) -> Result<(), String> {
        if self.mark(mark) { Ok(()) } else { Err(self.expected(&mark.to_string())) }
    }

    fn name(&mut self) -> Result<String, String> {
        match self.next() {
            Some(Token::Name(name)) => Ok(name),
            _ => Err(self.expected("a name")),
        }
    }

    fn text(&mut self) -> Result<String, String> {
        match self.next() {
            Some(Token::Text(text)) => Ok(text),
            _ => Err(self.expected("a text")),
        }
    }

    fn expected(&self, what: &str) -> String {
        format!("{what} expected near token {}", self.at)
    }
}
