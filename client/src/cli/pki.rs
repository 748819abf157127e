//! `pki`: certificates and tokens to try TLS and roles on, without any tool besides this one.
//!
//! For development, and for installations that have no authority of their own: P-256, random
//! serials, no revocation. The private keys are readable by their owner alone.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use access_ledger_proto::hash::sha256;
use anyhow::{Context as _, anyhow, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use zeroize::Zeroizing;

use super::{
    Failure,
    keys::{beside, write_new},
    say,
};
use crate::connect::read_secret;

/// Makes certificates and tokens for development
#[derive(Debug, Subcommand)]
pub(super) enum Pki {
    Ca(Ca),
    Server(Server),
    Client(Client),
    Token(Token),
}

/// Makes an authority: OUT and its private key OUT.key
#[derive(Debug, Args)]
pub(super) struct Ca {
    /// The certificate to write (PEM); neither file may exist
    #[arg(long, value_name = "FILE", default_value = "ca.pem")]
    out: PathBuf,
    /// Days that it is good for
    #[arg(long, value_name = "N", default_value_t = 3_650)]
    days: u32,
}

/// Makes the certificate of a server: OUT and its private key OUT.key
#[derive(Debug, Args)]
pub(super) struct Server {
    #[command(flatten)]
    issued: Issued,
    /// A name or address that clients reach the server by; repeat for more
    #[arg(long = "host", value_name = "HOST", default_values = ["localhost", "127.0.0.1", "::1"])]
    hosts: Vec<String>,
    /// The certificate to write (PEM); neither file may exist
    #[arg(long, value_name = "FILE", default_value = "server.pem")]
    out: PathBuf,
}

/// Makes the certificate of a client: OUT and its private key OUT.key
#[derive(Debug, Args)]
pub(super) struct Client {
    #[command(flatten)]
    issued: Issued,
    /// The name (URI) that the principal is known by, as in spiffe://corp.example/payments
    #[arg(long, value_name = "URI", required_unless_present = "dns")]
    uri: Option<String>,
    /// The name (DNS) that the principal is known by
    #[arg(long, value_name = "HOST")]
    dns: Option<String>,
    /// The certificate to write (PEM); neither file may exist
    #[arg(long, value_name = "FILE", default_value = "client.pem")]
    out: PathBuf,
}

/// Makes a bearer token, and prints the line that names it in a file of principals
#[derive(Debug, Args)]
pub(super) struct Token {
    /// The file to write the token to, readable by its owner only; must not exist
    #[arg(long, value_name = "FILE", default_value = "token")]
    out: PathBuf,
}

/// By whom, and for how long.
#[derive(Debug, Args)]
pub(super) struct Issued {
    /// The authority's certificate, which `pki ca` made; its private key lies beside it as FILE.key
    #[arg(long, value_name = "FILE", default_value = "ca.pem")]
    ca: PathBuf,
    /// Days that the certificate is good for
    #[arg(long, value_name = "N", default_value_t = 365)]
    days: u32,
}

impl Pki {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Ca(command) => command.run()?,
            Self::Server(command) => command.run()?,
            Self::Client(command) => command.run()?,
            Self::Token(command) => command.run()?,
        }
        Ok(())
    }
}

impl Ca {
    fn run(self) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let params = authority(&key, self.days)?;
        let certificate = params.self_signed(&key)?;
        write_pair(&self.out, &certificate.pem(), &key)
    }
}

impl Server {
    fn run(self) -> anyhow::Result<()> {
        let name = self.hosts.first().context("no host")?;
        let mut params = params(name, self.issued.days)?;
        let sans = self.hosts.iter().map(|host| match host.parse::<IpAddr>() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => dns(host),
        });
        params.subject_alt_names = sans.collect::<anyhow::Result<_>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issued.issue(params, &self.out)
    }
}

impl Client {
    fn run(self) -> anyhow::Result<()> {
        let name = self.uri.as_ref().or(self.dns.as_ref()).context("no name")?;
        let mut params = params(name, self.issued.days)?;
        if let Some(uri) = &self.uri {
            ensure!(uri.contains("://"), "uri {uri:?}, expected one like spiffe://corp.example/a");
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        }
        if let Some(host) = &self.dns {
            params.subject_alt_names.push(dns(host)?);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issued.issue(params, &self.out)
    }
}

impl Token {
    fn run(self) -> anyhow::Result<()> {
        let mut random = Zeroizing::new([0; TOKEN_BYTES]);
        getrandom::fill(&mut *random).map_err(|error| anyhow!("no random bytes: {error}"))?;
        let token = Zeroizing::new(format!("al_{}", URL_SAFE_NO_PAD.encode(*random)));
        let line = Zeroizing::new(format!("{}\n", *token));
        write_new(&self.out, &line, 0o600).with_context(|| self.out.display().to_string())?;
        say(format_args!("tokens = [\"sha256:{}\"]", sha256(token.as_bytes())))?;
        Ok(())
    }
}

impl Issued {
    fn issue(&self, mut params: CertificateParams, out: &Path) -> anyhow::Result<()> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key_path = key_beside(&self.ca);
        let key = read_secret(&key_path).with_context(|| key_path.display().to_string())?;
        let key = KeyPair::from_pem(&key).with_context(|| key_path.display().to_string())?;
        let issuer = Issuer::new(authority(&key, self.days)?, key);
        let own = KeyPair::generate()?;
        let certificate = params.signed_by(&own, &issuer)?;
        write_pair(out, &certificate.pem(), &own)
    }
}

/// What an authority with this key is called follows from the key, so that its certificate need not
/// be read to issue another in its name.
fn authority(key: &KeyPair, days: u32) -> anyhow::Result<CertificateParams> {
    let digest = sha256(key.public_key_raw()).to_string();
    let id = digest.get(..AUTHORITY_DIGITS).unwrap_or_default();
    let mut params = params(&format!("access-ledger development {id}"), days)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Good from the day before, for clocks that are behind, for so many days.
fn params(name: &str, days: u32) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let midnight = |date: jiff::civil::Date| -> anyhow::Result<_> {
        let (month, day) = (u8::try_from(date.month())?, u8::try_from(date.day())?);
        Ok(rcgen::date_time_ymd(date.year().into(), month, day))
    };
    params.not_before = midnight(today.yesterday()?)?;
    params.not_after = midnight(today.checked_add(jiff::Span::new().try_days(days)?)?)?;
    Ok(params)
}

fn dns(host: &str) -> anyhow::Result<SanType> {
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    ensure!(!host.is_empty() && host.bytes().all(is_host), "host {host:?} is no name of one");
    Ok(SanType::DnsName(host.try_into()?))
}

/// The key first: a certificate without one is of no use to anybody.
fn write_pair(out: &Path, certificate: &str, key: &KeyPair) -> anyhow::Result<()> {
    let key_path = key_beside(out);
    let pem = Zeroizing::new(key.serialize_pem());
    write_new(&key_path, &pem, 0o600).with_context(|| key_path.display().to_string())?;
    write_new(out, certificate, 0o644).with_context(|| out.display().to_string())?;
    say(format_args!("certificate {}", out.display()))?;
    say(format_args!("private key {}", key_path.display()))?;
    Ok(())
}

fn key_beside(certificate: &Path) -> PathBuf {
    beside(certificate, ".key")
}

/// Enough to tell authorities apart.
const AUTHORITY_DIGITS: usize = 16;

/// Nobody guesses 256 bits, nor finds them from their digest.
const TOKEN_BYTES: usize = 32;
