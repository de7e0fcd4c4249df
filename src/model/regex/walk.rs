//! A pattern as an automaton that is walked byte by byte.
//!
//! An index keeps its values sorted, as a tree of bytes. Who walks pattern and tree together enters only the branches
//! that can lead to a match: `(api|web)-[0-9]+` over a million values looks at those that begin with one of the two.

use regex_automata::{
    Anchored, MatchKind,
    dfa::{Automaton, StartKind, dense},
    nfa::thompson::{self, WhichCaptures},
    util::{primitives::StateID, start},
};

use super::{parse, syntax::Node};

/// How many bytes the automaton may take.
const MAX_BYTES: usize = 1 << 20;
/// How many bytes making it may take besides.
const MAX_WORK_BYTES: usize = 4 << 20;

/// A pattern as an automaton that is walked byte by byte.
#[derive(Debug)]
pub struct Walker {
    dfa: dense::DFA<Vec<u32>>,
    start: StateID,
}

/// Where a walk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step(StateID);

impl Walker {
    /// Makes the automaton of a pattern; none if it would be large.
    pub(super) fn new(pattern: &str) -> Option<Self> {
        Self::of(&parse::parse(pattern).ok()?.node)
    }

    fn of(node: &Node) -> Option<Self> {
        let states =
            thompson::Config::new().which_captures(WhichCaptures::None).nfa_size_limit(Some(MAX_BYTES));
        let nfa = thompson::Compiler::new().configure(states).build_from_hir(&super::whole(node)).ok()?;
        let config = dense::Config::new()
            .start_kind(StartKind::Anchored)
            .match_kind(MatchKind::All)
            .accelerate(false)
            .dfa_size_limit(Some(MAX_BYTES))
            .determinize_size_limit(Some(MAX_WORK_BYTES));
        let dfa = dense::Builder::new().configure(config).build_from_nfa(&nfa).ok()?;
        let start = dfa.start_state(&start::Config::new().anchored(Anchored::Yes)).ok()?;
        Some(Self { dfa, start })
    }

    /// Before the first byte.
    pub fn start(&self) -> Step {
        Step(self.start)
    }

    /// Behind one more byte.
    pub fn next(&self, step: Step, byte: u8) -> Step {
        Step(self.dfa.next_state(step.0, byte))
    }

    /// Whether the bytes so far match, if they are all.
    pub fn is_match(&self, step: Step) -> bool {
        self.dfa.is_match_state(self.dfa.next_eoi_state(step.0))
    }

    /// Whether any bytes that begin with those so far match.
    pub fn can_match(&self, step: Step) -> bool {
        !self.dfa.is_dead_state(step.0)
    }
}
