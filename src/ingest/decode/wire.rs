//! Walks over protobuf without copying.
//!
//! A [`Message`] is a borrowed slice that knows where in the request it lies; a field with a length is
//! again one. What is in a field is read only when asked for, so skipping costs a length.

/// The bytes of a message, and where they lie in the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    rest: &'a [u8],
    offset: usize,
}

/// A request that is not what it says it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The compression is broken.
    #[error("snappy: {0}")]
    Snappy(String),
    /// The declared size cannot come out of so few bytes.
    #[error("snappy: {compressed} bytes cannot hold the declared {declared}")]
    Lying {
        /// What came.
        compressed: usize,
        /// What it says it holds.
        declared: usize,
    },
    /// The message is broken.
    #[error("protobuf: {what} at byte {offset}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Where in the decompressed request.
        offset: usize,
    },
    /// The first symbol of a 2.0 request has to be the empty one.
    #[error("the first symbol is not empty")]
    FirstSymbol,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    /// Its number.
    pub(crate) number: u32,
    /// Where its tag starts in the request.
    pub(crate) offset: usize,
    value: Value<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(Message<'a>),
    Fixed32,
    Group,
}

/// How deep groups may nest in unknown fields.
const MAX_GROUP_DEPTH: u32 = 64;

impl<'a> Message<'a> {
    /// A message that lies at `offset` of its request.
    pub(crate) fn new(bytes: &'a [u8], offset: usize) -> Self {
        Self { rest: bytes, offset }
    }

    /// What is left of it.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.rest
    }

    /// Where in the request the rest starts.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Reads the next field; none at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Field<'a>>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let offset = self.offset;
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).unwrap_or(0);
        if number == 0 || number >= 1 << 29 {
            return Err(malformed("illegal field number", offset));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.fixed64()?),
            2 => Value::Bytes(self.delimited()?),
            3 => {
                self.skip_group(number)?;
                Value::Group
            }
            5 => {
                self.take(4)?;
                Value::Fixed32
            }
            _ => return Err(malformed("illegal wire type", offset)),
        };
        Ok(Some(Field { number, offset, value }))
    }

    /// Skips the fields that follow if they have this tag and are short; stops before any other.
    ///
    /// A series is mostly labels, and they are mostly short, so this is where its bytes go by.
    #[inline]
    pub(crate) fn skip_run(&mut self, tag: u8) {
        let mut rest = self.rest;
        while let [first, length, after @ ..] = rest
            && *first == tag
            && *length < 0x80
            && let Some(after) = after.get(usize::from(*length)..)
        {
            rest = after;
        }
        self.offset += self.rest.len() - rest.len();
        self.rest = rest;
    }

    /// Reads a varint.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                self.offset += 1;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for (i, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if *byte < 0x80 {
                self.take(i + 1)?;
                return Ok(value);
            }
        }
        let what = if self.rest.len() < 10 { "unexpected end" } else { "number too long" };
        Err(malformed(what, self.offset))
    }

    /// Reads eight bytes.
    #[inline]
    pub(crate) fn fixed64(&mut self) -> Result<u64, DecodeError> {
        let Some((bytes, rest)) = self.rest.split_first_chunk::<8>() else {
            return Err(malformed("unexpected end", self.offset));
        };
        self.rest = rest;
        self.offset += 8;
        Ok(u64::from_le_bytes(*bytes))
    }

    #[inline]
    fn delimited(&mut self) -> Result<Self, DecodeError> {
        let length = self.varint()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<Self, DecodeError> {
        let Some((bytes, rest)) = self.rest.split_at_checked(length) else {
            return Err(malformed("unexpected end", self.offset));
        };
        let taken = Self { rest: bytes, offset: self.offset };
        self.rest = rest;
        self.offset += length;
        Ok(taken)
    }

    /// Skips a group up to the end that belongs to it; nobody has written one in years.
    fn skip_group(&mut self, number: u32) -> Result<(), DecodeError> {
        let mut open = vec![u64::from(number)];
        while let Some(group) = open.last() {
            let offset = self.offset;
            let tag = self.varint()?;
            match tag & 7 {
                0 => drop(self.varint()?),
                1 => drop(self.take(8)?),
                2 => drop(self.delimited()?),
                3 if open.len() < MAX_GROUP_DEPTH as usize => open.push(tag >> 3),
                4 if tag >> 3 == *group => drop(open.pop()),
                5 => drop(self.take(4)?),
                _ => return Err(malformed("illegal group", offset)),
            }
        }
        Ok(())
    }
}

impl<'a> Field<'a> {
    /// The value of a field that has a length.
    #[inline]
    pub(crate) fn message(self) -> Result<Message<'a>, DecodeError> {
        match self.value {
            Value::Bytes(message) => Ok(message),
            Value::Varint(_) | Value::Fixed64(_) | Value::Fixed32 | Value::Group => Err(self.wrong_type()),
        }
    }

    /// The value of an integer field.
    #[inline]
    pub(crate) fn varint(self) -> Result<u64, DecodeError> {
        match self.value {
            Value::Varint(value) => Ok(value),
            Value::Bytes(_) | Value::Fixed64(_) | Value::Fixed32 | Value::Group => Err(self.wrong_type()),
        }
    }

    /// The value of an `int64` field.
    #[inline]
    pub(crate) fn int64(self) -> Result<i64, DecodeError> {
        Ok(self.varint()?.cast_signed())
    }

    /// The value of an `int32` or `uint32` field; the upper half is dropped, as protobuf says.
    #[inline]
    pub(crate) fn uint32(self) -> Result<u32, DecodeError> {
        Ok(low32(self.varint()?))
    }

    /// The value of a `double` field.
    #[inline]
    pub(crate) fn double(self) -> Result<f64, DecodeError> {
        match self.value {
            Value::Fixed64(bits) => Ok(f64::from_bits(bits)),
            Value::Bytes(_) | Value::Varint(_) | Value::Fixed32 | Value::Group => Err(self.wrong_type()),
        }
    }

    /// Gives `each` the numbers of a repeated integer field, packed or not.
    #[inline]
    pub(crate) fn each_varint(self, mut each: impl FnMut(u64)) -> Result<(), DecodeError> {
        match self.value {
            Value::Varint(value) => each(value),
            Value::Bytes(mut packed) => {
                while !packed.rest.is_empty() {
                    each(packed.varint()?);
                }
            }
            Value::Fixed64(_) | Value::Fixed32 | Value::Group => return Err(self.wrong_type()),
        }
        Ok(())
    }

    fn wrong_type(self) -> DecodeError {
        malformed("wrong wire type", self.offset)
    }
}

/// The lower half, which is what a 32-bit field keeps of a longer number.
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
pub(crate) fn low32(value: u64) -> u32 {
    value as u32
}

fn malformed(what: &'static str, offset: usize) -> DecodeError {
    DecodeError::Malformed { what, offset }
}
