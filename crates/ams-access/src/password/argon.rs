//! Argon2id (RFC 9106) in PHC string form: `$argon2id$v=19$m=19456,t=2,p=1$salt$hash`.

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD as BASE64;

use crate::secret::same;

/// Length of what is stored, in bytes.
const HASH_LEN: usize = 32;
/// Longest string that is read, in bytes.
const TEXT_LEN_MAX: usize = 512;
/// Most memory a stored hash may ask for, in KiB: a document must not be able to take the node's.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
/// Most passes and lanes.
const TIMES_MAX: u32 = 16;

/// What a hash costs who computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgonCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for ArgonCost {
    /// What OWASP recommends: 19 MiB, two passes.
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, passes: 2, lanes: 1 }
    }
}

impl ArgonCost {
    /// The nearest cost Argon2 can have and a node can bear.
    fn bounded(self) -> Self {
        let lanes = self.lanes.clamp(1, TIMES_MAX);
        Self {
            memory_kib: self.memory_kib.clamp(8 * lanes, MEMORY_KIB_MAX),
            passes: self.passes.clamp(1, TIMES_MAX),
            lanes,
        }
    }
}

/// A stored hash.
pub(super) struct Hash {
    pub(super) cost: ArgonCost,
    salt: Vec<u8>,
    sum: Vec<u8>,
}

impl Hash {
    /// `None` for what is no Argon2id hash, and for one that asks for more than a node can bear.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > TEXT_LEN_MAX {
            return None;
        }
        let mut fields = text.strip_prefix("$argon2id$v=19$")?.split('$');
        let mut costs = fields.next()?.split(',');
        let mut cost = |name: &str| costs.next()?.strip_prefix(name)?.parse::<u32>().ok();
        let cost = ArgonCost { memory_kib: cost("m=")?, passes: cost("t=")?, lanes: cost("p=")? };
        let salt = BASE64.decode(fields.next()?).ok().filter(|salt| (8..=64).contains(&salt.len()))?;
        let sum = BASE64.decode(fields.next()?).ok().filter(|sum| sum.len() == HASH_LEN)?;
        let whole = costs.next().is_none() && fields.next().is_none();
        (whole && cost == cost.bounded()).then_some(Self { cost, salt, sum })
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        compute(password, &self.salt, self.cost).is_some_and(|sum| same(&sum, &self.sum))
    }
}

/// The string to store. A cost nobody can bear is made bearable.
pub(super) fn hash(password: &[u8], salt: &[u8; 16], cost: ArgonCost) -> String {
    let cost = cost.bounded();
    let ArgonCost { memory_kib, passes, lanes } = cost;
    // With a cost in bounds nothing can fail; an empty sum would match nothing.
    let sum = compute(password, salt, cost).map(|sum| BASE64.encode(sum)).unwrap_or_default();
    format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${}${sum}", BASE64.encode(salt))
}

fn compute(password: &[u8], salt: &[u8], cost: ArgonCost) -> Option<[u8; HASH_LEN]> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(HASH_LEN)).ok()?;
    let mut sum = [0; HASH_LEN];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(password, salt, &mut sum).ok()?;
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_hash_passes() {
        // From the reference implementation's tests: m=65536, t=2, p=1.
        let known = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let hash = Hash::parse(known).unwrap();
        assert!(hash.matches(b"password"));
        assert!(!hash.matches(b"Password"));
    }

    #[test]
    fn hostile_strings_are_no_hashes() {
        let good = hash(b"x", &[1; 16], ArgonCost { memory_kib: 8, passes: 1, lanes: 1 });
        assert!(Hash::parse(&good).unwrap().matches(b"x"));
        for (name, text) in [
            ("empty", String::new()),
            ("another kind", good.replace("argon2id", "argon2i")),
            ("another version", good.replace("v=19", "v=16")),
            ("all the memory", good.replace("m=8", "m=4294967295")),
            ("too little memory", good.replace("m=8", "m=7")),
            ("for ever", good.replace("t=1", "t=4294967295")),
            ("no passes", good.replace("t=1", "t=0")),
            ("lanes", good.replace("p=1", "p=0")),
            ("more costs", good.replace("p=1", "p=1,x=1")),
            ("more fields", format!("{good}$x")),
            ("no hash", "$argon2id$v=19$m=8,t=1,p=1$AQEBAQEBAQEBAQEBAQEBAQ$".into()),
            ("long", "$argon2id$v=19$".repeat(100)),
        ] {
            assert!(Hash::parse(&text).is_none(), "{name}");
        }
    }

    #[test]
    fn costs_stay_bearable() {
        let hostile = ArgonCost { memory_kib: u32::MAX, passes: u32::MAX, lanes: u32::MAX };
        assert_eq!(hostile.bounded(), ArgonCost { memory_kib: MEMORY_KIB_MAX, passes: TIMES_MAX, lanes: TIMES_MAX });
        assert!(compute(b"", &[0; 16], ArgonCost { memory_kib: 0, passes: 0, lanes: 0 }.bounded()).is_some());
    }
}
