//! Secrets, public keys, fingerprints and scheme names from any text.
#![no_main]

use hookturn_verify::{Content, Fingerprint, PublicKey, Scheme, Secret, Signer, sign};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = text.parse::<Fingerprint>();
    let _ = text.parse::<Scheme>();
    if let Ok(key) = text.parse::<PublicKey>() {
        assert_eq!(key.to_string(), text);
    }
    let Ok(secret) = Secret::parse(text) else {
        return;
    };
    assert_eq!(secret.expose(), text);
    for scheme in Scheme::ALL {
        let usable = secret.usable_for(scheme);
        let signer = Signer::new(scheme, &secret);
        assert_eq!(signer.is_ok(), usable.is_ok());
        if let Ok(signer) = signer {
            let content = Content {
                id: "msg_1",
                timestamp: 1,
                method: "POST",
                url: "https://r.example",
                body: text.as_bytes(),
            };
            let header = sign(scheme, &[&signer], &content).expect("the content is well formed");
            assert!(header.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
});
