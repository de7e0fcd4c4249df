//! How like a name is to what is looked for, as Prometheus says it.
//!
//! * **Subsequence**: all characters of the text are in the name in their order. Each run of them counts the square of
//!   its length; what lies before and between runs takes off its share of the name's length, what follows the last one
//!   half of that. Of the places where the first character is found the best counts, and the sum is held against the
//!   square of the text's length. A name that begins with the text has 1.
//! * **Jaro-Winkler**: a name that has the text in it has 0.9, and 1 where it begins with it; another has their
//!   similarity, if that is enough. It is asked of the shorter one first, half of a pair that changed places counts,
//!   and a common beginning always does; crates of that name differ in one of these.
//!
//! Of several texts the best counts.

/// How a text and a name are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// All characters in their order.
    Subsequence,
    /// A part of it, or alike.
    JaroWinkler,
}

/// What names are to be like.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    texts: Vec<String>,
    algorithm: Algorithm,
    /// From 0 to 1.
    threshold: f64,
    case_sensitive: bool,
}

impl Terms {
    /// Names like one of the texts, by so many percent; without any text all names are. Empty ones do not count.
    pub fn new(texts: Vec<String>, algorithm: Algorithm, percent: u8, case_sensitive: bool) -> Self {
        let texts = texts.into_iter().filter(|text| !text.is_empty());
        let texts = texts.map(|text| if case_sensitive { text } else { lower(&text) }).collect();
        Self { texts, algorithm, threshold: f64::from(percent) / 100.0, case_sensitive }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// How like a name is to one of the texts, up to 1; none if it is not.
    pub fn score(&self, name: &str) -> Option<f64> {
        if self.texts.is_empty() {
            return Some(1.0);
        }
        let lowered;
        let name = if self.case_sensitive {
            name
        } else {
            lowered = lower(name);
            &lowered
        };
        self.texts.iter().filter_map(|text| self.score_of(text, name)).reduce(f64::max)
    }

    fn score_of(&self, text: &str, name: &str) -> Option<f64> {
        if name.starts_with(text) {
            return Some(1.0);
        }
        match self.algorithm {
            Algorithm::Subsequence => {
                let score = compared(text, name, subsequence, subsequence);
                (score > 0.0 && score >= self.threshold).then_some(score)
            }
            Algorithm::JaroWinkler if name.contains(text) => Some(0.9),
            Algorithm::JaroWinkler if self.threshold > 0.0 => {
                let score = compared(text, name, jaro_winkler, jaro_winkler);
                (score >= self.threshold).then_some(score)
            }
            Algorithm::JaroWinkler => None,
        }
    }
}

/// Character by character, as Go does.
fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// Compares the bytes of two texts where those are their characters.
fn compared(
    text: &str,
    name: &str,
    bytes: fn(&[u8], &[u8]) -> f64,
    characters: fn(&[char], &[char]) -> f64,
) -> f64 {
    if text.is_ascii() && name.is_ascii() {
        return bytes(text.as_bytes(), name.as_bytes());
    }
    let of = |text: &str| -> Vec<char> { text.chars().collect() };
    characters(&of(text), &of(name))
}

#[expect(clippy::cast_precision_loss, reason = "names are short")]
fn number(length: usize) -> f64 {
    length as f64
}

fn subsequence<T: Copy + PartialEq>(text: &[T], name: &[T]) -> f64 {
    let (Some(first), Some(last_start)) = (text.first(), name.len().checked_sub(text.len())) else {
        return 0.0;
    };
    let starts = (0..=last_start).filter(|start| name[*start] == *first);
    // What cannot be found from one place on, cannot be from a later one.
    let scores = starts.map_while(|start| runs(text, name, start));
    let best = scores.fold(0.0, f64::max);
    best / number(text.len() * text.len())
}

/// What the runs of `text` in `name` count if the first begins at `start`; none if not all of it is there.
fn runs<T: Copy + PartialEq>(text: &[T], name: &[T], start: usize) -> Option<f64> {
    let share = 1.0 / number(name.len());
    let (mut score, mut found, mut at, mut end) = (0.0, 0, start, 0);
    while found < text.len() {
        at += name[at..].iter().position(|c| *c == text[found])?;
        let run = name[at..].iter().zip(&text[found..]).take_while(|(a, b)| a == b).count();
        if at > end {
            score -= number(at - end) * share;
        }
        score += number(run * run);
        found += run;
        at += run;
        end = at;
    }
    if name.len() > end {
        score -= number(name.len() - end) * share * 0.5;
    }
    Some(score)
}

fn jaro_winkler<T: Copy + PartialEq>(text: &[T], name: &[T]) -> f64 {
    /// A common beginning counts up to so many characters.
    const BEGINNING: usize = 4;
    /// So much of what is missing to 1 for each of them.
    const BOOST: f64 = 0.1;
    if text == name {
        return 1.0;
    }
    let (short, long) = if text.len() <= name.len() { (text, name) } else { (name, text) };
    if short.is_empty() {
        return 0.0;
    }
    // How far from its own place a character may be found.
    let reach = (long.len() / 2).saturating_sub(1);
    let mut partners = vec![false; long.len()];
    let mut matched = Vec::with_capacity(short.len());
    for (i, c) in short.iter().enumerate() {
        let near = i.saturating_sub(reach)..(i + reach + 1).min(long.len());
        if let Some(partner) = near.into_iter().find(|j| !partners[*j] && long[*j] == *c) {
            partners[partner] = true;
            matched.push(*c);
        }
    }
    if matched.is_empty() {
        return 0.0;
    }
    let in_order = long.iter().zip(&partners).filter(|(_, matched)| **matched).map(|(c, _)| c);
    let moved = number(in_order.zip(&matched).filter(|(a, b)| a != b).count());
    let matches = number(matched.len());
    let (of_short, of_long) = (1.0 / number(short.len()), 1.0 / number(long.len()));
    let jaro = (matches * of_short + matches * of_long + (matches - moved * 0.5) / matches) / 3.0;
    let beginning = short.iter().zip(long).take(BEGINNING).take_while(|(a, b)| a == b).count();
    jaro + number(beginning) * BOOST * (1.0 - jaro)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(text: &str, name: &str, algorithm: Algorithm, percent: u8) -> Option<f64> {
        Terms::new(vec![text.to_owned()], algorithm, percent, true).score(name)
    }

    #[test]
    fn runs_count_their_squares_and_gaps_take_off() {
        let of = |text, name| score(text, name, Algorithm::Subsequence, 0);
        assert_eq!(of("abc", "abc"), Some(1.0));
        assert_eq!(of("abc", "abcd"), Some(1.0), "a beginning");
        // One run of two, one before it, one after it.
        assert_eq!(of("ab", "xabx"), Some((4.0 - 0.25 - 0.125) / 4.0));
        // Two runs of one, a gap of one between them.
        assert_eq!(of("ab", "xaxb"), Some((1.0 - 0.25 + 1.0 - 0.25) / 4.0));
        // The first place is not the best.
        assert_eq!(of("ab", "xa_ab"), Some((4.0 - 3.0 * 0.2) / 4.0));
        assert_eq!(of("ba", "ab"), None);
        assert_eq!(of("abc", "ab"), None);
        assert_eq!(of("é", "xé"), Some(1.0 - 0.5));
        assert_eq!(of("é", "e"), None);
        // What takes off more than there is, is none.
        assert_eq!(of("a", &format!("{}a", "x".repeat(99))), Some(1.0 - 99.0 * (1.0 / 100.0)));
    }

    #[test]
    fn what_has_a_text_in_it_is_like_it_and_what_is_similar_enough() {
        let of = |text, name, percent| score(text, name, Algorithm::JaroWinkler, percent);
        assert_eq!(of("go", "go_gc", 0), Some(1.0));
        assert_eq!(of("gc", "go_gc", 100), Some(0.9));
        assert_eq!(of("martha", "marhta", 0), None, "without a threshold nothing is similar");
        let near = |found: Option<f64>, expected: f64| {
            assert!(found.is_some_and(|found| (found - expected).abs() < 1e-4), "{found:?} {expected}");
        };
        // The examples that everybody has.
        near(of("martha", "marhta", 50), 0.9611);
        near(of("dwayne", "duane", 50), 0.84);
        near(of("dixon", "dicksonx", 50), 0.8133);
        assert_eq!(of("dixon", "dicksonx", 82), None);
        assert_eq!(of("abc", "xyz", 1), None);
        near(of("é", "éa", 1), 1.0);
    }

    #[test]
    fn case_counts_unless_it_does_not_and_the_best_of_several_texts_counts() {
        let terms = |texts: &[&str], case| {
            let texts = texts.iter().map(|text| (*text).to_owned()).collect();
            Terms::new(texts, Algorithm::Subsequence, 50, case)
        };
        assert_eq!(terms(&["GO"], true).score("go_gc"), None);
        assert_eq!(terms(&["GO"], false).score("Go_gc"), Some(1.0));
        assert_eq!(terms(&["nothing", "gc"], true).score("gc"), Some(1.0));
        assert_eq!(terms(&["g_gc", "go"], true).score("go_gc"), Some(1.0));
        assert_eq!(terms(&["", ""], true).score("anything"), Some(1.0));
    }
}
