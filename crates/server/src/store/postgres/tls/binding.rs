//! What a password proof is bound to: the certificate of the server that was talked to (RFC 5929, `tls-server-end-point`).
//!
//! A proof that is bound so is worth nothing to somebody in between, who shows another certificate; and the
//! server's own proof, which the client checks, can only be made by one that knows the password's verifier.
//!
//! The hash is that of the certificate's signature, or SHA-256 where that one is MD5 or SHA-1. For signatures
//! that name no hash of their own (Ed25519) or name it in parameters (RSA-PSS) nothing is bound, as in libpq.

use sha2::{Digest, Sha256, Sha384, Sha512};

/// A DER element.
struct Element<'a> {
    tag: u8,
    contents: &'a [u8],
    rest: &'a [u8],
}

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// Algorithms of signatures, as their identifiers are encoded.
const MD5_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04];
const SHA1_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05];
const SHA256_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
const SHA384_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c];
const SHA512_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d];
const SHA1_ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
const SHA256_ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const SHA384_ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
const SHA512_ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04];

/// What a proof to the server of this certificate (DER) is bound to; none if its signature names no hash.
pub(super) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    match algorithm(certificate)? {
        MD5_RSA | SHA1_RSA | SHA1_ECDSA | SHA256_RSA | SHA256_ECDSA => {
            Some(Sha256::digest(certificate).to_vec())
        }
        SHA384_RSA | SHA384_ECDSA => Some(Sha384::digest(certificate).to_vec()),
        SHA512_RSA | SHA512_ECDSA => Some(Sha512::digest(certificate).to_vec()),
        _ => None,
    }
}

/// The identifier of a certificate's signature algorithm: what is signed comes first, the algorithm second.
fn algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let whole = element(certificate).filter(|found| found.tag == SEQUENCE)?;
    let signed = element(whole.contents)?;
    let algorithm = element(signed.rest).filter(|found| found.tag == SEQUENCE)?;
    let identifier = element(algorithm.contents)?;
    (identifier.tag == OBJECT_IDENTIFIER).then_some(identifier.contents)
}

fn element(bytes: &[u8]) -> Option<Element<'_>> {
    let (&tag, bytes) = bytes.split_first()?;
    let (&first, bytes) = bytes.split_first()?;
    let (length, bytes) = if first < 0x80 {
        (usize::from(first), bytes)
    } else {
        let digits = usize::from(first & 0x7f);
        let (number, bytes) = bytes.split_at_checked(digits).filter(|_| digits <= 4)?;
        let length = number
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        (length, bytes)
    };
    let (contents, rest) = bytes.split_at_checked(length)?;
    Some(Element {
        tag,
        contents,
        rest,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
        SignatureAlgorithm,
    };

    use super::*;

    fn certificate(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["db.internal".to_owned()]).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_proof_is_bound_by_the_hash_of_the_certificates_signature() {
        let der = certificate(&PKCS_ECDSA_P256_SHA256);
        assert_eq!(server_end_point(&der), Some(Sha256::digest(&der).to_vec()));
        let der = certificate(&PKCS_ECDSA_P384_SHA384);
        assert_eq!(server_end_point(&der), Some(Sha384::digest(&der).to_vec()));
        assert_eq!(server_end_point(&certificate(&PKCS_ED25519)), None);
    }

    #[test]
    fn what_is_cut_off_or_no_certificate_binds_nothing() {
        let der = certificate(&PKCS_ECDSA_P256_SHA256);
        for end in 0..der.len() {
            assert_eq!(server_end_point(&der[..end]), None, "{end}");
        }
        assert_eq!(
            server_end_point(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
            None
        );
        assert_eq!(server_end_point(&[0x30, 0xff]), None);
    }
}
