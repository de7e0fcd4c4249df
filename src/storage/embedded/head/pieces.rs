//! Memory for what grows a few bytes at a time, a million times over.
//!
//! A [`Chain`] of bytes lies in pieces of growing size, each with the place of the next in front. Growing never moves
//! what is there, so no room is left over behind it but in the last piece, and what is given back is of a few sizes
//! and fits whoever asks next. A general allocator keeps, for each of many lengths, pages that are no longer full.
//!
//! ```text
//! units of 32 bytes, 64 to a slab
//! ┌───────────┬───────────┬───────────────────────┬───
//! │ next data │ next data │ next data             │ …     4 pieces of 1 unit, then 2 of 2, then of 4 each
//! └───────────┴───────────┴───────────────────────┴───
//! ```

/// Bytes of a unit.
const UNIT: usize = 32;
/// Units of a slab.
const SLAB: usize = 64;
/// Bytes in front of each piece: where the next one is.
const LINK: usize = 4;
/// Units of the pieces of each class.
const CLASSES: [usize; 3] = [1, 2, 4];
/// Of each piece of a chain, the class; those that come later are of the last one's.
const OF_PIECE: [u8; 7] = [0, 0, 0, 0, 1, 1, 2];

type Slab = [[u8; UNIT]; SLAB];

/// Pieces that chains are made of.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    #[expect(clippy::vec_box, reason = "a slab stays where it is when there are more")]
    slabs: Vec<Box<Slab>>,
    /// Units handed out so far, in order.
    used: u32,
    /// The first of the free pieces of each class; each names the next.
    free: [At; CLASSES.len()],
}

/// Where a piece is: its first unit's number and one more; 0 is nowhere.
type At = u32;

/// Bytes that grow at their end, in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chain {
    first: At,
    last: At,
    /// Bytes in the last piece.
    filled: u8,
    /// Which piece of the chain the last one is.
    piece: u8,
    /// How often something was added.
    pushes: u16,
}

fn class(piece: u8) -> usize {
    usize::from(OF_PIECE[usize::from(piece).min(OF_PIECE.len() - 1)])
}

const fn room(class: usize) -> usize {
    CLASSES[class] * UNIT - LINK
}

impl Pieces {
    fn piece(&self, at: At, class: usize) -> &[u8] {
        let unit = at as usize - 1;
        self.slabs[unit / SLAB][unit % SLAB..][..CLASSES[class]].as_flattened()
    }

    fn piece_mut(&mut self, at: At, class: usize) -> &mut [u8] {
        let unit = at as usize - 1;
        self.slabs[unit / SLAB][unit % SLAB..][..CLASSES[class]].as_flattened_mut()
    }

    fn next(&self, at: At, class: usize) -> At {
        let link = self.piece(at, class).first_chunk().copied();
        At::from_le_bytes(link.expect("a piece is longer than its link"))
    }

    fn link(&mut self, at: At, class: usize, next: At) {
        self.piece_mut(at, class)[..LINK].copy_from_slice(&next.to_le_bytes());
    }

    fn take(&mut self, class: usize) -> At {
        let free = self.free[class];
        let at = if free > 0 {
            self.free[class] = self.next(free, class);
            free
        } else {
            self.cut(CLASSES[class])
        };
        self.link(at, class, 0);
        at
    }

    fn give_back(&mut self, at: At, class: usize) {
        self.link(at, class, self.free[class]);
        self.free[class] = at;
    }

    /// A new piece of so many units that lie in one slab.
    fn cut(&mut self, units: usize) -> At {
        while SLAB - self.used as usize % SLAB < units {
            self.used += 1;
            self.give_back(self.used, 0);
        }
        if self.slabs.len() * SLAB <= self.used as usize {
            self.slabs.push(Box::new([[0; UNIT]; SLAB]));
        }
        let at = self.used + 1;
        let units = u32::try_from(units).expect("a piece has a few units");
        self.used = self.used.checked_add(units).expect("fewer units than bytes of memory");
        at
    }
}

impl Chain {
    /// How often something was added.
    pub(crate) const fn pushes(&self) -> u16 {
        self.pushes
    }

    /// Adds bytes, fewer than fit the smallest piece, at the end.
    pub(crate) fn push(&mut self, pieces: &mut Pieces, mut bytes: &[u8]) {
        if self.first == 0 {
            let at = pieces.take(0);
            *self = Self { first: at, last: at, ..Self::default() };
        }
        self.pushes = self.pushes.saturating_add(1);
        loop {
            let class = class(self.piece);
            let filled = usize::from(self.filled);
            let (now, rest) = bytes.split_at(bytes.len().min(room(class) - filled));
            let place = &mut pieces.piece_mut(self.last, class)[LINK + filled..];
            place[..now.len()].copy_from_slice(now);
            self.filled += u8::try_from(now.len()).expect("the rest of a piece is shorter than that");
            if rest.is_empty() {
                return;
            }
            bytes = rest;
            let piece = self.piece.saturating_add(1);
            let next = pieces.take(self::class(piece));
            pieces.link(self.last, class, next);
            *self = Self { last: next, filled: 0, piece, ..*self };
        }
    }

    /// The bytes in front, at most as many as the first piece has.
    pub(crate) fn front<'p>(&self, pieces: &'p Pieces) -> &'p [u8] {
        match self.first {
            0 => &[],
            first if first == self.last => &pieces.piece(first, 0)[LINK..LINK + usize::from(self.filled)],
            first => &pieces.piece(first, 0)[LINK..],
        }
    }

    /// Shows the bytes, piece by piece.
    pub(crate) fn each<'p>(&self, pieces: &'p Pieces, mut each: impl FnMut(&'p [u8])) {
        let (mut at, mut number) = (self.first, 0_u8);
        while at > 0 {
            let class = class(number);
            let piece = pieces.piece(at, class);
            let end = if at == self.last { LINK + usize::from(self.filled) } else { piece.len() };
            each(&piece[LINK..end]);
            at = pieces.next(at, class);
            number = number.saturating_add(1);
        }
    }

    /// Gives all pieces back.
    pub(crate) fn clear(&mut self, pieces: &mut Pieces) {
        let (mut at, mut number) = (self.first, 0_u8);
        while at > 0 {
            let class = class(number);
            let next = pieces.next(at, class);
            pieces.give_back(at, class);
            at = next;
            number = number.saturating_add(1);
        }
        *self = Self::default();
    }
}

/// Lists of numbers, each with its length in front, that go only all together.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    pages: Vec<Vec<u32>>,
}

/// Numbers on a page of lists; a list that is longer has a page of its own.
const PAGE: usize = 1 << 10;

/// Where a list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct List(u32);

impl List {
    /// Is not there yet.
    pub(crate) const NONE: Self = Self(u32::MAX);
}

impl Lists {
    /// Keeps a list.
    pub(crate) fn push(&mut self, list: &[u32]) -> List {
        let size = list.len() + 1;
        if self.pages.last().is_none_or(|page| page.len() + size > PAGE) {
            // The first page grows as it must, so that many small heads stay small.
            let capacity = if self.pages.is_empty() { size } else { size.max(PAGE) };
            self.pages.push(Vec::with_capacity(capacity));
        }
        let number = self.pages.len() - 1;
        let page = self.pages.last_mut().expect("a page was just made sure of");
        let at = List(u32::try_from(number * PAGE + page.len()).expect("fewer numbers than bytes of memory"));
        page.push(u32::try_from(list.len()).expect("a list is shorter than memory"));
        page.extend_from_slice(list);
        at
    }

    /// The list; nothing if it is not there yet.
    pub(crate) fn get(&self, list: List) -> &[u32] {
        if list == List::NONE {
            return &[];
        }
        let at = list.0 as usize;
        let (length, rest) = self.pages[at / PAGE][at % PAGE..].split_first().expect("a list has its length");
        &rest[..*length as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(chain: &Chain, pieces: &Pieces) -> Vec<u8> {
        let mut all = Vec::new();
        chain.each(pieces, |piece| all.extend_from_slice(piece));
        all
    }

    proptest! {
        #[test]
        fn chains_keep_apart_what_is_pushed_between_each_other(
            steps in prop::collection::vec((0..5_usize, prop::collection::vec(any::<u8>(), 0..21), 0..40_u8), 0..600)
        ) {
            let mut pieces = Pieces::default();
            let mut chains = [Chain::default(); 5];
            let mut model: [Vec<u8>; 5] = Default::default();
            for (which, bytes, clear) in steps {
                if clear == 0 {
                    chains[which].clear(&mut pieces);
                    model[which].clear();
                    prop_assert_eq!(chains[which].pushes(), 0);
                } else {
                    let before = chains[which].pushes();
                    chains[which].push(&mut pieces, &bytes);
                    model[which].extend_from_slice(&bytes);
                    prop_assert_eq!(chains[which].pushes(), before + 1);
                }
                let front = chains[which].front(&pieces);
                prop_assert_eq!(front, &model[which][..front.len()]);
                prop_assert!(front.len() == model[which].len().min(28));
            }
            for (chain, model) in chains.iter().zip(&model) {
                prop_assert_eq!(&all(chain, &pieces), model);
            }
        }

        #[test]
        fn lists_come_back(lists in prop::collection::vec(prop::collection::vec(any::<u32>(), 0..40), 0..200)) {
            let mut kept = Lists::default();
            let long: Vec<u32> = (0..3000).collect();
            let places: Vec<List> = lists.iter().chain([&long]).chain(&lists).map(|l| kept.push(l)).collect();
            for (list, at) in lists.iter().chain([&long]).chain(&lists).zip(places) {
                prop_assert_eq!(kept.get(at), &list[..]);
            }
            prop_assert_eq!(kept.get(List::NONE), &[] as &[u32]);
        }
    }

    #[test]
    fn what_is_given_back_is_used_again() {
        let mut pieces = Pieces::default();
        for round in 0..100_u8 {
            let mut chains = [Chain::default(); 10];
            for i in 0..300_u32 {
                chains.iter_mut().for_each(|chain| chain.push(&mut pieces, &i.to_le_bytes()));
            }
            assert!(pieces.used < 10 * (1200 / 124 + 2) * 4, "{round}: {}", pieces.used);
            chains.iter_mut().for_each(|chain| chain.clear(&mut pieces));
        }
    }

    #[test]
    fn what_has_grown_takes_little_more_than_its_bytes() {
        for length in [20_usize, 90, 300, 900] {
            let mut pieces = Pieces::default();
            for _ in 0..1000 {
                let mut chain = Chain::default();
                (0..length / 5).for_each(|_| chain.push(&mut pieces, &[7; 5]));
            }
            let taken = pieces.used as usize * UNIT / 1000;
            assert!(taken <= (length * 3 / 2).max(UNIT), "{length} bytes take {taken}");
        }
    }
}
