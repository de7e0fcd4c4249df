//! Selectors, their matchers, modifiers and ranges, and subqueries.

use super::{ASKED_MS, Grammar, Place, duration, escaped, quoted};
use crate::differential::{
    data::{END_MS, Family, Kind},
    expr::{
        Expr,
        Precision::{Equal, Exact},
        Type,
    },
};

impl Grammar<'_> {
    /// A plain selector: everything of a family, or what matchers leave of it.
    pub(super) fn selector(&mut self, place: Place, fits: impl Fn(&Family) -> bool) -> Expr {
        let family = self.family(fits);
        let matchers = self.matchers(family);
        let (modifiers, _) = self.modifiers(place);
        let mut expr = Expr::new(Type::Vector, place.phase)
            .either(matchers.0, matchers.1)
            .modified(&modifiers)
            .precise(if family.kind == Kind::Odd { Equal } else { Exact });
        expr.special = family.kind == Kind::Odd;
        expr.distinct = !matches!(family.kind, Kind::Odd | Kind::Flag | Kind::Buckets);
        expr.scale = family.scale;
        expr
    }

    /// `name{matchers}` for us and for them, for whom `.` does not match a line's end unless told to.
    pub(super) fn matchers(&mut self, family: &Family) -> (String, String) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..self.random.below(3) {
            let (label, values) = &family.labels[self.random.below(family.labels.len())];
            let value = values[self.random.below(values.len())];
            if self.random.one_in(2) {
                let op = if self.random.one_in(3) { "!=" } else { "=" };
                let value = if self.random.one_in(10) { "" } else { value };
                let text = format!("{label}{op}{}", quoted(value));
                ours.push(text.clone());
                theirs.push(text);
            } else {
                let op = if self.random.one_in(3) { "!~" } else { "=~" };
                let pattern = self.pattern(value, values);
                ours.push(format!("{label}{op}{}", quoted(&pattern)));
                theirs.push(format!("{label}{op}{}", quoted(&format!("(?s:{pattern})"))));
            }
        }
        let name = family.name;
        let print = |all: Vec<String>, form: usize| match form {
            0 => format!("{{__name__=\"{name}\",{}}}", all.join(",")),
            _ if all.is_empty() => name.to_owned(),
            _ => format!("{name}{{{}}}", all.join(",")),
        };
        let form = self.random.below(8);
        (print(ours, form), print(theirs, form))
    }

    /// A regular expression that may match.
    pub(super) fn pattern(&mut self, value: &str, values: &[&str]) -> String {
        let literal = escaped(value);
        let first: String = value.chars().take(1).collect();
        let first = escaped(&first);
        match self.random.below(14) {
            0 => literal,
            1 => format!("{literal}|{}", escaped(values[self.random.below(values.len())])),
            2 => format!("{first}.*"),
            3 => format!(".*{first}.*"),
            4 => format!("{first}.+"),
            5 => format!("(?i:{})", literal.to_uppercase()),
            6 => ".+".to_owned(),
            7 => ".*".to_owned(),
            8 => format!("|{literal}"),
            9 => "[a-m].*|[0-4].*".to_owned(),
            10 => "\\w+\\W?\\w*".to_owned(),
            11 => "[^a\\d].*".to_owned(),
            12 => format!("({first})?.{{2,5}}"),
            _ => "(api|db|.*e).*".to_owned(),
        }
    }

    /// `offset` and `@`, and the phase of what they modify.
    pub(super) fn modifiers(&mut self, place: Place) -> (String, i64) {
        let mut parts = Vec::new();
        let mut phase = place.phase;
        if self.random.one_in(8) {
            let seconds = self.random.between(1, 600);
            let sign = if self.random.one_in(4) { "-" } else { "" };
            parts.push(format!("offset {sign}{seconds}s"));
        }
        if self.random.one_in(10) {
            let top = if self.aligned { 0 } else { 250 };
            phase = top;
            parts.push(match self.random.below(4) {
                0 => "@ start()".to_owned(),
                1 => "@ end()".to_owned(),
                _ => {
                    let second = END_MS / 1000 - self.random.between(0, ASKED_MS / 1000);
                    format!("@ {second}.{top:03}")
                }
            });
        }
        if self.random.one_in(2) {
            parts.reverse();
        }
        (parts.iter().map(|part| format!(" {part}")).collect(), phase)
    }

    /// A duration for windows. Theirs are closed on the left: where samples may lie on the edge, theirs are
    /// a millisecond shorter.
    pub(super) fn window(&mut self, longest: i64, uneven: bool) -> (String, String) {
        let seconds = if self.aligned {
            self.random.between(1, longest / 15) * 15
        } else {
            self.random.between(20, longest)
        };
        let millis = seconds * 1000 + if uneven { 250 } else { 0 };
        let theirs = if self.aligned { millis - 1 } else { millis };
        (duration(millis), duration(theirs))
    }

    /// A range vector.
    pub(super) fn matrix(&mut self, place: Place) -> Expr {
        if place.subqueries > 0 && place.depth > 0 && self.random.one_in(4) {
            return self.subquery(place, None);
        }
        let family = self.family(|_| true);
        self.range_of(place, family)
    }

    pub(super) fn range_of(&mut self, place: Place, family: &Family) -> Expr {
        let matchers = self.matchers(family);
        let window = self.window(1200, false);
        let (modifiers, _) = self.modifiers(place);
        let mut expr = Expr::new(Type::Matrix, place.phase)
            .either(format!("{}[{}]", matchers.0, window.0), format!("{}[{}]", matchers.1, window.1))
            .modified(&modifiers)
            .precise(if family.kind == Kind::Odd { Equal } else { Exact });
        expr.special = family.kind == Kind::Odd;
        expr.scale = family.scale;
        expr
    }

    /// Its points lie on whole seconds, so a window that would begin on one gets a quarter more.
    pub(super) fn subquery(&mut self, place: Place, of: Option<Expr>) -> Expr {
        let (modifiers, phase) = self.modifiers(place);
        let below = Place { subqueries: place.subqueries - 1, phase: 0, ..place.below() };
        let part = of.unwrap_or_else(|| self.vector(below));
        let window = self.window(900, !self.aligned && phase == 0);
        let step = match self.random.below(5) {
            0 => String::new(),
            _ => duration(self.random.between(5, 90) * 1000),
        };
        Expr::new(Type::Matrix, place.phase)
            .text("(")
            .part(part)
            .either(format!(")[{}:{step}]", window.0), format!(")[{}:{step}]", window.1))
            .modified(&modifiers)
    }
}
