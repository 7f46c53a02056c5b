//! Who this process is in DTLS: its certificate, and the handshake settings built on it.
//!
//! Made once per process and shared by every peer. ECDSA P-256, because some peers take no RSA; the peer's own
//! certificate may be either.

use std::fmt;
use std::sync::Arc;

use rtc_dtls::cipher_suite::CipherSuiteId;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::crypto::{Certificate, CryptoPrivateKey};
use rtc_dtls::crypto_provider::RTCCryptoProvider;
use rtc_dtls::crypto_provider::providers::AwsLcRsProvider;
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;

use super::{Fingerprint, FingerprintHash, RETRANSMIT_FIRST};

/// Sent as server name by a client, since the library sends one in any case.
const SERVER_NAME: &str = "webrtc";

const SUITES: [CipherSuiteId; 6] = [
    CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256,
    CipherSuiteId::Tls_Ecdhe_Rsa_With_Aes_128_Gcm_Sha256,
    CipherSuiteId::Tls_Ecdhe_Ecdsa_With_ChaCha20_Poly1305_Sha256,
    CipherSuiteId::Tls_Ecdhe_Rsa_With_ChaCha20_Poly1305_Sha256,
    CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_256_Cbc_Sha,
    CipherSuiteId::Tls_Ecdhe_Rsa_With_Aes_256_Cbc_Sha,
];

/// A certificate and its key, with what follows from them.
pub struct DtlsIdentity {
    fingerprint: Fingerprint,
    /// For clients that list GCM. The library would follow the client's order; this leaves it no choice.
    pub(super) server_gcm: Arc<HandshakeConfig>,
    pub(super) server_any: Arc<HandshakeConfig>,
    pub(super) client: Arc<HandshakeConfig>,
    certificate: Certificate,
}

/// The certificate or its key could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the DTLS certificate: {0}")]
pub struct IdentityError(String);

impl DtlsIdentity {
    /// Makes a new self-signed ECDSA P-256 certificate. A few hundred microseconds: once per process.
    ///
    /// # Errors
    /// If the cryptographic library fails.
    pub fn generate() -> Result<DtlsIdentity, IdentityError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        DtlsIdentity::self_signed(&key)
    }

    /// An RSA-2048 identity, as some peers bring. Slow to make; for tests.
    ///
    /// # Errors
    /// If the cryptographic library fails.
    #[cfg(any(test, feature = "test-util"))]
    pub fn generate_rsa() -> Result<DtlsIdentity, IdentityError> {
        let key =
            rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).map_err(failed)?;
        DtlsIdentity::self_signed(&key)
    }

    /// An identity whose client side offers AES-CM with HMAC-SHA1 alone, as old peers do; for tests and measurements.
    ///
    /// # Errors
    /// If the cryptographic library fails.
    pub fn generate_sha1() -> Result<DtlsIdentity, IdentityError> {
        let mut identity = DtlsIdentity::generate()?;
        identity.client = config(&identity.certificate, true, &[CM])?;
        Ok(identity)
    }

    fn self_signed(key: &rcgen::KeyPair) -> Result<DtlsIdentity, IdentityError> {
        let provider = AwsLcRsProvider::new();
        let params = rcgen::CertificateParams::new(vec![SERVER_NAME.to_owned()]).map_err(failed)?;
        let der = params.self_signed(key).map_err(failed)?.der().to_owned();
        let fingerprint = Fingerprint::of(&der, FingerprintHash::Sha256);
        let private_key = CryptoPrivateKey::from_key_pair(key, provider.crypto()).map_err(failed)?;
        let certificate = Certificate { certificate: vec![der], private_key };

        Ok(DtlsIdentity {
            fingerprint,
            server_gcm: config(&certificate, false, &[GCM])?,
            server_any: config(&certificate, false, &[GCM, CM])?,
            client: config(&certificate, true, &[GCM, CM])?,
            certificate,
        })
    }

    /// SHA-256 fingerprint of the certificate, for our SDP.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }
}

impl fmt::Debug for DtlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DtlsIdentity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

const GCM: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm;
const CM: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80;

fn config(
    certificate: &Certificate,
    is_client: bool,
    profiles: &[SrtpProtectionProfile],
) -> Result<Arc<HandshakeConfig>, IdentityError> {
    ConfigBuilder::default()
        .with_crypto_provider(Arc::new(AwsLcRsProvider::new()))
        .with_certificates(vec![certificate.clone()])
        .with_cipher_suites(SUITES.to_vec())
        .with_srtp_protection_profiles(profiles.to_vec())
        .with_extended_master_secret(ExtendedMasterSecretType::Request)
        // Self-signed on both sides: the fingerprint is compared instead (RFC 8827 §5.6.1).
        .with_insecure_skip_verify(true)
        .with_client_auth(ClientAuthType::RequireAnyClientCert)
        .with_server_name(SERVER_NAME.to_owned())
        .with_flight_interval(RETRANSMIT_FIRST)
        .build(is_client, None)
        .map(Arc::new)
        .map_err(failed)
}

/// A client's settings with other profiles than ours.
#[cfg(test)]
pub(super) fn client_offering(identity: &DtlsIdentity, profiles: &[SrtpProtectionProfile]) -> Arc<HandshakeConfig> {
    config(&identity.certificate, true, profiles).expect("a client's settings")
}

fn failed(cause: impl fmt::Display) -> IdentityError {
    IdentityError(cause.to_string())
}
