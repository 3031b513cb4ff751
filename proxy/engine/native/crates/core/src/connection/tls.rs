//! Key, leaf and roots to TLS configurations: mutual TLS 1.3 between proxies, ALPN `postern/1` then `h2`, no session tickets; and TLS to
//! servers outside of the mesh.
//!
//! Chains, times and anchors are verified here; whose leaf it is, the other side says (`Question::Verify`), once per leaf.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
pub use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{CipherSuite, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

pub const ALPN_OWN: &[u8] = b"postern/1";
pub const ALPN_H2: &[u8] = b"h2";

/// The configurations of one identity; replaced whole.
#[derive(Clone)]
pub struct Identity {
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
    pub ends_at: SystemTime,
}

/// Why an identity can't be used; the old one stays in force.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the certificates can't be read: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("the identity can't be used: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the roots can't be used: {0}")]
    Roots(#[from] rustls::server::VerifierBuilderError),
}

/// AES-128 first: every TLS 1.3 end has it (RFC 8446 §9.1), and a record costs a quarter less than with AES-256.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

impl Identity {
    /// Make the configurations.
    pub fn new(chain_pem: &[u8], key_pem: &[u8], roots_pem: &[u8], ends_at: SystemTime) -> Result<Self, IdentityError> {
        let chain = CertificateDer::pem_slice_iter(chain_pem).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key_pem)?;
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots_pem) {
            roots.add(root?)?;
        }
        let (roots, provider) = (Arc::new(roots), provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        server.alpn_protocols = vec![ALPN_OWN.to_vec(), ALPN_H2.to_vec()];
        server.send_tls13_tickets = 0; // a resumed session would dodge the identity check
        server.session_storage = Arc::new(NoServerSessionStorage {});
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ChainOnly { roots, provider }))
            .with_client_auth_cert(chain, key)?;
        client.alpn_protocols = vec![ALPN_OWN.to_vec(), ALPN_H2.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Self { server: Arc::new(server), client: Arc::new(client), ends_at })
    }
}

/// TLS to our own app is never verified, minimum 1.2: it is on this host.
pub fn app_config(http1: bool) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = provider();
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody { provider }))
        .with_no_client_auth();
    config.alpn_protocols = vec![if http1 { b"http/1.1".to_vec() } else { ALPN_H2.to_vec() }];
    Ok(Arc::new(config))
}

/// TLS to a server outside of the mesh that has to prove its name (RFC 9525). Equal where a connection made for one may serve the other.
#[derive(Clone, Debug)]
pub struct Verified {
    pub name: ServerName<'static>,
    pub config: Arc<ClientConfig>,
}

impl PartialEq for Verified {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for Verified {}

impl Hash for Verified {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        Arc::as_ptr(&self.config).hash(state);
    }
}

/// Roots, and our chain and key or nothing, as PEM.
#[derive(Debug, PartialEq, Eq)]
pub struct Material {
    pub roots: Vec<u8>,
    pub chain: Vec<u8>,
    pub key: Vec<u8>,
}

/// A configuration for each material in use: the system's roots take milliseconds to read, and many servers share them.
#[derive(Debug, Default)]
pub struct VerifiedConfigs(Mutex<Vec<(Material, Weak<ClientConfig>)>>);

impl VerifiedConfigs {
    /// The one in use, or a new one.
    pub fn get(&self, material: Material) -> Result<Arc<ClientConfig>, IdentityError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, config)| config.strong_count() > 0);
        let found = known.iter().find(|(of, _)| *of == material).and_then(|(_, config)| config.upgrade());
        if let Some(config) = found {
            return Ok(config);
        }
        let config = Arc::new(verified_config(&material)?);
        known.push((material, Arc::downgrade(&config)));
        Ok(config)
    }
}

fn verified_config(material: &Material) -> Result<ClientConfig, IdentityError> {
    let mut roots = RootCertStore::empty();
    // Some systems hold roots that are none.
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&material.roots).filter_map(Result::ok));
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots);
    let mut config = if material.chain.is_empty() {
        builder.with_no_client_auth()
    } else {
        let chain = CertificateDer::pem_slice_iter(&material.chain).collect::<Result<Vec<_>, _>>()?;
        builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&material.key)?)?
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// A chain to our roots, for a server, in its time; no name: the SPIFFE id is checked instead.
#[derive(Debug)]
struct ChainOnly {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

/// Our own app.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let cert = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&cert, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}
