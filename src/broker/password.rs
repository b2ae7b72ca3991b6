//! RabbitMQ's own form of a password: base64 of a salt of 4 bytes and the SHA-256 of salt and password.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use sha2::{Digest as _, Sha256};

pub(super) fn hash(password: &str) -> String {
    let salt: [u8; 4] = *uuid::Uuid::new_v4().as_bytes().first_chunk().unwrap_or(&[0; 4]);
    salted(salt, password)
}

fn salted(salt: [u8; 4], password: &str) -> String {
    let digest = Sha256::new().chain_update(salt).chain_update(password).finalize();
    BASE64.encode([&salt[..], &digest[..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RabbitMQ's documentation ("Computing a Password Hash").
    #[test]
    fn the_documentations_example() {
        assert_eq!(salted([0x90, 0x8D, 0xC6, 0x0A], "test12"), "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR");
    }
}
