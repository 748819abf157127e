//! TLS as this server speaks it: version 1.3, by ring, with client certificates where they are
//! asked for.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};

use super::principals::CertificateName;

/// Makes what a handshake needs from PEM texts: a chain, the end entity first, its private key, and
/// the authorities whose client certificates are believed.
///
/// A client without a certificate is let in as far as the handshake goes: it may have a token, or
/// ask for the health alone. One whose certificate does not verify is not. No session is resumed:
/// that would skip the verification, after the certificate has run out too.
///
/// The error names what is wrong with which of the three.
pub(super) fn configuration(
    certificate: &[u8],
    key: &[u8],
    client_ca: Option<&[u8]>,
) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("key: {error}"))?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(pem)? {
                roots.add(authority).map_err(|error| format!("client authority: {error}"))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                .allow_unauthenticated()
                .build();
            builder.with_client_cert_verifier(verifier.map_err(|error| error.to_string())?)
        }
    };
    let mut configuration =
        builder.with_single_cert(chain, key).map_err(|error| error.to_string())?;
    configuration.session_storage = Arc::new(NoServerSessionStorage {});
    configuration.send_tls13_tickets = 0;
    configuration.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(configuration)
}

/// The names by which a client certificate, which the handshake verified, may be known.
///
/// None when one of them is a SPIFFE id among other URIs: such a certificate is none by the rules
/// of SPIFFE (X.509-SVID, section 2), and which of the ids was vouched for is anybody's guess.
pub(super) fn names_of(certificate: &CertificateDer<'_>) -> Vec<CertificateName> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    let uris: Vec<_> = certificate.valid_uri_names().collect();
    if uris.len() > 1 && uris.iter().any(|uri| uri.starts_with("spiffe://")) {
        return Vec::new();
    }
    let uris = uris.into_iter().map(|uri| CertificateName::Uri(uri.to_owned()));
    uris.chain(certificate.valid_dns_names().map(CertificateName::dns)).collect()
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("no certificate in it, wanted PEM".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("certificate: {error}")),
    }
}
