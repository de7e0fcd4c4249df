//! Query text to tokens.
//!
//! The lexer has three modes, as the same characters mean different things outside, between braces
//! and at the start of brackets: `sum` is an aggregation in a statement, a label name in `{sum="x"}`
//! and an error in `[sum]`. It hands out one token at a time, so the parser can report what it made
//! of the tokens before a bad character before it hears of that character.
//!
//! Every byte is looked at a bounded number of times.

use super::{
    ast::{AggregateOp, BinaryOp, Span},
    literal::{quoted_char, quoted_start, quoted_text},
};

/// A piece of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) span: Span,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    EndOfInput,
    Identifier,
    /// An identifier with a colon in it.
    MetricIdentifier,
    Number,
    Duration,
    String,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    DoubleColon,
    /// `=`
    Assign,
    /// `=~`
    Matches,
    /// `!~`
    NotMatches,
    At,
    Binary(BinaryOp),
    Aggregate(AggregateOp),
    Keyword(Keyword),
}

/// A word with a meaning of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Anchored,
    Bool,
    By,
    End,
    Fill,
    FillLeft,
    FillRight,
    GroupLeft,
    GroupRight,
    Ignoring,
    MaxOf,
    MinOf,
    Offset,
    On,
    Range,
    Smoothed,
    Start,
    Step,
    Without,
}

impl Token {
    /// The token's characters.
    pub(super) fn text<'a>(&self, query: &'a str) -> &'a str {
        let (start, end) = (self.span.start as usize, self.span.end as usize);
        &query[start..end]
    }

    /// The token as messages name it: `identifier "foo"`, `<op:+>`, `end of input`.
    pub(super) fn description(&self, query: &str) -> String {
        let text = self.text(query);
        match self.kind {
            Kind::EndOfInput => "end of input".to_owned(),
            Kind::Identifier => format!("identifier {}", quoted_text(text)),
            Kind::MetricIdentifier => format!("metric identifier {}", quoted_text(text)),
            Kind::Number => format!("number {}", quoted_start(text)),
            Kind::Duration => format!("duration {}", quoted_start(text)),
            Kind::String => format!("string {}", quoted_start(text)),
            Kind::At | Kind::Binary(_) | Kind::Matches | Kind::NotMatches => format!("<op:{text}>"),
            Kind::Aggregate(_) => format!("<aggr:{text}>"),
            Kind::Keyword(
                Keyword::Start
                | Keyword::End
                | Keyword::Step
                | Keyword::Range
                | Keyword::MinOf
                | Keyword::MaxOf,
            )
            | Kind::LeftParen
            | Kind::RightParen
            | Kind::LeftBrace
            | Kind::RightBrace
            | Kind::LeftBracket
            | Kind::RightBracket
            | Kind::Comma
            | Kind::Colon
            | Kind::DoubleColon
            | Kind::Assign => quoted_text(text),
            Kind::Keyword(_) => format!("<{text}>"),
        }
    }
}

/// Text that is no token, and where it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LexError {
    pub(super) message: String,
    pub(super) at: usize,
}

/// Walks over a query's text.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    /// First byte not yet read.
    at: usize,
    /// First byte of the token being read.
    start: usize,
    open_parens: usize,
    in_braces: bool,
    in_brackets: bool,
    /// After `[`, until the first number: nothing but a duration may stand here.
    at_duration: bool,
    /// Since `[`, a duration has begun.
    saw_duration: bool,
    /// Since `[`, a colon has come.
    saw_colon: bool,
}

type Lexed = Result<Kind, LexError>;

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            start: 0,
            open_parens: 0,
            in_braces: false,
            in_brackets: false,
            at_duration: false,
            saw_duration: false,
            saw_colon: false,
        }
    }

    /// The next token; after the end of the text, the end again and again.
    pub(super) fn next(&mut self) -> Result<Token, LexError> {
        self.skip_blanks();
        self.start = self.at;
        let kind = if self.at_duration {
            self.duration_token()
        } else if self.in_braces {
            self.brace_token()
        } else {
            self.statement_token()
        }?;
        Ok(Token { kind, span: self.span() })
    }

    fn span(&self) -> Span {
        // The parser refuses texts whose positions do not fit.
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span { start: place(self.start), end: place(self.at) }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn peek_byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Reads one of `set`, all of them ASCII.
    fn accept(&mut self, set: &[u8]) -> bool {
        let found = self.peek_byte().is_some_and(|b| set.contains(&b));
        self.at += usize::from(found);
        found
    }

    fn accept_digits(&mut self, digits: &[u8]) {
        while self.accept(digits) {}
    }

    fn fail(&self, message: impl Into<String>) -> Lexed {
        Err(LexError { message: message.into(), at: self.start })
    }

    /// Fails behind the character just read, where Prometheus puts errors about closing what is not open.
    fn fail_behind(&self, message: impl Into<String>) -> Lexed {
        Err(LexError { message: message.into(), at: self.at })
    }

    /// Skips white space and comments. A comment may stand anywhere but at the start of brackets.
    fn skip_blanks(&mut self) {
        while let Some(b) = self.peek_byte() {
            match b {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                b'#' if !self.at_duration => {
                    let rest = &self.text.as_bytes()[self.at..];
                    let end = rest.iter().position(|b| matches!(b, b'\n' | b'\r'));
                    self.at += end.unwrap_or(rest.len());
                }
                _ => break,
            }
        }
    }

    fn statement_token(&mut self) -> Lexed {
        let Some(c) = self.bump() else {
            return if self.open_parens > 0 {
                self.fail("unclosed left parenthesis")
            } else if self.in_brackets {
                self.fail("unclosed left bracket")
            } else {
                Ok(Kind::EndOfInput)
            };
        };
        Ok(match c {
            ',' => Kind::Comma,
            '*' => Kind::Binary(BinaryOp::Mul),
            '/' => Kind::Binary(BinaryOp::Div),
            '%' => Kind::Binary(BinaryOp::Mod),
            '+' => Kind::Binary(BinaryOp::Add),
            '-' => Kind::Binary(BinaryOp::Sub),
            '^' => Kind::Binary(BinaryOp::Pow),
            '@' => Kind::At,
            '=' if self.accept(b"=") => Kind::Binary(BinaryOp::Eq),
            '=' if self.peek() == Some('~') => return self.fail("unexpected character after '=': '~'"),
            '=' => Kind::Assign,
            '!' if self.accept(b"=") => Kind::Binary(BinaryOp::Ne),
            '!' => return self.fail(format!("unexpected character after '!': {}", quoted_char(self.peek()))),
            '<' if self.accept(b"=") => Kind::Binary(BinaryOp::Le),
            '<' if self.accept(b"/") => Kind::Binary(BinaryOp::TrimUpper),
            '<' => Kind::Binary(BinaryOp::Lt),
            '>' if self.accept(b"=") => Kind::Binary(BinaryOp::Ge),
            '>' if self.accept(b"/") => Kind::Binary(BinaryOp::TrimLower),
            '>' => Kind::Binary(BinaryOp::Gt),
            '0'..='9' => return self.number_or_duration(),
            '.' if self.peek_byte().is_some_and(|b| b.is_ascii_digit()) => return self.number_or_duration(),
            '"' | '\'' => return self.string(c),
            '`' => return self.raw_string(),
            ':' if self.in_brackets => return self.colon(),
            'a'..='z' | 'A'..='Z' | '_' if self.in_brackets => {
                return self.duration_keyword().map_or_else(
                    || self.fail(format!("unexpected character: {}, expected ':'", quoted_char(Some(c)))),
                    Ok,
                );
            }
            'a'..='z' | 'A'..='Z' | '_' | ':' => self.word(),
            '(' => self.open_paren(),
            ')' => return self.close_paren(),
            '{' => {
                self.in_braces = true;
                Kind::LeftBrace
            }
            '[' if self.in_brackets => return self.fail("unexpected left bracket '['"),
            '[' => {
                self.in_brackets = true;
                self.at_duration = true;
                self.saw_duration = false;
                self.saw_colon = false;
                Kind::LeftBracket
            }
            ']' if !self.in_brackets => return self.fail("unexpected right bracket ']'"),
            ']' => {
                self.in_brackets = false;
                Kind::RightBracket
            }
            _ => return self.fail(format!("unexpected character: {}", quoted_char(Some(c)))),
        })
    }

    fn open_paren(&mut self) -> Kind {
        self.open_parens += 1;
        Kind::LeftParen
    }

    fn close_paren(&mut self) -> Lexed {
        match self.open_parens.checked_sub(1) {
            Some(open) => self.open_parens = open,
            None => return self.fail_behind("unexpected right parenthesis ')'"),
        }
        Ok(Kind::RightParen)
    }

    /// A colon behind the first duration in brackets.
    fn colon(&mut self) -> Lexed {
        if self.saw_colon {
            return self.fail("unexpected colon ':'");
        }
        self.saw_colon = true;
        Ok(if self.accept(b":") { Kind::DoubleColon } else { Kind::Colon })
    }

    /// What may stand in brackets before the first number.
    fn duration_token(&mut self) -> Lexed {
        let Some(c) = self.bump() else {
            return self.fail("unexpected end of input in duration expression");
        };
        Ok(match c {
            ']' => {
                self.in_brackets = false;
                self.at_duration = false;
                Kind::RightBracket
            }
            ':' if !self.saw_duration => {
                return self.fail_behind("unexpected colon before duration in duration expression");
            }
            ':' if self.saw_colon => {
                return self.fail_behind("unexpected repeated colon in duration expression");
            }
            ':' => {
                self.saw_colon = true;
                Kind::Colon
            }
            '(' => self.open_paren(),
            ')' => return self.close_paren(),
            '+' => Kind::Binary(BinaryOp::Add),
            '-' => Kind::Binary(BinaryOp::Sub),
            '*' => Kind::Binary(BinaryOp::Mul),
            '/' => Kind::Binary(BinaryOp::Div),
            '%' => Kind::Binary(BinaryOp::Mod),
            '^' => Kind::Binary(BinaryOp::Pow),
            ',' => Kind::Comma,
            'a'..='z' | 'A'..='Z' => match self.duration_keyword() {
                Some(kind) => {
                    self.saw_duration = true;
                    kind
                }
                None => return self.unexpected_in_duration(c),
            },
            '0'..='9' => return self.first_duration(),
            '.' if self.peek_byte().is_some_and(|b| b.is_ascii_digit()) => return self.first_duration(),
            _ => return self.unexpected_in_duration(c),
        })
    }

    fn unexpected_in_duration(&self, c: char) -> Lexed {
        self.fail(format!("unexpected character in duration expression: {}", quoted_char(Some(c))))
    }

    fn first_duration(&mut self) -> Lexed {
        self.saw_duration = true;
        self.at_duration = false;
        self.number_or_duration()
    }

    /// `step`, `range`, `min_of` or `max_of`; the first letter is read already.
    fn duration_keyword(&mut self) -> Option<Kind> {
        let before = self.at;
        while self.peek_byte().is_some_and(|b| b == b'_' || b.is_ascii_alphabetic()) {
            self.at += 1;
        }
        let word = &self.text[self.start..self.at];
        let keyword = [
            ("step", Keyword::Step),
            ("range", Keyword::Range),
            ("min_of", Keyword::MinOf),
            ("max_of", Keyword::MaxOf),
        ];
        let found = keyword.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
        if found.is_none() {
            self.at = before;
        }
        found.map(|(_, keyword)| Kind::Keyword(*keyword))
    }

    /// What may stand between braces. Words are label names there, whatever they mean elsewhere.
    fn brace_token(&mut self) -> Lexed {
        let Some(c) = self.bump() else {
            return self.fail("unexpected end of input inside braces");
        };
        Ok(match c {
            'a'..='z' | 'A'..='Z' | '_' => {
                self.finish_word(false);
                Kind::Identifier
            }
            ',' => Kind::Comma,
            '"' | '\'' => return self.string(c),
            '`' => return self.raw_string(),
            '=' if self.accept(b"~") => Kind::Matches,
            '=' => Kind::Assign,
            '!' if self.accept(b"~") => Kind::NotMatches,
            '!' if self.accept(b"=") => Kind::Binary(BinaryOp::Ne),
            '!' => {
                let next = quoted_char(self.peek());
                return self.fail(format!("unexpected character after '!' inside braces: {next}"));
            }
            '{' => return self.fail("unexpected left brace '{'"),
            '}' => {
                self.in_braces = false;
                Kind::RightBrace
            }
            _ => return self.fail(format!("unexpected character inside braces: {}", quoted_char(Some(c)))),
        })
    }

    fn finish_word(&mut self, colons: bool) {
        let in_word = |b: u8| b == b'_' || b.is_ascii_alphanumeric() || (colons && b == b':');
        while self.peek_byte().is_some_and(in_word) {
            self.at += 1;
        }
    }

    fn word(&mut self) -> Kind {
        self.finish_word(true);
        let word = &self.text[self.start..self.at];
        let kind = meaning(word);
        let is_fill =
            matches!(kind, Some(Kind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight)));
        match kind {
            // These came late to the language; metrics with such names live on.
            Some(_) if is_fill && !self.paren_follows() => Kind::Identifier,
            Some(kind) => kind,
            None if word.contains(':') => Kind::MetricIdentifier,
            None => Kind::Identifier,
        }
    }

    fn paren_follows(&self) -> bool {
        self.text[self.at..].trim_start_matches([' ', '\t', '\n', '\r']).starts_with('(')
    }

    /// A quoted string, to its end; the opening quote is read already.
    fn string(&mut self, quote: char) -> Lexed {
        loop {
            match self.bump() {
                None | Some('\n') => return self.fail("unterminated quoted string"),
                Some('\\') => self.escape(quote)?,
                Some(c) if c == quote => return Ok(Kind::String),
                Some(_) => {}
            }
        }
    }

    /// Checks an escape sequence; its backslash is read already.
    fn escape(&mut self, quote: char) -> Result<(), LexError> {
        let start = self.start;
        let fail = |message: String| Err(LexError { message, at: start });
        let named = |c: char| {
            let printed =
                if quoted_char(Some(c)).starts_with("'\\u") { String::new() } else { format!(" '{c}'") };
            format!("U+{:04X}{printed}", u32::from(c))
        };
        let (digits, base, most) = match self.bump() {
            None => return fail("escape sequence not terminated".to_owned()),
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => return Ok(()),
            Some(c) if c == quote => return Ok(()),
            Some('0'..='7') => {
                self.at -= 1;
                (3, 8, 0xff)
            }
            Some('x') => (2, 16, 0xff),
            Some('u') => (4, 16, u32::from(char::MAX)),
            Some('U') => (8, 16, u32::from(char::MAX)),
            Some(c) => return fail(format!("unknown escape sequence {}", named(c))),
        };
        let mut value = 0_u32;
        for _ in 0..digits {
            let Some(c) = self.bump() else {
                return fail("escape sequence not terminated".to_owned());
            };
            let Some(digit) = c.to_digit(base) else {
                return fail(format!("illegal character {} in escape sequence", named(c)));
            };
            value = value.saturating_mul(base).saturating_add(digit);
        }
        if value > most || (0xd800..0xe000).contains(&value) {
            return fail("escape sequence is an invalid Unicode code point".to_owned());
        }
        Ok(())
    }

    fn raw_string(&mut self) -> Lexed {
        match self.text[self.at..].find('`') {
            Some(length) => {
                self.at += length + 1;
                Ok(Kind::String)
            }
            None => self.fail("unterminated raw string"),
        }
    }

    fn number_or_duration(&mut self) -> Lexed {
        self.at = self.start;
        if self.number() {
            return Ok(Kind::Number);
        }
        if self.duration_units() {
            return Ok(Kind::Duration);
        }
        let text = quoted_text(&self.text[self.start..self.at]);
        self.fail(format!("bad number or duration syntax: {text}"))
    }

    /// Reads what looks like a number; whether it is one, the parser finds out.
    fn number(&mut self) -> bool {
        let mut digits: &[u8] = b"0123456789";
        if self.accept(b"0") && self.accept(b"xX") {
            self.accept(b"_");
            digits = b"0123456789abcdefABCDEF";
        }
        let hex = digits.len() > 10;
        self.accept(b".");
        self.accept(digits);
        let (mut dotted, mut scaled) = (false, false);
        loop {
            match self.peek_byte() {
                Some(b'.') => {
                    self.at += 1;
                    if dotted || self.accept(b"_.") || hex {
                        return false;
                    }
                    dotted = true;
                }
                Some(b'e' | b'E') if !hex => {
                    self.at += 1;
                    if scaled {
                        return false;
                    }
                    scaled = true;
                    self.accept(b"+-");
                    if self.accept(b"._eE") || self.at == self.text.len() {
                        return false;
                    }
                }
                Some(b'_') => {
                    self.at += 1;
                    if self.accept(b"._eE") || self.at == self.text.len() {
                        return false;
                    }
                }
                Some(b) if digits.contains(&b) => self.accept_digits(digits),
                Some(_) | None => break,
            }
        }
        !self.word_goes_on()
    }

    fn word_goes_on(&self) -> bool {
        self.peek_byte().is_some_and(|b| b == b'_' || b.is_ascii_alphanumeric())
    }

    /// Reads the units of a duration behind its first number; that they are in order, the parser finds out.
    fn duration_units(&mut self) -> bool {
        const DIGITS: &[u8] = b"0123456789";
        if !self.accept(b"smhdwy") {
            return false;
        }
        self.accept(b"s");
        while self.accept(DIGITS) {
            self.accept_digits(DIGITS);
            if !self.accept(b"smhdw") {
                return false;
            }
            self.accept(b"s");
        }
        let ends = !self.word_goes_on();
        if !ends {
            // The message shows the character that is too much.
            self.at += 1;
        }
        ends
    }
}

/// What a word means outside braces and brackets; case does not matter.
fn meaning(word: &str) -> Option<Kind> {
    // The longest word with a meaning.
    const LONGEST: usize = "count_values".len();
    if word.len() > LONGEST {
        return None;
    }
    Some(match word.to_ascii_lowercase().as_str() {
        "and" => Kind::Binary(BinaryOp::And),
        "or" => Kind::Binary(BinaryOp::Or),
        "unless" => Kind::Binary(BinaryOp::Unless),
        "atan2" => Kind::Binary(BinaryOp::Atan2),
        "sum" => Kind::Aggregate(AggregateOp::Sum),
        "avg" => Kind::Aggregate(AggregateOp::Avg),
        "count" => Kind::Aggregate(AggregateOp::Count),
        "min" => Kind::Aggregate(AggregateOp::Min),
        "max" => Kind::Aggregate(AggregateOp::Max),
        "group" => Kind::Aggregate(AggregateOp::Group),
        "stddev" => Kind::Aggregate(AggregateOp::Stddev),
        "stdvar" => Kind::Aggregate(AggregateOp::Stdvar),
        "topk" => Kind::Aggregate(AggregateOp::Topk),
        "bottomk" => Kind::Aggregate(AggregateOp::Bottomk),
        "count_values" => Kind::Aggregate(AggregateOp::CountValues),
        "quantile" => Kind::Aggregate(AggregateOp::Quantile),
        "limitk" => Kind::Aggregate(AggregateOp::Limitk),
        "limit_ratio" => Kind::Aggregate(AggregateOp::LimitRatio),
        "offset" => Kind::Keyword(Keyword::Offset),
        "smoothed" => Kind::Keyword(Keyword::Smoothed),
        "anchored" => Kind::Keyword(Keyword::Anchored),
        "by" => Kind::Keyword(Keyword::By),
        "without" => Kind::Keyword(Keyword::Without),
        "on" => Kind::Keyword(Keyword::On),
        "ignoring" => Kind::Keyword(Keyword::Ignoring),
        "group_left" => Kind::Keyword(Keyword::GroupLeft),
        "group_right" => Kind::Keyword(Keyword::GroupRight),
        "fill" => Kind::Keyword(Keyword::Fill),
        "fill_left" => Kind::Keyword(Keyword::FillLeft),
        "fill_right" => Kind::Keyword(Keyword::FillRight),
        "bool" => Kind::Keyword(Keyword::Bool),
        "start" => Kind::Keyword(Keyword::Start),
        "end" => Kind::Keyword(Keyword::End),
        "step" => Kind::Keyword(Keyword::Step),
        "range" => Kind::Keyword(Keyword::Range),
        "inf" | "nan" => Kind::Number,
        _ => return None,
    })
}
