//! Reads JSON in place, for lines of samples.
//!
//! Strings without escapes are borrowed, numbers are read by the standard library and so to the last bit.
//! Beyond JSON it takes `NaN`, `Inf` and `+Inf` where a number stands, because VictoriaMetrics has
//! written them so.

use std::borrow::Cow;

/// Why a line is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub(crate) struct BadJson {
    pub(crate) what: &'static str,
    /// Where, counted from the start of the line.
    pub(crate) at: usize,
}

/// How deep what is not looked at may be nested.
const MAX_DEPTH: usize = 32;

/// A place in a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Json<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Json<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The error that something else was expected here.
    pub(crate) fn bad(&self, what: &'static str) -> BadJson {
        BadJson { what, at: self.at }
    }

    /// Reads an object, giving `each` the keys; `each` reads the values.
    pub(crate) fn object(
        &mut self,
        mut each: impl FnMut(Cow<'a, str>, &mut Self) -> Result<(), BadJson>,
    ) -> Result<(), BadJson> {
        self.expect(b'{', "an object is expected")?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.expect(b':', "a colon is expected")?;
            each(key, self)?;
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',', "a comma or the end of the object is expected")?;
        }
    }

    /// Reads a list; `each` reads its items.
    pub(crate) fn list(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), BadJson>,
    ) -> Result<(), BadJson> {
        self.expect(b'[', "a list is expected")?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            each(self)?;
            if self.take(b']') {
                return Ok(());
            }
            self.expect(b',', "a comma or the end of the list is expected")?;
        }
    }

    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, BadJson> {
        self.expect(b'"', "a string is expected")?;
        let rest = &self.text[self.at..];
        let special = |byte: u8| byte == b'"' || byte == b'\\' || byte < 0x20;
        let end = rest.bytes().position(special).ok_or_else(|| self.bad("a string has no end"))?;
        if rest.as_bytes()[end] == b'"' {
            self.at += end + 1;
            return Ok(Cow::Borrowed(&rest[..end]));
        }
        let mut text = String::with_capacity(end + 16);
        loop {
            let rest = &self.text[self.at..];
            let end = rest.bytes().position(special).ok_or_else(|| self.bad("a string has no end"))?;
            text.push_str(&rest[..end]);
            self.at += end + 1;
            match rest.as_bytes()[end] {
                b'"' => return Ok(Cow::Owned(text)),
                b'\\' => text.push(self.escape()?),
                _ => return Err(BadJson { what: "a string has a control character", at: self.at - 1 }),
            }
        }
    }

    /// Reads a float: a number, or a word for what is none.
    pub(crate) fn float(&mut self) -> Result<f64, BadJson> {
        if self.peek() == Some(b'"') {
            let before = *self;
            let word = self.string()?;
            return named_float(&word).ok_or_else(|| before.bad("a number is expected"));
        }
        let token = self.token()?;
        let is_number = token.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
        let read = if is_number { token.parse().ok() } else { named_float(token) };
        let read = read.ok_or_else(|| self.bad("a number is expected"))?;
        self.at += token.len();
        Ok(read)
    }

    pub(crate) fn integer<N: std::str::FromStr>(&mut self) -> Result<N, BadJson> {
        let token = self.token()?;
        let read = token.parse().map_err(|_| self.bad("a whole number within range is expected"))?;
        self.at += token.len();
        Ok(read)
    }

    /// Passes over a value of any kind.
    pub(crate) fn skip(&mut self) -> Result<(), BadJson> {
        self.skip_within(MAX_DEPTH)
    }

    /// Whether the line ends here.
    pub(crate) fn end(&mut self) -> Result<(), BadJson> {
        if self.peek().is_some() { Err(self.bad("the line goes on after its object")) } else { Ok(()) }
    }

    fn skip_within(&mut self, depth: usize) -> Result<(), BadJson> {
        let depth = depth.checked_sub(1).ok_or_else(|| self.bad("the nesting is too deep"))?;
        match self.peek() {
            Some(b'{') => self.object(|_, value| value.skip_within(depth)),
            Some(b'[') => self.list(|item| item.skip_within(depth)),
            Some(b'"') => self.string().map(|_| ()),
            Some(b't' | b'f') => {
                let token = self.token()?;
                if !matches!(token, "true" | "false") {
                    return Err(self.bad("a value is expected"));
                }
                self.at += token.len();
                Ok(())
            }
            Some(_) | None => self.float().map(|_| ()),
        }
    }

    /// The letters and digits that come next; none is an error.
    fn token(&mut self) -> Result<&'a str, BadJson> {
        self.peek();
        let rest = &self.text[self.at..];
        let in_token = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        let end = rest.bytes().position(|b| !in_token(b)).unwrap_or(rest.len());
        if end == 0 { Err(self.bad("a value is expected")) } else { Ok(&rest[..end]) }
    }

    fn escape(&mut self) -> Result<char, BadJson> {
        let wrong = self.bad("a string has an escape that does not exist");
        let kind = self.text.as_bytes().get(self.at).ok_or_else(|| wrong.clone())?;
        self.at += 1;
        Ok(match kind {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.code_unit()?;
                let units = if (0xd800..0xdc00).contains(&first) {
                    if !self.text[self.at..].starts_with("\\u") {
                        return Err(wrong);
                    }
                    self.at += 2;
                    vec![first, self.code_unit()?]
                } else {
                    vec![first]
                };
                match char::decode_utf16(units).next() {
                    Some(Ok(character)) => character,
                    Some(Err(_)) | None => return Err(wrong),
                }
            }
            _ => {
                self.at -= 1;
                return Err(wrong);
            }
        })
    }

    fn code_unit(&mut self) -> Result<u16, BadJson> {
        let wrong = self.bad("a string has an escape that does not exist");
        let digits = self.text.get(self.at..self.at + 4).ok_or_else(|| wrong.clone())?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong);
        }
        self.at += 4;
        u16::from_str_radix(digits, 16).map_err(|_| wrong)
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), BadJson> {
        if self.take(byte) { Ok(()) } else { Err(self.bad(what)) }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// The next byte that is no space.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }
}

/// What stands for a float that is no number; a NaN may come as its bits.
fn named_float(word: &str) -> Option<f64> {
    if let Some(bits) = word.strip_prefix("0x") {
        return parse_bits(bits);
    }
    let (sign, name) = match word.as_bytes().first()? {
        b'-' => (-1.0, &word[1..]),
        b'+' => (1.0, &word[1..]),
        _ => (1.0, word),
    };
    if name.eq_ignore_ascii_case("inf") || name.eq_ignore_ascii_case("infinity") {
        return Some(sign * f64::INFINITY);
    }
    (word == "null" || word.eq_ignore_ascii_case("nan")).then_some(f64::from_bits(NORMAL_NAN_BITS))
}

/// The NaN that Prometheus takes for the result of arithmetic.
const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// A float from the sixteen digits of its bits.
pub(crate) fn parse_bits(digits: &str) -> Option<f64> {
    let sound = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    sound.then(|| u64::from_str_radix(digits, 16).ok()).flatten().map(f64::from_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_come_with_and_without_escapes() {
        for (text, read) in [
            (r#""""#, ""),
            (r#" "é""#, "é"),
            (r#""a\"\\\/\b\f\n\r\tb""#, "a\"\\/\u{8}\u{c}\n\r\tb"),
            (r#""\u00e9\uD83D\uDE00""#, "é😀"),
        ] {
            assert_eq!(Json::new(text).string().unwrap(), read);
        }
        for text in [
            "",
            "a",
            "\"",
            "\"\\\"",
            r#""\x""#,
            r#""\u12""#,
            r#""\ud83d""#,
            r#""\ud83dé""#,
            r#""\ude00""#,
            "\"\n\"",
            r#""\u+123""#,
            r#""\ué123""#,
        ] {
            assert!(Json::new(text).string().is_err(), "{text:?}");
        }
    }

    #[test]
    fn floats_are_read_to_the_last_bit() {
        for value in
            [0.0_f64, -0.0, 0.1, 1e23, 5e-324, 1.797_693_134_862_315_7e308, -123.456, 9_007_199_254_740_993.0]
        {
            assert_eq!(Json::new(&format!("{value:?}")).float().unwrap().to_bits(), value.to_bits());
            assert_eq!(Json::new(&format!("{value}")).float().unwrap().to_bits(), value.to_bits());
        }
        assert_eq!(Json::new("12345678901234567890").float(), Ok(12345678901234567890.0));
        for text in ["+Inf", "inf", "\"Infinity\"", "\"+Infinity\"", "1e999"] {
            assert_eq!(Json::new(text).float(), Ok(f64::INFINITY), "{text}");
        }
        for text in ["-Inf", "\"-Infinity\""] {
            assert_eq!(Json::new(text).float(), Ok(f64::NEG_INFINITY), "{text}");
        }
        for text in ["null", "NaN", "nan", "\"NaN\"", "\"0x7ff8000000000001\""] {
            assert_eq!(Json::new(text).float().unwrap().to_bits(), NORMAL_NAN_BITS, "{text}");
        }
        for text in ["", "-", "e", "1e", "--1", "\"1\"", "true", "nil", "{}", "[1]", "\"0x7ff8\"", "0x10"] {
            assert!(Json::new(text).float().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_looked_at_is_passed_over_but_not_for_ever() {
        for text in ["1", "\"a\"", "null", "true", "[]", "{}", r#"{"a":[1,{"b":false}],"c":"\n"}"#] {
            let mut json = Json::new(text);
            json.skip().unwrap();
            json.end().unwrap();
        }
        assert!(Json::new(&"[".repeat(100_000)).skip().is_err());
        for text in ["tru", "[1", "{\"a\"}", "{a:1}", "[1 2]", "", "]"] {
            assert!(Json::new(text).skip().is_err(), "{text:?}");
        }
    }
}
