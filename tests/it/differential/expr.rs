//! A generated expression: text for either side, and what may be asked of its values.

/// PromQL's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Scalar,
    Vector,
    Matrix,
    String,
}

/// How much the two sides' values may be expected to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Precision {
    /// To a tolerance: 3.x adds with compensation, 2.42 does not, and their libraries of functions differ.
    Close,
    /// To the bit, but a sum of such depends on its order.
    Equal,
    /// To the bit, and so do sums.
    Exact,
}

#[derive(Clone, Debug)]
enum Piece {
    Text { ours: String, theirs: String },
    Part(Box<Expr>),
}

#[derive(Clone, Debug)]
pub(super) struct Expr {
    pub of: Type,
    pub precision: Precision,
    /// Whether a value may be NaN or infinite.
    pub special: bool,
    /// Whether no two series have the same value at a time.
    pub distinct: bool,
    /// About the largest amount that goes into a value.
    pub scale: f64,
    /// The milliseconds of a second it is evaluated at.
    pub phase: i64,
    /// Whether it filters by comparing vectors.
    pub filters: bool,
    /// Whether it negates a vector.
    pub negates: bool,
    /// Whether itself, a selector or subquery, has `@`.
    pub pinned: bool,
    /// Whether itself, a selector or subquery, has `offset`.
    pub shifted: bool,
    pieces: Vec<Piece>,
}

impl Expr {
    pub(super) fn new(of: Type, phase: i64) -> Self {
        Self {
            of,
            precision: Precision::Exact,
            special: false,
            distinct: false,
            scale: 1.0,
            phase,
            filters: false,
            negates: false,
            pinned: false,
            shifted: false,
            pieces: Vec::new(),
        }
    }

    pub(super) fn text(self, text: impl Into<String>) -> Self {
        let text = text.into();
        self.either(text.clone(), text)
    }

    /// What has to be said differently to mean the same.
    pub(super) fn either(mut self, ours: impl Into<String>, theirs: impl Into<String>) -> Self {
        self.pieces.push(Piece::Text { ours: ours.into(), theirs: theirs.into() });
        self
    }

    /// Takes a part in, and what is true of its values, as far as nobody says otherwise.
    pub(super) fn part(mut self, part: Self) -> Self {
        self.precision = self.precision.min(part.precision);
        self.special |= part.special;
        self.filters |= part.filters;
        self.negates |= part.negates;
        self.scale = self.scale.max(part.scale);
        self.pieces.push(Piece::Part(Box::new(part)));
        self
    }

    pub(super) fn precise(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    pub(super) fn at_most(mut self, precision: Precision) -> Self {
        self.precision = self.precision.min(precision);
        self
    }

    pub(super) fn modified(mut self, modifiers: &str) -> Self {
        self.pinned = modifiers.contains('@');
        self.shifted = modifiers.contains("offset");
        self.text(modifiers)
    }

    pub(super) fn of_scale(mut self, scale: f64) -> Self {
        self.scale = self.scale.max(scale);
        self
    }

    pub(super) fn special(mut self) -> Self {
        self.special = true;
        self
    }

    pub(super) fn ours(&self) -> String {
        self.print(true)
    }

    pub(super) fn theirs(&self) -> String {
        self.print(false)
    }

    fn print(&self, for_us: bool) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text { ours, theirs } => out.push_str(if for_us { ours } else { theirs }),
                Piece::Part(part) => out.push_str(&part.print(for_us)),
            }
        }
        out
    }

    /// The same with one part in the place of what it is a part of, the smallest first.
    pub(super) fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        self.descendants(&mut |part| {
            if part.of == self.of && part.phase == self.phase {
                all.push(part.clone());
            }
        });
        for (n, piece) in self.pieces.iter().enumerate() {
            let Piece::Part(part) = piece else { continue };
            for smaller in part.smaller() {
                let mut whole = self.clone();
                whole.pieces[n] = Piece::Part(Box::new(smaller));
                all.push(whole);
            }
        }
        all.sort_by_key(|e| e.ours().len());
        all
    }

    fn descendants(&self, visit: &mut impl FnMut(&Self)) {
        for piece in &self.pieces {
            if let Piece::Part(part) = piece {
                visit(part);
                part.descendants(visit);
            }
        }
    }
}
