//! Patterns, matched in linear time and in steps that are counted: a large pattern and a long text can be interrupted.

use std::fmt;

use regex_automata::{
    Input,
    hybrid::dfa::{Cache, DFA},
    nfa::thompson::{NFA, pikevm::PikeVM},
    util::{pool::Pool, syntax},
};

use super::budget::{Budget, Exhausted};

/// Most bytes that a pattern may take when it is compiled.
const MAX_PATTERN_BYTES: usize = 10 * 1024 * 1024;
/// Bytes of text that cost one step with a small pattern.
const BYTES_PER_STEP: usize = 64;
/// States of a pattern that are looked at for one step, where that has to be done.
const STATES_PER_STEP: usize = 256;

/// A compiled pattern (ECMA-262, without look-around and back-references).
pub struct Pattern {
    text: String,
    states: usize,
    dfa: DFA,
    caches: Pool<Cache, Box<dyn Fn() -> Cache + Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>>,
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

impl Pattern {
    /// Compiles a pattern; `None` where it can't be matched in linear time, is too large, or is no regular expression.
    pub fn new(text: &str) -> Option<Self> {
        let translated = jsonschema_regex::to_rust_regex(text).ok()?;
        let nfa = NFA::compiler()
            .syntax(syntax::Config::new().utf8(true))
            .configure(NFA::config().nfa_size_limit(Some(MAX_PATTERN_BYTES)))
            .build(&translated)
            .ok()?;
        let states = nfa.states().len();
        let config = DFA::config().unicode_word_boundary(true).skip_cache_capacity_check(true);
        let dfa = DFA::builder().configure(config).build_from_nfa(nfa).ok()?;
        let fresh = dfa.clone();
        Some(Self { text: text.to_owned(), states, dfa, caches: Pool::new(Box::new(move || fresh.create_cache())) })
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How many states it has: each byte of a text may cost so much.
    pub fn states(&self) -> usize {
        self.states
    }

    /// Whether it is found anywhere in a text.
    pub fn is_match(&self, text: &str, budget: &mut Budget) -> Result<bool, Exhausted> {
        let mut cache = self.caches.get();
        let Ok(mut state) = self.dfa.start_state_forward(&mut cache, &Input::new(text)) else {
            return self.is_match_slowly(text, budget);
        };
        let mut memory = cache.memory_usage();
        for bytes in text.as_bytes().chunks(BYTES_PER_STEP) {
            budget.spend(1)?;
            for byte in bytes {
                let Ok(next) = self.dfa.next_state(&mut cache, state, *byte) else {
                    return self.is_match_slowly(text, budget);
                };
                state = next;
                // A byte that was met in this state before is a look-up; another one made a new state, out of all others.
                if cache.memory_usage() != memory {
                    memory = cache.memory_usage();
                    budget.spend(self.cost())?;
                }
                if state.is_tagged() {
                    if state.is_match() {
                        return Ok(true);
                    }
                    if state.is_dead() {
                        return Ok(false);
                    }
                    if state.is_quit() {
                        return self.is_match_slowly(text, budget);
                    }
                }
            }
        }
        match self.dfa.next_eoi_state(&mut cache, state) {
            Ok(state) => Ok(state.is_match()),
            Err(_) => self.is_match_slowly(text, budget),
        }
    }

    /// Steps for a look at all states.
    fn cost(&self) -> u64 {
        (self.states / STATES_PER_STEP) as u64 + 1
    }

    /// For what the fast way can't tell: a word boundary beside a letter outside of ASCII.
    #[cold]
    fn is_match_slowly(&self, text: &str, budget: &mut Budget) -> Result<bool, Exhausted> {
        budget.spend((text.len() as u64 + 1) * self.cost())?;
        let Ok(machine) = PikeVM::new_from_nfa(self.dfa.get_nfa().clone()) else { return Ok(false) };
        Ok(machine.is_match(&mut machine.create_cache(), text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().is_match(text, &mut Budget::unlimited()).unwrap()
    }

    #[test]
    fn found() {
        for (pattern, text, expected) in [
            ("^a+$", "aaa", true),
            ("^a+$", "aab", false),
            ("b", "aab", true),
            ("", "", true),
            ("^$", "", true),
            ("^$", "a", false),
            ("^\\d{3}$", "123", true),
            ("^\\d{3}$", "१२३", false),
            ("^\\p{L}+$", "Grüße", true),
            ("^.$", "😀", true),
            ("\\bx", "é x", true),
            ("^[^@]+@[^@]+$", "a@b", true),
            ("a\\/b", "a/b", true),
            ("^(?:a|b)\\$$", "b$", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        for pattern in ["(?=a)", "(a)\\1", "(?<!a)b", "(", "[b-a]", "^((a{1,100}){1,100}){1,100}$"] {
            assert!(Pattern::new(pattern).is_none(), "{pattern}");
        }
    }

    #[test]
    fn a_large_pattern_costs_more_steps_and_is_interrupted() {
        let pattern = Pattern::new("^(a{1,100}){1,100}$").unwrap();
        assert!(pattern.states() > 10_000, "{}", pattern.states());
        let text = "a".repeat(4_000) + "!";
        assert_eq!(pattern.is_match(&text, &mut Budget::steps(100)), Err(Exhausted));
        for (text, expected) in [("b", false), ("aaa", true), ("aaab", false), ("", false)] {
            assert_eq!(pattern.is_match(text, &mut Budget::unlimited()), Ok(expected), "{text}");
            assert_eq!(pattern.is_match_slowly(text, &mut Budget::unlimited()), Ok(expected), "{text}");
        }
        let small = Pattern::new("^a*$").unwrap();
        assert_eq!(small.is_match(&text, &mut Budget::steps(100)), Ok(false));
    }
}
