//! ClickHouse's RowBinary: rows one after another, values without names or types.
//!
//! Integers and floats are little-endian, lengths are LEB128, strings and arrays are preceded by their
//! length, a map is an array of pairs and a tuple its members one after another.

/// The row goes on beyond the bytes that are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incomplete;

/// Reads values from the front of some bytes.
#[derive(Debug)]
pub struct Reader<'a> {
    all: &'a [u8],
    at: usize,
}

macro_rules! numbers {
    ($($name:ident: $type:ty),* $(,)?) => {
        impl Reader<'_> {
            $(
                #[doc = concat!("A ", stringify!($type), ".")]
                #[inline]
                pub fn $name(&mut self) -> Result<$type, Incomplete> {
                    const SIZE: usize = size_of::<$type>();
                    let bytes = self.take(SIZE)?;
                    Ok(<$type>::from_le_bytes(bytes.try_into().map_err(|_| Incomplete)?))
                }
            )*
        }

        /// Writes values.
        pub trait Write {
            /// Bytes as they are.
            fn raw(&mut self, bytes: &[u8]);
            $(
                #[doc = concat!("A ", stringify!($type), ".")]
                #[inline]
                fn $name(&mut self, value: $type) {
                    self.raw(&value.to_le_bytes());
                }
            )*
            /// A length.
            #[inline]
            fn length(&mut self, length: usize) {
                let mut rest = length;
                while rest >= 0x80 {
                    self.raw(&[rest.to_le_bytes()[0] | 0x80]);
                    rest >>= 7;
                }
                self.raw(&[rest.to_le_bytes()[0]]);
            }
            /// A string.
            #[inline]
            fn string(&mut self, text: &str) {
                self.length(text.len());
                self.raw(text.as_bytes());
            }
        }
    };
}
numbers!(u8: u8, i8: i8, u16: u16, u32: u32, i32: i32, u64: u64, i64: i64, f64: f64);

impl Write for Vec<u8> {
    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl<'a> Reader<'a> {
    /// Reads from the front of `all`.
    pub fn new(all: &'a [u8]) -> Self {
        Self { all, at: 0 }
    }

    /// Bytes read so far.
    pub fn taken(&self) -> usize {
        self.at
    }

    /// `n` bytes as they are.
    #[inline]
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Incomplete> {
        let bytes = self.all[self.at..].get(..n).ok_or(Incomplete)?;
        self.at += n;
        Ok(bytes)
    }

    /// A length.
    #[inline]
    pub fn length(&mut self) -> Result<usize, Incomplete> {
        let mut length = 0_usize;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = self.u8()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Ok(length)
    }

    /// A string; what is not UTF-8 in it is replaced.
    pub fn string(&mut self) -> Result<String, Incomplete> {
        let length = self.length()?;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    /// An array, each member read by `member`.
    pub fn array<T>(
        &mut self,
        mut member: impl FnMut(&mut Self) -> Result<T, Incomplete>,
    ) -> Result<Vec<T>, Incomplete> {
        let length = self.length()?;
        // No member takes less than a byte, so a length beyond what is here is not believed yet.
        if length > self.all.len() - self.at {
            return Err(Incomplete);
        }
        (0..length).map(|_| member(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        bytes.u64(u64::MAX);
        bytes.i64(-5);
        bytes.f64(0.1);
        bytes.string("ü");
        bytes.length(3);
        (1..=3).for_each(|n| bytes.u16(n));
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.u64(), reader.i64(), reader.f64()), (Ok(u64::MAX), Ok(-5), Ok(0.1)));
        assert_eq!(reader.string(), Ok("ü".to_owned()));
        assert_eq!(reader.array(Reader::u16), Ok(vec![1, 2, 3]));
        assert_eq!(reader.taken(), bytes.len());
    }

    #[test]
    fn lengths_of_every_size_come_back() {
        for length in [0, 1, 127, 128, 300, 16_383, 16_384, 1 << 40] {
            let mut bytes = Vec::new();
            bytes.length(length);
            assert_eq!(Reader::new(&bytes).length(), Ok(length));
        }
    }

    #[test]
    fn a_row_that_is_not_all_there_says_so() {
        let mut bytes = Vec::new();
        bytes.string("some text");
        bytes.u64(7);
        for end in 0..bytes.len() {
            let mut reader = Reader::new(&bytes[..end]);
            assert_eq!(reader.string().and_then(|_| reader.u64()), Err(Incomplete));
        }
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).array(Reader::u64), Err(Incomplete));
    }
}
